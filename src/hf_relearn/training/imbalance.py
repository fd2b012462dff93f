"""Measures in evaluation that tell how much each modality is worth to the fused prediction."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from hf_relearn.models.modeling_missing import ablations, shapley_orders

CALIBRATION_BINS = 15
_NOTHING_LEFT = -1.0
_FUSED = ["label", "nll", "confidence", "right", "true"]


class ImbalanceMeasures:
    """Gather an evaluation's predictions with all modalities and with some of them, and judge them at its end.

    Samples need one class each; those without a label are left out. The measures are, as shares or in nats:

    - `nll`, `ece`: negative log likelihood and expected calibration error (15 bins of the same width) of the fused
      prediction.
    - `shapley_<modality>`: the modality's Shapley value of accuracy, its mean gain over all orders in which modalities
      join; of more than three modalities over 16 orders that a fixed seed draws. No modality counts as the accuracy of
      always predicting the most frequent class of the evaluated samples. So the values add up to what the fused
      accuracy gains over that. A sample without any modality of a set counts as predicted so, too.
    - `rises_without_<modality>`: share of the samples whose probability of the true class rises when the modality is
      left out, of those that have it and another one.
    - `right_alone_<modality>`: share of the samples that this modality alone gets right and that no other one does, of
      those that have two or more; `right_alone` is their sum.

    The last three need a model that gives `ablation_logits`.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._rows: list[np.ndarray] = []

    def add(self, outputs: Mapping[str, Any], labels: Tensor, accelerator: Accelerator) -> None:
        """Look at one batch; every process has to call this."""
        logits, partial = outputs.get("logits"), outputs.get("ablation_logits") or {}
        if logits is None or logits.ndim != 2 or labels.ndim != 1:
            return
        self._names = list(outputs["features"])
        labelled = labels != -100
        true = labels.where(labelled, 0)[:, None]
        columns = [labels.float(), -logits.float().log_softmax(dim=-1).gather(1, true).squeeze(1)]
        columns += [logits.float().softmax(dim=-1).amax(dim=-1), *_judged(logits, labels, true)]
        everywhere = torch.ones_like(labelled)
        having = {name: (outputs.get("present") or {}).get(name, everywhere) for name in self._names}
        columns += [having[name].float() for name in self._names]
        for name, kept in ablations(self._names).items() if partial else ():
            some = torch.stack([having[modality] for modality in kept]).any(dim=0)
            right, probability = _judged(partial[name], labels, true)
            columns += [torch.where(some, right, _NOTHING_LEFT), probability]
        gathered = accelerator.gather_for_metrics(torch.stack(columns, dim=1).detach())
        self._rows.append(gathered.cpu().double().numpy())

    def finish(self) -> dict[str, float]:
        """Compute the measures by name; empty if nothing was labelled."""
        if not self._rows:
            return {}
        rows = np.concatenate(self._rows)
        rows = rows[rows[:, 0] != -100]
        if not len(rows):
            return {}
        subsets = ablations(self._names)
        names = [*_FUSED, *(f"has {name}" for name in self._names)]
        names += [f"{kind} {subset}" for subset in subsets for kind in ("right", "true")]
        columns = dict(zip(names, rows.T, strict=False))
        ece = calibration_error(columns["confidence"], columns["right"])
        metrics = {"nll": float(columns["nll"].mean()), "ece": ece}
        if subsets and f"right {next(iter(subsets))}" in columns:
            metrics |= shapley_values(self._names, _accuracies(columns, self._names))
            metrics |= self._shares(columns)
        return metrics

    def _shares(self, columns: Mapping[str, np.ndarray]) -> dict[str, float]:
        having = np.stack([columns[f"has {name}"] for name in self._names]) > 0
        several = having.sum(axis=0) > 1
        metrics = {}
        for name, own in zip(self._names, having, strict=True):
            counted = own & several
            if counted.any():
                rises = columns[f"true without_{name}"] > columns["true"]
                metrics[f"rises_without_{name}"] = float(rises[counted].mean())
        if several.any():
            right = np.stack([columns[f"right only_{name}"] for name in self._names]) == 1
            single = right & (right.sum(axis=0) == 1) & several
            shares = single.sum(axis=1) / several.sum()
            metrics |= {f"right_alone_{name}": float(share) for name, share in zip(self._names, shares, strict=True)}
            metrics["right_alone"] = float(shares.sum())
        return metrics


def _judged(logits: Tensor, labels: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Return (batch,) 1 if a prediction is right, else 0; and the probability of the true class."""
    probability = logits.float().softmax(dim=-1).gather(1, true).squeeze(1)
    return (logits.argmax(dim=-1) == labels).float(), probability


def _accuracies(columns: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[frozenset[str], float]:
    """Compute the accuracy by the set of modalities that are given."""
    classes, counts = np.unique(columns["label"], return_counts=True)
    guessed = columns["label"] == classes[counts.argmax()]

    def accuracy(right: np.ndarray) -> float:
        return float(np.where(right == _NOTHING_LEFT, guessed, right).mean())

    found = {kept: accuracy(columns[f"right {subset}"]) for subset, kept in ablations(list(names)).items()}
    nothing = np.stack([columns[f"has {name}"] for name in names]).sum(axis=0) == 0
    everything = np.where(nothing, _NOTHING_LEFT, columns["right"])
    return {**found, frozenset(names): accuracy(everything), frozenset(): float(guessed.mean())}


def shapley_values(names: Sequence[str], worth: Mapping[frozenset[str], float]) -> dict[str, float]:
    """Compute `shapley_<name>` from what each set of names is worth, the sets being those of `shapley_orders`."""
    gains: dict[str, list[float]] = {name: [] for name in names}
    for order in shapley_orders(list(names)):
        steps = [frozenset(order[:size]) for size in range(len(order) + 1)]
        for name, (before, after) in zip(order, pairwise(steps), strict=True):
            gains[name].append(worth[after] - worth[before])
    return {f"shapley_{name}": float(np.mean(found)) for name, found in gains.items()}


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = CALIBRATION_BINS) -> float:
    """Compute the expected calibration error: the mean distance of confidence and accuracy over equal bins.

    Args:
        confidence: (n,) probability of the predicted class.
        right: (n,) 1 if the prediction is right, else 0.
        bins: how many divide [0, 1]; each counts by its share of the samples.
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))
