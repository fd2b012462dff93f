"""Fills the template of the model card, and writes the card with its figures."""

import re
from pathlib import Path

from huggingface_hub import ModelCard

from hf_relearn.cards import sections
from hf_relearn.cards.facts import CardFacts
from hf_relearn.cards.metadata import card_data
from hf_relearn.cards.usage import usage_code
from hf_relearn.report.files import file_stem, write_files
from hf_relearn.report.markdown import text
from hf_relearn.report.run_report import draw_figures
from hf_relearn.report.theme import render_png

CARD_FILE = "README.md"
FIGURES = "figures"

_IMAGE = re.compile(r"!\[[^\]]*\]\((?!\w+://)([^)\s]+)\)")


def template_path() -> Path:
    """The Jinja template: in an installed package beside this one, in a repository in `model_cards/`."""
    package = Path(__file__).parents[1]
    installed = package / "model_cards" / "template.md"
    return installed if installed.is_file() else package.parents[1] / "model_cards" / "template.md"


def render_card(facts: CardFacts, captions: dict[str, tuple[str, str]] | None = None) -> str:
    """A model card as Markdown with its metadata.

    Args:
        facts: what it tells.
        captions: path of each figure, relative to the card -> (subject, caption).

    Returns:
        The text of `README.md`. No absolute local path is in it.
    """
    card = ModelCard.from_template(
        card_data(facts),
        template_path=str(template_path()),
        name=text(facts.name),
        summary=sections.summary(facts),
        notes=sections.notes(facts),
        encoders=sections.encoders(facts),
        fusion=sections.fusion(facts),
        usage=usage_code(facts.repository, facts.encoders),
        batches=sections.batches(facts),
        results=sections.results(facts),
        ablations=sections.ablations(facts),
        diagnosis=sections.diagnosis(facts),
        figures=sections.figures(captions or {}),
        training=sections.training(facts),
        settings=sections.settings(facts),
        environment=sections.hardware(facts),
        limits=sections.limits(facts),
    )
    return str(card).rstrip() + "\n"


def write_card(folder: str | Path, facts: CardFacts) -> Path:
    """Write `README.md` and the figures that it shows into a model's folder.

    Purities, strengths and accuracies are drawn from the facts. Figures of features are shown where a report has left
    them in `figures/`, once training has ended.

    Args:
        folder: of the model, created where it is missing.
        facts: what the card tells.

    Returns:
        Path of the card. It and its figures are written whole or not at all.
    """
    folder = Path(folder)
    drawn, _ = draw_figures(facts.records, facts.log_history, facts.modalities, None, None)
    captions = {f"{FIGURES}/{name}": (subject, caption) for name, (subject, caption, _) in drawn.items()}
    contents = {f"{FIGURES}/{name}": render_png(figure) for name, (_, _, figure) in drawn.items()}
    if facts.seconds is not None:
        for name in facts.modalities:
            path = f"{FIGURES}/features_{file_stem(name)}.png"
            if (folder / path).is_file():
                caption = f"Features of {text(name)} by class, in one projection of both parts."
                captions[path] = (f"the {text(name)} features", caption)
    contents[CARD_FILE] = render_card(facts, captions).encode()
    write_files(folder, contents)
    return folder / CARD_FILE


def card_figures(card: str) -> list[str]:
    """Paths of the figures that a card shows, relative to it: they have to go where the card goes.

    Args:
        card: text of the card.

    Returns:
        Each path once; images on the web are not among them.
    """
    return list(dict.fromkeys(_IMAGE.findall(card)))
