"""The record of a run: `relearn_history.jsonl`, one JSON line per diagnosis, point or change of settings."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_relearn.hub.staging import HISTORY_FILE
from hf_relearn.method.whole_file import whole_file


def read_history(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """Read a run's records, oldest first; none if the run has no file yet.

    Each record holds `step`, `epoch`, `kind` (`point`: encoders were moved; `record` and `end`: diagnosis only),
    `train_size`, `diagnosis_size`, `num_classes`, `streamed` (part -> samples that were read from the beginning of a
    stream, among which the diagnosed ones are), `seconds`, `kmeans_seconds` and, under `modalities`, per modality
    `train_purity`, `val_purity`, `train_chance_purity`, `val_chance_purity`, `gap`, `diagnosed_alpha` (None where
    nothing was diagnosed), `train_size` and `diagnosis_size` (samples of each part that have the modality and were
    clustered), `alpha` (the strength applied) and `distance` (relative distance moved). A record of the kind
    `settings` says at which step the run was resumed with other settings: it holds `changed`, name of the setting ->
    `{"from": ..., "to": ...}`, and no modalities.

    Raises:
        ValueError: for a line that is no JSON object; the message names file and line.
    """
    path = Path(folder) / HISTORY_FILE
    if not path.is_file():
        return []
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            record["step"], record["kind"], record["modalities"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not a record of a diagnosis ({error})") from error
        records.append(record)
    return records


def write_history(folder: str | os.PathLike, records: Sequence[dict[str, Any]]) -> None:
    """Replace a run's records as a whole: the file is either the old or the new one, never half of it."""
    write_text_atomically(Path(folder) / HISTORY_FILE, "".join(json.dumps(record) + "\n" for record in records))


def records_before(records: Sequence[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """The records that a run resumed at `step` keeps.

    A point at `step` came after the checkpoint of that step and will be taken again; the diagnosis at the end of a
    run came before it.
    """
    return [
        record for record in records if record["step"] < step or (record["step"] == step and record["kind"] == "end")
    ]


def points_taken(records: Sequence[dict[str, Any]]) -> int:
    """How many of the records are re-learning points."""
    return sum(record["kind"] == "point" for record in records)


def write_text_atomically(path: Path, text: str) -> None:
    """Write a small text file that appears whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8"))
