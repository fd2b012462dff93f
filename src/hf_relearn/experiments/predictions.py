"""The predictions that a run leaves for ensembles, and the ensembles."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit, softmax
from transformers import EvalPrediction

from hf_relearn.files import whole_file
from hf_relearn.models.modeling_multimodal import MultimodalClassifierOutput
from hf_relearn.training import MultimodalRelearnTrainer
from hf_relearn.training.metrics import ComputeMetrics, classification_metrics, regression_metrics, with_own_metrics

PREDICTIONS_FILE = "predictions.npz"
_STEPS = 500  # of expectation maximisation, which converges long before


@dataclass(frozen=True)
class Predictions:
    """Hold a model's predictions on a split.

    Args:
        labels: (n,) integers, or (n, classes) zeros and ones; of a regression (n,) floats, NaN without a target.
        logits: (n, classes) of the fused prediction; of a regression (n, 1) numbers.
        heads: modality -> the same of its own head, if the model has heads.
        present: modality -> (n,) bool, False for samples that lack it.
    """

    labels: np.ndarray
    logits: np.ndarray
    heads: Mapping[str, np.ndarray] = field(default_factory=dict)
    present: Mapping[str, np.ndarray] = field(default_factory=dict)


def predict(trainer: MultimodalRelearnTrainer, split: Any, name: str) -> tuple[dict[str, float], Predictions]:
    """Evaluate a split; returns its metrics, which are logged as `evaluate` does, and its predictions."""
    kept = ("logits", "unimodal_logits", "present")
    ignored = [item.name for item in fields(MultimodalClassifierOutput) if item.name not in kept]
    output = trainer.predict(split, ignore_keys=ignored, metric_key_prefix=name)
    metrics = dict(output.metrics or {})
    trainer.log(metrics)
    found: Any = output.predictions
    logits, *others = found if isinstance(found, tuple) else (found,)
    heads = others[0] if len(others) > 1 else {}
    labels: Any = output.label_ids
    return metrics, Predictions(labels, logits, heads, others[-1] if others else {})


def save_predictions(folder: Path, predictions: Mapping[str, Mapping[str, Predictions]]) -> None:
    """Write epoch -> split -> predictions as one file of arrays."""
    arrays: dict[str, np.ndarray] = {}
    for epoch, splits in predictions.items():
        for split, found in splits.items():
            values = {"labels": found.labels, "logits": found.logits}
            values |= {f"heads.{name}": array for name, array in found.heads.items()}
            values |= {f"present.{name}": array for name, array in found.present.items()}
            arrays |= {f"{epoch}/{split}/{name}": array for name, array in values.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # names of arrays, not of options
    with whole_file(folder / PREDICTIONS_FILE) as file:
        file.write(buffer.getvalue())


def load_predictions(folder: Path) -> dict[str, dict[str, Predictions]]:
    """Read what `save_predictions` wrote.

    Raises:
        ValueError: if the file is missing or broken.
    """
    path = folder / PREDICTIONS_FILE
    parts: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for key in arrays.files:
                epoch, split, name = key.split("/", 2)
                parts.setdefault((epoch, split), {})[name] = arrays[key]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} holds no predictions ({error}): delete {folder} and run again") from error
    output: dict[str, dict[str, Predictions]] = {}
    for (epoch, split), values in parts.items():
        named: dict[str, dict[str, np.ndarray]] = {"heads": {}, "present": {}}
        for name, array in values.items():
            kind, _, modality = name.partition(".")
            if modality:
                named[kind][modality] = array
        output.setdefault(epoch, {})[split] = Predictions(values["labels"], values["logits"], **named)
    return output


def combine(
    members: Sequence[Mapping[str, Mapping[str, Predictions]]],
    *,
    weighted: bool = False,
    signed: bool = False,
    compute_metrics: ComputeMetrics | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the metrics of the mean of several models' probabilities or numbers, by epoch and split.

    Args:
        members: each model's epoch -> split -> predictions; epochs that all of them have are combined.
        weighted: choose the models' weights by the likelihood of the validation labels, of numbers by their R².
        signed: whether the accuracy of the sign of numbers is measured.
        compute_metrics: further metrics.

    Raises:
        ValueError: if the models were not evaluated on the same samples.
    """
    results: dict[str, dict[str, dict[str, float]]] = {}
    for epoch in [epoch for epoch in members[0] if all(epoch in member for member in members)]:
        splits = {split: [member[epoch][split] for member in members] for split in members[0][epoch]}
        weights = np.full(len(members), 1 / len(members))
        if weighted:
            validation = splits["validation"]
            choose = number_weights if _are_numbers(validation[0].labels) else mixture_weights
            weights = choose(*_stacked(validation), validation[0].labels)
        for split, found in splits.items():
            mean = _mean(weights, *_stacked(found))
            results.setdefault(epoch, {})[split] = _metrics(mean, found[0].labels, signed, compute_metrics)
    return results


def _are_numbers(labels: np.ndarray) -> bool:
    return labels.ndim == 1 and labels.dtype.kind == "f"


def _mean(weights: np.ndarray, values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """(n, classes): the weighted mean over those models that count for a sample."""
    shares = weights[:, None] * counted
    shares = np.where(shares.sum(axis=0) > 0, shares, weights[:, None])  # a sample without any modality
    return np.einsum("mn,mnk->nk", shares / shares.sum(axis=0), values)


def of_heads(predictions: Mapping[str, Mapping[str, Predictions]]) -> list[dict[str, dict[str, Predictions]]]:
    """Treat each head of a model as a model of its own.

    Raises:
        ValueError: if the model has no heads.
    """
    names = {name for splits in predictions.values() for found in splits.values() for name in found.heads}
    if not names:
        raise ValueError("the model has no uni-modal heads: give --unimodal_loss_weight above 0")
    return [
        {
            epoch: {
                split: Predictions(found.labels, found.heads[name], present={name: found.present[name]})
                for split, found in splits.items()
            }
            for epoch, splits in predictions.items()
        }
        for name in sorted(names)
    ]


def mixture_weights(probabilities: np.ndarray, counted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the weights of a mixture of models under which labels are likeliest, by expectation maximisation.

    Args:
        probabilities: (models, n, classes).
        counted: (models, n) bool, False if a model lacks its modality.
        labels: (n,) integers, or (n, classes) zeros and ones.

    Returns:
        (models,) weights that sum to 1.
    """
    if labels.ndim == 2:
        likelihood = np.where(labels > 0.5, probabilities, 1 - probabilities)
        likelihood, counted = likelihood.reshape(len(likelihood), -1), np.repeat(counted, labels.shape[1], axis=1)
    else:
        rows = labels != -100
        likelihood = np.take_along_axis(probabilities[:, rows], labels[None, rows, None], axis=2)[..., 0]
        counted = counted[:, rows]
    likelihood = np.maximum(likelihood, 1e-12) * counted
    likelihood = likelihood[:, counted.any(axis=0)]
    weights = np.full(len(probabilities), 1 / len(probabilities))
    for _ in range(_STEPS if likelihood.size else 0):
        shares = weights[:, None] * likelihood
        weights = (shares / shares.sum(axis=0)).mean(axis=1)
    return weights


def number_weights(numbers: np.ndarray, counted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the weights of a mean of predicted numbers whose R² is the highest, so its squared error the lowest.

    Args:
        numbers: (models, n, 1).
        counted: (models, n) bool, False if a model lacks its modality.
        targets: (n,) numbers, NaN for samples that do not count.

    Returns:
        (models,) weights that sum to 1.
    """
    rows = ~np.isnan(targets)
    equal = np.full(len(numbers), 1 / len(numbers))
    if not rows.any() or len(numbers) == 1:
        return equal
    numbers, counted, targets = numbers[:, rows], counted[:, rows], targets[rows].astype(np.float64)
    scale = targets.var() or 1.0

    def error(weights: np.ndarray) -> float:
        return float(((_mean(weights, numbers, counted)[:, 0] - targets) ** 2).mean() / scale)

    # A weight of 0 would leave nothing for a sample that has this model's modality alone.
    bounds, to_one = [(1e-9, 1.0)] * len(equal), {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    found = minimize(error, equal, method="SLSQP", bounds=bounds, constraints=to_one, options={"ftol": 1e-12})
    weights = np.clip(found.x, 1e-9, 1.0)
    return weights / weights.sum() if error(weights / weights.sum()) < error(equal) else equal


def _stacked(found: Sequence[Predictions]) -> tuple[np.ndarray, np.ndarray]:
    """(models, n, classes) probabilities or numbers, and (models, n) bool: which has the model's only modality."""
    labels = found[0].labels
    if any(not np.array_equal(item.labels, labels, equal_nan=_are_numbers(labels)) for item in found):
        raise ValueError("the models of an ensemble were evaluated on different samples: give them the same splits")
    logits = np.stack([item.logits.astype(np.float64) for item in found])
    everyone = np.ones(len(labels), dtype=bool)
    counted = np.stack([np.any([*item.present.values()], axis=0) if item.present else everyone for item in found])
    if not _are_numbers(labels):
        logits = expit(logits) if labels.ndim == 2 else softmax(logits, axis=-1)
    return logits, counted


def _metrics(mean: np.ndarray, labels: np.ndarray, signed: bool, own: ComputeMetrics | None) -> dict[str, float]:
    standard, scores = classification_metrics, mean
    if _are_numbers(labels):
        standard = partial(regression_metrics, signed=signed)
    else:
        bounded = np.clip(mean, 1e-12, 1 - 1e-12)
        scores = logit(bounded) if labels.ndim == 2 else np.log(bounded)
    compute = with_own_metrics(standard, own) if own else standard
    return compute(EvalPrediction(scores, labels))
