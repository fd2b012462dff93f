"""Render a model card: metadata, usage and text."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_relearn.cards.facts import CardFacts, DatasetFacts, EncoderFacts
from hf_relearn.files import file_stem, write_files
from hf_relearn.hub.local_paths import local_roots, scrub_files, scrub_json
from hf_relearn.quality import main_metric
from hf_relearn.records import finite
from hf_relearn.report.markdown import MISSING, code, listed, main_metrics, metric_label, number, prose, table, text
from hf_relearn.report.reading import read_modality, read_run, was_moved
from hf_relearn.report.run_report import draw_figures, points_table, results_table, settings_table
from hf_relearn.report.theme import render_png
from hf_relearn.report.verdict import chosen_split, read_verdict

LIBRARY = "hf_relearn"
TAGS = ("multimodal", "multimodal-classification", "diagnosing-and-relearning", "arxiv:2407.09705")

_TASKS = {
    "video": "video-classification",
    "vision": "image-classification",
    "audio": "audio-classification",
    "text": "text-classification",
    "features": "tabular-classification",
    "table": "tabular-classification",
}
WEAK_SHARE = 1.25  # a modality whose accuracy is less than so many times that of guessing is called weak

_KINDS = {
    "audio": "a sound",
    "vision": "an image",
    "video": "a video",
    "text": "text",
    "features": "numbers",
    "table": "a row of a table",
}
_ABLATIONS = {
    "alone": "unimodal_{}_{}",
    "only this one given": "only_{}_{}",
    "all but this one": "without_{}_{}",
}


def card_data(facts: CardFacts) -> ModelCardData:
    """Collect the metadata: all base models, data sets, and every metric in the model index.

    Backbones that did not come from the Hub are not base models. The commits of the base models stand under
    `base_model_revision`, which is not a key of the Hub's own and which it leaves alone.
    """
    bases = {encoder.base_model: encoder for encoder in facts.encoders if encoder.base_model}
    revisions = {name: encoder.base_model_revision for name, encoder in bases.items() if encoder.base_model_revision}
    results = eval_results(facts)
    return ModelCardData(
        language=list(facts.info.language) or None,
        license=facts.info.license,
        library_name=LIBRARY,
        pipeline_tag=pipeline_tag(facts.encoders, facts.regression),
        tags=[*TAGS, *(encoder.modality for encoder in facts.encoders), *facts.info.tags],
        base_model=list(bases) or None,
        base_model_relation="finetune" if bases else None,
        base_model_revision=revisions or None,
        datasets=list(dict.fromkeys(dataset.hub_id for dataset in facts.datasets if dataset.hub_id)) or None,
        metrics=list(dict.fromkeys(result.metric_type for result in results if result.metric_type != "loss")) or None,
        eval_results=results or None,
        model_name=prose(facts.name) if results else None,  # a key of the model index, not one of its own
    )


def pipeline_tag(encoders: Sequence[EncoderFacts], regression: bool = False) -> str:
    """Choose the Hub's task of the richest modality, since the Hub has none for several.

    Of regression it has but that of tables.
    """
    if regression:
        return "tabular-regression"
    kinds = {encoder.kind for encoder in encoders}
    if any(encoder.num_frames > 1 for encoder in encoders if encoder.kind == "vision"):
        return _TASKS["video"]
    return next(task for kind, task in _TASKS.items() if kind in kinds)


def eval_results(facts: CardFacts) -> list[EvalResult]:
    """Make the entries of the model index: the main metrics, and the accuracy of each modality, for each split.

    Of a regression these are the mean absolute error, Pearson's correlation and a user's own.
    """
    alone = [f"unimodal_{name}_accuracy" for name in facts.modalities]
    left_out = ("r2", "sign_accuracy") if facts.regression else ()
    first = facts.datasets[0] if facts.datasets else None
    name = prose(first.name) if first else "the held-out data"
    task = pipeline_tag(facts.encoders, facts.regression)
    return [
        EvalResult(
            task_type=task,
            task_name=f"Multimodal {'regression' if facts.regression else 'classification'}",
            dataset_type=(first.hub_id if first and first.hub_id else _slug(name)),
            dataset_name=name,
            dataset_config=first.config if first else None,
            dataset_revision=first.revision if first else None,
            dataset_split=split,
            metric_type=metric_type(metric),
            metric_name=metric_label(metric),
            metric_value=round(float(value), 6),
        )
        for split, metrics in facts.results.items()
        for metric, value in metrics.items()
        if metric in [*main_metrics(metrics), *alone] and metric not in left_out
    ]


def metric_type(metric: str) -> str:
    """Give the Hub's name of a metric: that of `unimodal_audio_accuracy` is `accuracy`."""
    if metric == "pearson":
        return "pearsonr"
    for known in ("accuracy", "f1", "loss"):
        if re.search(rf"(^|_){known}(_|$)", metric):
            return known
    return metric


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.").lower() or "unknown"


_FILES = {"audio": "clip.wav", "vision": "image.jpg", "video": "clip.mp4", "text": "What a surprise!"}


def usage_code(repository: str, encoders: Sequence[EncoderFacts], regression: bool = False) -> str:
    """Write five lines of Python that classify one sample, or predict its number.

    The files that it names (`clip.wav`, `image.jpg`, `clip.mp4`) are the reader's.
    """
    values = ", ".join(f'"{encoder.modality}": {_example(encoder)}' for encoder in encoders)
    return "\n".join(
        [
            "from hf_relearn import MultimodalForClassification, MultimodalProcessor",
            "",
            f'model = MultimodalForClassification.from_pretrained("{repository}")',
            f'processor = MultimodalProcessor.from_pretrained("{repository}")',
            f"logits = model(**processor({{{values}}})).logits",
            "print(logits.item())" if regression else "print(model.config.id2label[logits.argmax(-1).item()])",
        ]
    )


def _example(encoder: EncoderFacts) -> str:
    """Write a batch of one raw value."""
    if encoder.kind == "features":
        return f"[[0.0] * {encoder.input_size}]"
    value: Any = encoder.row if encoder.kind == "table" else _FILES[encoder.kind]
    if encoder.kind == "vision" and encoder.num_frames > 1:
        value = [f"image{number}.jpg" for number in range(1, encoder.num_frames + 1)]
    return str([value]).replace("'", '"')


CARD_FILE = "README.md"
FIGURES = "figures"

_IMAGE = re.compile(r"!\[[^\]]*\]\((?!\w+://)([^)\s]+)\)")


def template_path() -> Path:
    """Find the Jinja template: in an installed package, or in `model_cards/` of the repository."""
    package = Path(__file__).parents[1]
    installed = package / "model_cards" / "template.md"
    return installed if installed.is_file() else package.parents[1] / "model_cards" / "template.md"


def render_card(facts: CardFacts, captions: dict[str, tuple[str, str]] | None = None) -> str:
    """Render a model card as Markdown with its metadata.

    Args:
        facts: what it tells.
        captions: path of each figure, relative to the card -> (subject, caption).

    Returns:
        The text of `README.md`.
    """
    card = ModelCard.from_template(
        card_data(facts),
        template_path=str(template_path()),
        usage=usage_code(facts.repository, facts.encoders, facts.regression),
        figures=captions or {},
        **template_values(facts),
    )
    return str(card).rstrip() + "\n"


def write_card(folder: str | Path, facts: CardFacts) -> Path:
    """Write `README.md` and the figures that it shows into a model's folder.

    Purities, strengths and accuracies are drawn from the facts. Figures of features are shown if a report has left
    them in `figures/`, once training has ended.

    Args:
        folder: of the model, created if it is missing.
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
                caption = f"Features of {text(name)}, in one projection of both parts."
                captions[path] = (f"the {text(name)} features", caption)
    roots = local_roots(folder)
    facts = replace(facts, settings=scrub_json(facts.settings, roots))
    contents[CARD_FILE] = render_card(facts, captions).encode()
    write_files(folder, scrub_files(contents, roots))
    return folder / CARD_FILE


def card_figures(card: str) -> list[str]:
    """List the paths of the figures that a card shows, relative to it.

    Args:
        card: text of the card.

    Returns:
        Each path once; images on the web are not among them.
    """
    return list(dict.fromkeys(_IMAGE.findall(card)))


def template_values(facts: CardFacts) -> dict[str, Any]:
    """Collect the names that `model_cards/template.md` uses, but for its metadata, code and figures."""
    split = chosen_split(facts.results)
    sized = [record for record in facts.records if record.get("diagnosis_size")]
    return {
        "facts": facts,
        "inputs": [f"**{text(encoder.modality)}** ({_input(encoder)})" for encoder in facts.encoders],
        "classes": [text(name) for name in facts.class_names],
        "datasets": [_dataset(dataset) for dataset in facts.datasets],
        "names_of_data": [text(dataset.name) for dataset in facts.datasets],
        "relearnt": [
            text(name) for name in facts.modalities if any(was_moved(record, name) for record in facts.records)
        ],
        "verdict": read_verdict(
            facts.records, facts.log_history, facts.results, facts.modalities, settings=facts.settings
        ),
        "encoders": [
            [text(e.modality), _input(e), text(e.architecture), _start(e), number(e.feature_size)]
            for e in facts.encoders
        ],
        "results": results_table(facts.results),
        "split": split,
        "ablations": _ablations(facts, split),
        "weak": _weak_modalities(facts, split),
        "sizes": sized[-1] if sized else None,
        "environment": [(text(name), text(value)) for name, value in facts.environment.items()],
        "duration": _duration,
        **{
            function.__name__: function
            for function in (text, prose, code, number, listed, table)
            + (read_modality, read_run, points_table, settings_table)
        },
    }


def _ablations(facts: CardFacts, split: str | None) -> list[list[str]]:
    """Make rows of accuracies, or R², by modality below their header; empty if none was measured."""
    measured = facts.results.get(split, {}) if split else {}
    metric = main_metric(facts.regression)
    shown = {
        title: key
        for title, key in _ABLATIONS.items()
        if any(key.format(name, metric) in measured for name in facts.modalities)
    }
    rows = [
        [text(name), *(number(measured.get(key.format(name, metric))) for key in shown.values())]
        for name in facts.modalities
    ]
    together = ["*all together*", *([number(measured.get(metric))] * len(shown))]
    return [["modality", *shown], *rows, together] if shown else []


def _weak_modalities(facts: CardFacts, split: str | None) -> dict[str, float]:
    """Find the accuracies of the modalities that hardly beat guessing."""
    if split is None or not facts.class_names or facts.regression:
        return {}
    found = {name: finite(facts.results[split].get(f"unimodal_{name}_accuracy")) for name in facts.modalities}
    chance = 1 / len(facts.class_names)
    return {name: value for name, value in found.items() if value is not None and value < WEAK_SHARE * chance}


def _input(encoder: EncoderFacts) -> str:
    if encoder.kind == "vision" and encoder.num_frames > 1:
        return f"{encoder.num_frames} images"
    return _KINDS[encoder.kind]


def _start(encoder: EncoderFacts) -> str:
    if encoder.base_model:
        link = f"[{text(encoder.base_model)}](https://huggingface.co/{encoder.base_model})"
        revision = encoder.base_model_revision
        return f"{link} at `{revision[:12]}`" if revision else link
    if encoder.pretrained is None:
        return MISSING
    return "pretrained weights that are not on the Hub" if encoder.pretrained else "random weights"


def _dataset(dataset: DatasetFacts) -> str:
    name = text(dataset.name)
    if dataset.hub_id:
        name = f"[{name}](https://huggingface.co/datasets/{dataset.hub_id})"
    return name + (f", configuration {text(dataset.config)}" if dataset.config else "")


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "less than a second"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
