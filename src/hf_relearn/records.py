"""The record of a run: one JSON line per diagnosis, made, read, and drawn as curves."""

import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hf_relearn.files import write_whole_text
from hf_relearn.method import ModalityDiagnosis

HISTORY_FILE = "relearn_history.jsonl"


def read_history(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """Read a run's records, oldest first; none if the run has no file yet.

    Each record holds the fields of a `Point`: `step`, `epoch`, `kind`, `estimator`, `train_size`, `diagnosis_size`,
    `num_classes`, `streamed`, `seconds`, `estimator_seconds` and `share_of_epoch`. Under `modalities` each modality
    has `train_separability`, `val_separability`, `gap`, `standard_error`, `chance`, `separator`, `memorised`,
    `memorised_error`, or `train_purity`, `val_purity`, `train_chance_purity`, `val_chance_purity` and `gap`, by the
    estimator; `train_head_accuracy` and `val_head_accuracy` if the model has uni-modal heads (of a regression, whose
    `num_classes` is 0 and whose separabilities are R², `train_head_r2` and `val_head_r2`); `train_size` and
    `diagnosis_size` (samples that have the modality); `rise` (of the held-out separability since the re-learning step
    before, or the start); `kept` (why, if the gate kept it for its rise alone); `diagnosed_alpha`, `alpha` (the
    strength applied) and `distance`. What was not measured is None; `skipped` says why a modality was left out. A
    record of the kind `settings` says at which step the run was resumed with other settings: it holds `changed`, name
    of the setting -> `{"from": ..., "to": ...}`, and no modalities. A last line that was cut off by a kill is left
    out.

    Raises:
        ValueError: for a line that is not a JSON object; the message names file and line.
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
    write_whole_text(Path(folder) / HISTORY_FILE, "".join(map(_line, records)))


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
    """Return a record as a line of valid JSON, which has no NaN and no infinity: they become null."""
    return json.dumps(_finite_only(record), allow_nan=False) + "\n"


def _finite_only(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite_only(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite_only(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def records_before(records: Sequence[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """Return the records that a run resumed at `step` keeps.

    A point at `step` came after the checkpoint of that step and will be taken again; the end's diagnosis came before.
    """
    return [each for each in records if each["step"] < step or (each["step"] == step and each["kind"] == "end")]


def points_taken(records: Sequence[dict[str, Any]]) -> int:
    """Count the re-learning steps among the records."""
    return sum(record["kind"] == "point" for record in records)


# What a diagnosis says of a modality, by the names of the record.
_DIAGNOSED = (
    "train_separability",
    "val_separability",
    "gap",
    "standard_error",
    "chance",
    "separator",
    "memorised",
    "memorised_error",
    "train_purity",
    "val_purity",
    "train_chance_purity",
    "val_chance_purity",
)


@dataclass(frozen=True)
class Point:
    """A diagnosis in a run, and the re-learning that followed it: one line of the record.

    Attributes:
        kind: `"start"` (before the first step), `"point"` (a re-learning step, whether or not something moved),
            `"record"` (a diagnosis only) or `"end"`.
        step: completed optimizer steps.
        epoch: completed epochs, broken in the middle of one; None if it is not known.
        modalities: modalities in the model's order.
        diagnoses: modality -> diagnosis; a modality whose features were not finite is missing.
        diagnosed_alphas: modality -> strength that the diagnosis suggests.
        alphas: modality -> strength applied; empty if the weights stayed.
        distances: modality -> ||θ_new - θ_old|| / ||θ_old||.
        head_accuracies: modality -> accuracy of its uni-modal head on training and on held-out samples; of numbers R².
        rises: modality -> rise of its held-out separability since the re-learning step before, or since the start.
        still_learning: modalities that memorised, and that the gate kept since they rose.
        num_classes: classes of the diagnosis, 0 if it was of numbers; None without one.
        streamed: part -> samples that were read from the beginning of a stream.
        seconds: of the whole diagnosis.
        estimator_seconds: of the estimator alone, without the features.
        share_of_epoch: seconds as a share of the last whole epoch's; None before one has ended.
    """

    kind: str = "record"
    step: int = 0
    epoch: float | None = None
    modalities: Sequence[str] = ()
    diagnoses: Mapping[str, ModalityDiagnosis] = field(default_factory=dict)
    diagnosed_alphas: Mapping[str, float] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    distances: Mapping[str, float] = field(default_factory=dict)
    head_accuracies: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rises: Mapping[str, float] = field(default_factory=dict)
    still_learning: Collection[str] = ()
    num_classes: int | None = None
    streamed: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    estimator_seconds: float = 0.0
    share_of_epoch: float | None = None

    def record(self) -> dict[str, Any]:
        """Return the line of the record; `read_history` describes its fields."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "kind": self.kind,
            "seconds": round(self.seconds, 3),
            "estimator_seconds": round(self.estimator_seconds, 3),
            "share_of_epoch": self.share_of_epoch and round(self.share_of_epoch, 4),
            "estimator": next((each.estimator for each in self.diagnoses.values()), None),
            "train_size": max((each.train_size for each in self.diagnoses.values()), default=0),
            "diagnosis_size": max((each.val_size for each in self.diagnoses.values()), default=0),
            "num_classes": self.num_classes,
            "streamed": dict(self.streamed),
            "modalities": {name: self._modality(name) for name in self.modalities},
        }

    def _modality(self, name: str) -> dict[str, Any]:
        diagnosis = self.diagnoses.get(name)
        accuracies = self.head_accuracies.get(name, (None, None))
        measure = "r2" if self.num_classes == 0 else "accuracy"
        values = {
            **{item: getattr(diagnosis, item, None) for item in _DIAGNOSED},
            f"train_head_{measure}": accuracies[0],
            f"val_head_{measure}": accuracies[1],
            "train_size": diagnosis.train_size if diagnosis else 0,
            "diagnosis_size": diagnosis.val_size if diagnosis else 0,
            "rise": self.rises.get(name),
            "diagnosed_alpha": self.diagnosed_alphas.get(name),
            "alpha": self.alphas.get(name, 0.0),
            "distance": self.distances.get(name, 0.0),
        }
        values |= {"kept": "still learns"} if name in self.still_learning else {}
        if diagnosis is None and (self.diagnoses or self.num_classes is not None):
            values["skipped"] = "features that are not finite"
        return values


def make_settings_record(step: int, epoch: float | None, changed: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Build the record of a run that is resumed with other settings."""
    return {"step": step, "epoch": epoch, "kind": "settings", "changed": dict(changed), "modalities": {}}


def log_values(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a record for `log_history` and trackers: `relearn/<modality>/<value>`."""
    return {
        f"relearn/{name}/{item}": value
        for name, values in record["modalities"].items()
        for item, value in values.items()
        if value is not None and not isinstance(value, str)
    }


def describe_record(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield one readable line per modality."""
    width = max(map(len, record["modalities"]), default=0)
    epoch = epoch_of(record)
    when = "start" if record["kind"] == "start" else f"epoch {round(epoch, 2):g}" if epoch is not None else "run"
    for name, values in record["modalities"].items():
        outcome = ""
        if record["kind"] == "point":
            kept = values.get("kept", "kept")
            outcome = ": " + (f"re-learnt (α {_short(values['alpha'])})" if values["alpha"] > 0 else kept)
        yield f"{when}  {name:<{width}}  {_finding(values)}{outcome}"


def _finding(values: Mapping[str, Any]) -> str:
    if values.get("train_separability") is not None:
        measure = "R² " if values["chance"] == 0 else ""
        return (
            f"{measure}{_short(values['train_separability'])} train  {_short(values['val_separability'])} held out  "
            f"gap {_short(values['gap'])} ± {_short(values['standard_error'])}  "
            f"memorised {min(values['memorised'], 1):.0%} ± {values['memorised_error']:.0%}"
        )
    if values.get("train_purity") is not None:
        return (
            f"purity {_short(values['train_purity'])} train  {_short(values['val_purity'])} held out  "
            f"(chance {_short(values['train_chance_purity'])} {_short(values['val_chance_purity'])})  "
            f"gap {_short(values['gap'])}"
        )
    return f"not diagnosed: {values['skipped']}" if values.get("skipped") else "not diagnosed"


def _short(value: float) -> str:
    """Format two decimals without the zero before the point."""
    return f"{value:.2f}".replace("0.", ".", 1)


Record = Mapping[str, Any]

_UNIMODAL_METRIC = re.compile(r"(?:eval_)?unimodal_(.+)_(?:accuracy|r2)")


def finite(value: Any) -> float | None:
    """Return the value as a float, or None if it is missing, not a number, NaN or infinite."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def epoch_of(entry: Record) -> float | None:
    """Return the epoch of a record or log entry; 0 for an entry of step 0, for which the Trainer writes none."""
    epoch = finite(entry.get("epoch"))
    return 0.0 if epoch is None and entry.get("step") == 0 else epoch


def modality_entry(record: Record, modality: str) -> Record:
    """Return a record's entry of one modality; empty if it has none."""
    return (record.get("modalities") or {}).get(modality) or {}


def modality_order(
    records: Iterable[Record],
    log_history: Iterable[Record] = (),
    results: Mapping[str, Mapping[str, Any]] | None = None,
    extra: Iterable[str] = (),
) -> list[str]:
    """Return the names of a run's modalities in order of first appearance, which fixes their colours.

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
    """Return the values of one field of a modality over training.

    Args:
        records: Diagnosis records.
        modality: Name of the modality.
        key: Field of the modality, such as `train_purity`.

    Returns:
        Epochs and values, both (n,) float64, sorted by epoch, without missing or non-finite values.
    """
    return _as_series((epoch_of(record), finite(modality_entry(record, modality).get(key))) for record in records)


def evaluation_series(log_history: Iterable[Record], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of one metric over training.

    If a step was evaluated twice, the first value counts: the second one is that of the best model, which the
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
    """Return the records of kind `point` (encoders were moved) that have an epoch, sorted by it."""
    points = [record for record in records if record.get("kind") == "point" and epoch_of(record) is not None]
    return sorted(points, key=lambda record: epoch_of(record) or 0.0)


def _as_series(pairs: Iterable[tuple[float | None, float | None]]) -> tuple[np.ndarray, np.ndarray]:
    kept: Sequence[tuple[float, float]] = sorted((x, y) for x, y in pairs if x is not None and y is not None)
    array = np.asarray(kept, dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]
