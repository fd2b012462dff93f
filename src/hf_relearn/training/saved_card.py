"""The model card of a model that is there already, made anew from its folder."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load

from hf_relearn.cards import CARD_FILE, CardInfo, DatasetFacts, collect_facts, write_card
from hf_relearn.cards.collect import changed_from_defaults
from hf_relearn.cards.metadata import TAGS
from hf_relearn.models import MultimodalConfig
from hf_relearn.training.arguments import RelearnTrainingArguments
from hf_relearn.training.run_folder import read_json_object, read_run_folder

ARGUMENTS_FILE = "training_arguments.json"

_HEADING = re.compile(r"^# (.+)$", re.MULTILINE)
_REPOSITORY = re.compile(r'\.from_pretrained\("([\w./-]+)"\)')


def rebuild_card(
    folder: str | Path,
    *,
    repository: str | None = None,
    model_name: str | None = None,
    license: str | None = None,
    language: Sequence[str] = (),
    tags: Sequence[str] = (),
) -> Path:
    """Write `README.md` and its figures into a saved model's folder, from what its run left there.

    What only the author knows (heading, repository, licence, languages, tags, data sets) is taken from the card that
    is there, where it is not given anew.

    Args:
        folder: of the model; the records and states of its run are read where they are there, too.
        repository: Hub id that the card's code loads from.
        model_name: heading.
        license: one of the Hub's identifiers.
        language: ISO 639 codes of the languages in the data.
        tags: further ones, beside those of the card.

    Returns:
        Path of the card. It and its figures are written whole or not at all.

    Raises:
        FileNotFoundError: if the folder holds no model.
        ValueError: for a model of another kind, a damaged file, or a licence or language that the Hub would refuse.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no saved model: there is no config.json")
    kind = read_json_object(folder / "config.json").get("model_type")
    if kind != MultimodalConfig.model_type:
        raise ValueError(f"{folder} holds a model of the type {kind!r}, which is no fusion model")
    config, run = MultimodalConfig.from_pretrained(folder), read_run_folder(folder)
    text, metadata = _earlier_card(folder / CARD_FILE)
    heading, address = _HEADING.search(text), _REPOSITORY.search(text)
    own_tags = {*TAGS, *config.modalities}
    arguments = read_json_object(folder / ARGUMENTS_FILE)
    info = CardInfo(
        model_name=model_name or (heading[1] if heading else None),
        license=license or metadata.get("license"),
        language=list(language) or _listed(metadata.get("language")),
        tags=list(dict.fromkeys(tag for tag in [*_listed(metadata.get("tags")), *tags] if tag not in own_tags)),
        datasets=[DatasetFacts(name, name) for name in _listed(metadata.get("datasets"))],
        notes=run.report.get("notes", ()),
        results=run.results or None,
        settings=changed_from_defaults(RelearnTrainingArguments, arguments)
        if arguments
        else run.report.get("settings", {}),
    )
    name = folder.resolve().name
    facts = collect_facts(
        config,
        name=name,
        info=info,
        repository=repository or (address[1] if address else name),
        records=run.records,
        log_history=run.log_history,
        step=run.step,
    )
    if "versions" in run.report:
        facts = replace(facts, environment=run.report["versions"])
    return write_card(folder, facts)


def _earlier_card(path: Path) -> tuple[str, dict[str, Any]]:
    """Text and metadata of a card; both empty where there is none."""
    if not path.is_file():
        return "", {}
    text = path.read_text(encoding="utf-8")
    try:
        return text.partition("\n---\n")[2] or text, metadata_load(path) or {}
    except ValueError as error:
        raise ValueError(f"the metadata of {path} cannot be read ({error}): mend or delete it") from error


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())
