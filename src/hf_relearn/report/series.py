"""Curves and names read out of a run's diagnosis records and the Trainer's log history; bad values are skipped."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

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
