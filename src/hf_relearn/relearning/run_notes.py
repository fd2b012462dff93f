"""The notes of a run in its folder and its checkpoints: which run, its settings, how many records it has written."""

import json
import os
import shutil
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerState, TrainingArguments

from hf_relearn.files import write_whole_text
from hf_relearn.records import HISTORY_FILE, read_history, records_before
from hf_relearn.relearning.settings import RelearnSettings

CHECKPOINT_FILE = "relearn_run.json"
_ASIDE = "_relearn_records-{}"  # folder for the records of an earlier run


def arguments_of_run(args: TrainingArguments, folder: str | None) -> TrainingArguments:
    """Point the output directory at the folder of this run, if it is one of a hyper-parameter search."""
    if folder is None or folder == args.output_dir:
        return args
    changed = copy(args)
    changed.output_dir = folder
    return changed


def output_folder(args: TrainingArguments) -> Path:
    """Return the Trainer's output directory."""
    assert args.output_dir is not None  # the arguments fill in a default
    return Path(args.output_dir)


def checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Return the folder that the Trainer saves the present step's checkpoint in."""
    return output_folder(args) / f"checkpoint-{state.global_step}"


def note_run(
    folder: Path,
    run: str,
    checksum: str | None,
    settings: RelearnSettings,
    *,
    records: int | None = None,
    ended_at: int | None = None,
) -> None:
    """Write a run's note into its output directory or a checkpoint.

    Args:
        folder: where.
        run: identifies the run; a resumed run keeps it.
        checksum: of its initial weights; None without re-learning.
        settings: of the run.
        records: how many it has written so far, for a checkpoint.
        ended_at: the step at which it came to its end, for the output directory.
    """
    note: dict[str, Any] = {"run": run, "initial_weights": checksum, "settings": _as_noted(settings)}
    note |= {"records": records} if records is not None else {"ended_at": ended_at}
    write_whole_text(folder / CHECKPOINT_FILE, json.dumps(note, indent=2) + "\n")


def noted_run(folder: Path) -> str | None:
    """Return the run that an output directory or a checkpoint belongs to; None if it does not say."""
    return _note(folder).get("run")


def noted_end(output_dir: Path) -> int | None:
    """Return the step at which the run of an output directory came to its end; None if it was stopped before."""
    return _note(output_dir).get("ended_at")


def noted_initial_weights(checkpoint: Path) -> str | None:
    """Return the checksum of the initial weights that a checkpoint belongs to, or None if it does not say."""
    return _note(checkpoint).get("initial_weights") or None


def changed_settings(checkpoint: Path, settings: RelearnSettings) -> dict[str, dict[str, Any]]:
    """Return the settings that differ from those noted in a checkpoint: name -> `{"from": ..., "to": ...}`."""
    noted = _note(checkpoint).get("settings", {})
    return {
        name: {"from": noted[name], "to": value}
        for name, value in _as_noted(settings).items()
        if name in noted and noted[name] != value
    }


def _as_noted(settings: RelearnSettings) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(settings), default=str))


def _note(checkpoint: Path) -> dict[str, Any]:
    """Read a run's note; empty if there is none.

    Raises:
        ValueError: it is damaged; names the file.
    """
    path = checkpoint / CHECKPOINT_FILE
    if not path.is_file():
        return {}
    types = {"run": str, "initial_weights": str, "settings": dict, "records": int, "ended_at": int}
    try:
        note = json.loads(path.read_bytes())
        for name, kind in types.items():
            if not isinstance(note.get(name), (kind, type(None))):
                raise ValueError(f"{name!r} is {note[name]!r}")
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): restore it from a copy, resume from another checkpoint, or start afresh in "
            "another folder"
        ) from error
    return note


def earlier_records(output_dir: Path, checkpoint: Path, step: int) -> list[dict[str, Any]]:
    """Read the records that a run resumed at `step` from a checkpoint keeps: as many as the checkpoint counts.

    Raises:
        ValueError: there are fewer; the message names the file.
    """
    folder = checkpoint
    if not (checkpoint / HISTORY_FILE).is_file():  # as earlier versions wrote it
        run = noted_run(checkpoint)
        places = (output_dir, checkpoint.parent)
        aside = [path for place in places if (path := place / _ASIDE.format(run)).is_dir()]
        own = [place for place in places if noted_run(place) == run]
        folder = (aside + own + [output_dir])[0]
    records = read_history(folder)
    count = _note(checkpoint).get("records")
    if count is not None and len(records) < count:
        raise ValueError(
            f"cannot resume from {checkpoint}: {folder / HISTORY_FILE} holds {len(records)} of the {count} records "
            "that its run had written by then; copy the run's file there, or start afresh"
        )
    return records_before(records[:count], step)


def set_records_aside(output_dir: Path, run: str) -> None:
    """Keep the records of an earlier run in the folder as long as it holds checkpoints of that run."""
    with_checkpoints = {noted_run(checkpoint) for checkpoint in output_dir.glob("checkpoint-*")}
    earlier = noted_run(output_dir)
    if earlier is not None and earlier != run and earlier in with_checkpoints:
        aside = output_dir / _ASIDE.format(earlier)
        if (output_dir / HISTORY_FILE).is_file() and not aside.is_dir():
            aside.mkdir()
            os.replace(output_dir / HISTORY_FILE, aside / HISTORY_FILE)
    for aside in output_dir.glob(_ASIDE.format("*")):
        if aside.name not in {_ASIDE.format(kept) for kept in with_checkpoints}:
            shutil.rmtree(aside)
