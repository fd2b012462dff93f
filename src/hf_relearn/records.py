"""The record of a run: one JSON line per diagnosis, made, read, and drawn as curves."""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_relearn.files import whole_file
from hf_relearn.method import ModalityDiagnosis

if TYPE_CHECKING:
    from hf_relearn.relearning.diagnoser import Diagnoser, Verdict

HISTORY_FILE = "relearn_history.jsonl"


def read_history(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """Read a run's records, oldest first; none if the run has no file yet.

    Each record holds `step`, `epoch`, `kind` (`point`: encoders were moved; `record` and `end`: diagnosis only),
    `train_size`, `diagnosis_size`, `num_classes`, `streamed` (part -> samples that were read from the beginning of a
    stream, among which the diagnosed ones are), `seconds`, `kmeans_seconds` and, under `modalities`, per modality
    `train_purity`, `val_purity`, `train_chance_purity`, `val_chance_purity`, `gap`, `diagnosed_alpha` (None where
    nothing was diagnosed), `train_size` and `diagnosis_size` (samples of each part that have the modality and were
    clustered), `alpha` (the strength applied) and `distance` (relative distance moved). A record of the kind
    `settings` says at which step the run was resumed with other settings: it holds `changed`, name of the setting ->
    `{"from": ..., "to": ...}`, and no modalities. A last line that was cut off by a kill is left out.

    Raises:
        ValueError: for a line that is no JSON object; the message names file and line.
    """
    path = Path(folder) / HISTORY_FILE
    if not path.is_file():
        return []
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
            record["step"] + 0, record["kind"] + "", record["modalities"].items()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: not a record of a diagnosis ({error})") from error
        records.append(record)
    return records


def write_history(folder: str | os.PathLike, records: Sequence[dict[str, Any]]) -> None:
    """Replace a run's records as a whole: the file is either the old or the new one, never half of it."""
    write_text_atomically(Path(folder) / HISTORY_FILE, "".join(map(_line, records)))


def append_history(folder: str | os.PathLike, record: Mapping[str, Any]) -> None:
    """Append a record to those of a run, and wait until it is on the disk.

    Raises:
        OSError: it cannot be written, or the file was deleted since the run began; the error names the file.
    """
    path = Path(folder) / HISTORY_FILE
    try:
        with open(path, "r+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                file.write(_line(record).encode())
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _line(record: Mapping[str, Any]) -> str:
    """A record as a line of valid JSON, which has no NaN and no infinity: they become null."""
    return json.dumps(_finite_only(record), allow_nan=False) + "\n"


def _finite_only(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite_only(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite_only(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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


_DIAGNOSED = ("train_purity", "val_purity", "train_chance_purity", "val_chance_purity", "gap")


def make_record(
    step: int,
    epoch: float | None,
    kind: str,
    verdict: "Verdict | None",
    diagnosed: Mapping[str, ModalityDiagnosis],
    alphas: Mapping[str, float],
    moved: Mapping[str, float],
    diagnoser: "Diagnoser | None",
) -> dict[str, Any]:
    """Build a record; `read_history` says what its fields are."""
    modalities = {}
    for name, alpha in alphas.items():
        diagnosis = diagnosed.get(name)
        modalities[name] = {
            **{field: getattr(diagnosis, field, None) for field in _DIAGNOSED},
            "train_size": diagnosis.train_size if diagnosis else 0,
            "diagnosis_size": diagnosis.val_size if diagnosis else 0,
            "diagnosed_alpha": getattr(diagnosis, "alpha", None),
            "alpha": alpha,
            "distance": moved[name],
        }
    return {
        "step": step,
        "epoch": epoch,
        "kind": kind,
        "seconds": round(verdict.seconds, 3) if verdict else 0.0,
        "kmeans_seconds": round(verdict.kmeans_seconds, 3) if verdict else 0.0,
        "train_size": max((diagnosis.train_size for diagnosis in diagnosed.values()), default=0),
        "diagnosis_size": max((diagnosis.val_size for diagnosis in diagnosed.values()), default=0),
        "num_classes": diagnoser.num_classes if diagnoser else None,
        "streamed": diagnoser.streamed if diagnoser else {},
        "modalities": modalities,
    }


def make_settings_record(step: int, epoch: float | None, changed: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Build the record of a run that is resumed with other settings."""
    return {"step": step, "epoch": epoch, "kind": "settings", "changed": dict(changed), "modalities": {}}


def log_values(record: Mapping[str, Any]) -> dict[str, float]:
    """The record as flat values for `log_history` and trackers: `relearn/<modality>/<value>`."""
    return {
        f"relearn/{name}/{field}": value
        for name, values in record["modalities"].items()
        for field, value in values.items()
        if value is not None
    }


def describe_record(record: Mapping[str, Any]) -> Iterator[str]:
    """One readable line per modality."""
    for name, values in record["modalities"].items():
        line = f"[epoch {record['epoch']:g}, step {record['step']}] {name}: "
        if values["train_purity"] is not None:
            line += (
                f"purity {values['train_purity']:.3f} training / {values['val_purity']:.3f} held out "
                f"(chance {values['train_chance_purity']:.3f} / {values['val_chance_purity']:.3f}), "
                f"gap {values['gap']:.3f}, diagnosed α {values['diagnosed_alpha']:.3f}"
            )
        else:
            line += "not diagnosed"
        if record["kind"] == "point":
            line += f"; re-learnt with α {values['alpha']:.3f}, moved by {values['distance']:.1%} of its norm"
        yield line


Record = Mapping[str, Any]

_UNIMODAL_METRIC = re.compile(r"(?:eval_)?unimodal_(.+)_accuracy")


def finite(value: Any) -> float | None:
    """The value as a float, or None where it is missing, no number, NaN or infinite."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def epoch_of(entry: Record) -> float | None:
    """Epoch of a record or log entry; 0 for an entry of step 0, where the Trainer writes no epoch."""
    epoch = finite(entry.get("epoch"))
    return 0.0 if epoch is None and entry.get("step") == 0 else epoch


def modality_entry(record: Record, modality: str) -> Record:
    """What a record says of one modality; empty where it says nothing."""
    return (record.get("modalities") or {}).get(modality) or {}


def modality_order(
    records: Iterable[Record],
    log_history: Iterable[Record] = (),
    results: Mapping[str, Mapping[str, Any]] | None = None,
    extra: Iterable[str] = (),
) -> list[str]:
    """Names of a run's modalities in order of first appearance, which fixes their colours.

    Args:
        records: Diagnosis records.
        log_history: The Trainer's log, whose `eval_unimodal_<modality>_accuracy` name modalities.
        results: Split -> metric -> value; `unimodal_<modality>_accuracy` name modalities.
        extra: Further names, such as those of features.

    Returns:
        Each name once.
    """
    names: dict[str, None] = {}
    for record in records:
        names.update(dict.fromkeys(record.get("modalities") or {}))
    for metrics in [*log_history, *(results or {}).values()]:
        for key in metrics or {}:
            match = _UNIMODAL_METRIC.fullmatch(key)
            if match:
                names[match[1]] = None
    names.update(dict.fromkeys(extra))
    return list(names)


def diagnosis_series(records: Iterable[Record], modality: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of one field of a modality over training.

    Args:
        records: Diagnosis records.
        modality: Name of the modality.
        key: Field of the modality, such as `train_purity`.

    Returns:
        Epochs and values, both (n,) float64, sorted by epoch, without missing or non-finite values.
    """
    return _as_series((epoch_of(record), finite(modality_entry(record, modality).get(key))) for record in records)


def evaluation_series(log_history: Iterable[Record], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of one metric over training.

    Where a step was evaluated twice, the first value counts: the second one is that of the best model, which the
    Trainer loads at the end, not of the model as it was at that step.

    Args:
        log_history: The Trainer's `state.log_history`.
        key: Name of the metric, such as `eval_accuracy`.

    Returns:
        Epochs and values, both (n,) float64, sorted by epoch, without missing or non-finite values.
    """
    first: dict[float, float] = {}
    for entry in log_history:
        epoch, value = epoch_of(entry), finite(entry.get(key))
        if epoch is not None and value is not None:
            first.setdefault(epoch, value)
    return _as_series(first.items())


def relearning_points(records: Iterable[Record]) -> list[Record]:
    """The records of kind `point` (encoders were moved) that have an epoch, sorted by it."""
    points = [record for record in records if record.get("kind") == "point" and epoch_of(record) is not None]
    return sorted(points, key=lambda record: epoch_of(record) or 0.0)


def _as_series(pairs: Iterable[tuple[float | None, float | None]]) -> tuple[np.ndarray, np.ndarray]:
    kept: Sequence[tuple[float, float]] = sorted((x, y) for x, y in pairs if x is not None and y is not None)
    array = np.asarray(kept, dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]
