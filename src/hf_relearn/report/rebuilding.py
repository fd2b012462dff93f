"""A run's report, made anew from what the run left in its folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_relearn.report.run_report import REPORT_FACTS_FILE, write_report
from hf_relearn.report.series import finite
from hf_relearn.training.history import HISTORY_FILE, read_history

STATE_FILE = "trainer_state.json"
_RESULTS = "_results.json"
_SPEED = ("runtime", "per_second", "epoch", "flos", "samples")


def rebuild_report(folder: str | Path, *, title: str | None = None) -> Path:
    """Write `report.md` and its figures from a run's output directory.

    Read are the diagnosis records, the Trainer's state (of the last checkpoint, where the run did not end), and what
    the earlier report was told; without one, the results that the Trainer saved. Figures of features that are there
    stay.

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
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    records, state = read_history(folder), _last_state(folder)
    if not records and state is None:
        raise FileNotFoundError(
            f"{folder} holds no run: neither {HISTORY_FILE} nor {STATE_FILE} is there; give the output directory of a "
            "training run"
        )
    facts = _read_json(folder / REPORT_FACTS_FILE)
    log_history = _read_json(state).get("log_history") if state is not None else []
    if not isinstance(log_history, list):
        raise ValueError(f"{state} holds no log_history: it is no state of a Trainer")
    return write_report(
        folder,
        title=title or facts.get("title") or folder.resolve().name,
        records=[record for record in records if record["kind"] != "settings"],
        log_history=log_history,
        results=facts.get("results") or _saved_results(folder),
        settings=facts.get("settings", {}),
        notes=facts.get("notes", ()),
        versions=facts.get("versions"),
        keep_feature_figures=True,
    )


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
        values = {name.removeprefix(f"{split}_"): value for name, value in _read_json(path).items()}
        results[split] = {
            name: number
            for name, value in values.items()
            if not name.endswith(_SPEED) and (number := finite(value)) is not None
        }
    return results


def _read_json(path: Path) -> Mapping[str, Any]:
    """A file's JSON object; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): restore or delete it") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, but should hold an object: restore or delete it")
    return content
