"""Write a run's report and card again from its folder."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load

from hf_relearn.cards import CARD_FILE, CardInfo, DatasetFacts, collect_facts, write_card
from hf_relearn.cards.card import TAGS
from hf_relearn.cards.facts import changed_from_defaults
from hf_relearn.models import MultimodalConfig
from hf_relearn.quality import quality_metrics
from hf_relearn.records import HISTORY_FILE, Record, read_history
from hf_relearn.report.by_class import read_class_results
from hf_relearn.report.run_report import REPORT_FACTS_FILE, write_report
from hf_relearn.training.arguments import RelearnTrainingArguments
from hf_relearn.training.data_parts import SAMPLES_FILE

STATE_FILE = "trainer_state.json"
_RESULTS = "_results.json"


@dataclass(frozen=True)
class RunFolder:
    """A run, as its files tell it.

    Args:
        records: diagnosis records, without those of changed settings.
        log_history: the Trainer's.
        step: the step that training came to; None if no state of a Trainer is there.
        results: split -> metric -> value.
        report: what the report was told: `title`, `settings`, `notes`, `results`, `samples`, `versions`; empty
            without one.
    """

    records: Sequence[Record]
    log_history: Sequence[Record]
    step: int | None
    results: Mapping[str, Mapping[str, float]]
    report: Mapping[str, Any]


def read_run_folder(folder: str | Path) -> RunFolder:
    """Read a run's files: the diagnosis records, the Trainer's state (of the last checkpoint, if the run did not
    end), and what its report was told; without a report, the results that the Trainer saved.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: for a file that is not what its name says; the message names it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    path = _last_state(folder)
    state = read_json_object(path) if path is not None else {}
    log_history = state.get("log_history", [])
    if not isinstance(log_history, list) or (path is not None and "log_history" not in state):
        raise ValueError(f"{path} holds no log_history: it is no state of a Trainer")
    report = read_json_object(folder / REPORT_FACTS_FILE)
    return RunFolder(
        records=[record for record in read_history(folder) if record["kind"] != "settings"],
        log_history=log_history,
        step=state.get("global_step"),
        results=report.get("results") or _saved_results(folder),
        report=report,
    )


def require_run(folder: str | Path, run: RunFolder) -> None:
    """See that a folder holds a run.

    Raises:
        FileNotFoundError: if it holds neither diagnosis records nor a Trainer's state.
    """
    if not run.records and run.step is None and not run.log_history:
        raise FileNotFoundError(
            f"{folder} holds no run: neither {HISTORY_FILE} nor {STATE_FILE} is there; give the output directory of a "
            "training run"
        )


def read_json_object(path: Path) -> Mapping[str, Any]:
    """Return a file's JSON object; empty if there is no file.

    Raises:
        ValueError: for a file that holds something else.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): restore or delete it") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, but should hold an object: restore or delete it")
    return content


def _last_state(folder: Path) -> Path | None:
    """Return the Trainer's state of the run's end, or else of its last checkpoint."""
    if (folder / STATE_FILE).is_file():
        return folder / STATE_FILE
    states = folder.glob(f"checkpoint-*/{STATE_FILE}")
    by_step = {int(step): path for path in states if (step := path.parent.name.rpartition("-")[2]).isdecimal()}
    return by_step[max(by_step)] if by_step else None


def _saved_results(folder: Path) -> dict[str, dict[str, float]]:
    """Return the quality measures of the files that `Trainer.save_metrics` wrote: split -> metric -> value."""
    results = {}
    for path in sorted(folder.glob(f"*{_RESULTS}")):
        split = path.name.removesuffix(_RESULTS)
        if split in ("all", "train"):
            continue
        results[split] = quality_metrics(read_json_object(path), split)
    return results


def rebuild_report(folder: str | Path, *, title: str | None = None) -> Path:
    """Write `report.md` and its figures from a run's output directory. Figures of features that are there stay.

    Args:
        folder: the output directory.
        title: heading; None takes that of the earlier report, or the folder's name.

    Returns:
        Path of `report.md`.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ValueError: for a file of it that is not what its name says; the message names it.
    """
    folder = Path(folder)
    run = read_run_folder(folder)
    require_run(folder, run)
    return write_report(
        folder,
        title=title or run.report.get("title") or folder.resolve().name,
        records=run.records,
        log_history=run.log_history,
        results=run.results,
        settings=run.report.get("settings", {}),
        notes=run.report.get("notes", ()),
        samples=run.report.get("samples") or read_json_object(folder / SAMPLES_FILE),
        by_class=read_class_results(run.report.get("by_class")),
        versions=run.report.get("versions"),
        keep_feature_figures=True,
    )


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
    is there, if it is not given anew.

    Args:
        folder: of the model; the records and states of its run are read if they are there, too.
        repository: Hub id that the card's code loads from.
        model_name: heading.
        license: one of the Hub's identifiers.
        language: ISO 639 codes of the languages in the data.
        tags: further ones, beside those of the card.

    Returns:
        Path of the card. It and its figures are written whole or not at all.

    Raises:
        FileNotFoundError: if the folder holds no model.
        ValueError: for a model of another kind, a damaged file, or a language that the Hub would refuse.
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
    """Return the text and metadata of a card; both empty if there is none."""
    if not path.is_file():
        return "", {}
    text = path.read_text(encoding="utf-8")
    try:
        return text.partition("\n---\n")[2] or text, metadata_load(path) or {}
    except ValueError as error:
        raise ValueError(f"the metadata of {path} cannot be read ({error}): mend or delete it") from error


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())
