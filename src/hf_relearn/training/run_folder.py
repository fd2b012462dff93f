"""What a run left in its output directory, for whoever tells of the run again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_relearn.report.run_report import REPORT_FACTS_FILE
from hf_relearn.report.series import Record, finite
from hf_relearn.training.history import HISTORY_FILE, read_history

STATE_FILE = "trainer_state.json"
_RESULTS = "_results.json"
_SPEED = ("runtime", "per_second", "epoch", "flos", "samples")


@dataclass(frozen=True)
class RunFolder:
    """A run, as its files tell it.

    Args:
        records: diagnosis records, without those of changed settings.
        log_history: the Trainer's.
        step: the step that training came to; None where no state of a Trainer is there.
        results: split -> metric -> value.
        report: what the report was told: `title`, `settings`, `notes`, `results`, `versions`; empty without one.
    """

    records: Sequence[Record]
    log_history: Sequence[Record]
    step: int | None
    results: Mapping[str, Mapping[str, float]]
    report: Mapping[str, Any]


def read_run_folder(folder: str | Path) -> RunFolder:
    """Read a run's files: the diagnosis records, the Trainer's state (of the last checkpoint, where the run did not
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
    """A file's JSON object; empty where there is no file.

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
    """The Trainer's state of the run's end, or else of its last checkpoint."""
    if (folder / STATE_FILE).is_file():
        return folder / STATE_FILE
    states = folder.glob(f"checkpoint-*/{STATE_FILE}")
    by_step = {int(step): path for path in states if (step := path.parent.name.rpartition("-")[2]).isdecimal()}
    return by_step[max(by_step)] if by_step else None


def _saved_results(folder: Path) -> dict[str, dict[str, float]]:
    """Quality measures of the files that `Trainer.save_metrics` wrote: split -> metric -> value."""
    results = {}
    for path in sorted(folder.glob(f"*{_RESULTS}")):
        split = path.name.removesuffix(_RESULTS)
        if split in ("all", "train"):
            continue
        values = {name.removeprefix(f"{split}_"): value for name, value in read_json_object(path).items()}
        results[split] = {
            name: number
            for name, value in values.items()
            if not name.endswith(_SPEED) and (number := finite(value)) is not None
        }
    return results
