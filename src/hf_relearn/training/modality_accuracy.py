"""Measure how well each modality predicts by itself, and the model without it: accuracies, or R² of numbers."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import TrainingArguments

from hf_relearn.method import NonFiniteFeaturesError, linear_probe_accuracy
from hf_relearn.method.regression import r_squared
from hf_relearn.models.modeling_missing import ablations
from hf_relearn.relearning.diagnoser import PartFeatures
from hf_relearn.relearning.processes import by_first_process
from hf_relearn.training.imbalance import ImbalanceMeasures, shapley_values


def probe_accuracies(
    train: PartFeatures,
    features: Mapping[str, np.ndarray],
    labels: np.ndarray,
    present: Mapping[str, np.ndarray] | None = None,
) -> dict[str, float]:
    """Compute the accuracy of a linear probe per modality, over the samples that have it.

    Args:
        train: features that the probe is fitted on.
        features: modality -> (n, d) evaluation features.
        labels: (n,) evaluation labels.
        present: modality -> (n,) bool, False for samples that lack it; None: all have all.

    Returns:
        modality -> accuracy. A modality with NaN or infinite features, or without any sample that has it, is left out.
    """
    accuracies = {}
    for name in features.keys() & train.features.keys():
        fit = train.having(name)
        rows = present[name] if present else np.ones(len(labels), dtype=bool)
        if len(fit) == 0 or not rows.any():
            continue
        try:
            accuracies[name] = linear_probe_accuracy(
                train.features[name][fit], train.labels[fit], features[name][rows], labels[rows]
            )
        except NonFiniteFeaturesError:
            continue
    return {name: accuracies[name] for name in features if name in accuracies}


_NOT_COUNTED = -1


class ModalityEvaluation:
    """Watch the forward passes of an evaluation, and measure each modality.

    The predictions of uni-modal heads are judged if the model has heads. If it has none, a linear probe is fitted on
    the training features of a diagnosis of the very same weights, if one was made; else there is no such accuracy.
    If the outputs hold `ablation_logits`, predictions without some modalities are judged too. A sample without a
    modality does not count for this modality, nor if none of its modalities is left. `ImbalanceMeasures`
    tells what else is measured, and `NumberMeasures` what is measured of a regression in place of all this.

    Attributes:
        evaluating: whether an evaluation has begun and not ended.
    """

    def __init__(self, args: TrainingArguments) -> None:
        self.args = args
        self.evaluating = False
        self._judged: dict[str, list[np.ndarray]] = {}
        self._batches: dict[str, list[np.ndarray]] = {}
        self._imbalance, self._numbers = ImbalanceMeasures(), NumberMeasures()
        self._training_features: PartFeatures | None = None

    def use_training_features(self, features: PartFeatures | None) -> None:
        """Take the training features of the present weights, for a probe; None if the weights have changed."""
        self._training_features = features

    def begin(self) -> None:
        """Start an evaluation."""
        self.evaluating = True
        self._judged, self._batches = {}, {}
        self._imbalance, self._numbers = ImbalanceMeasures(), NumberMeasures()

    def observe(self, outputs: Any, labels: Tensor | None, *, training: bool, accelerator: Accelerator) -> None:
        """Look at one forward pass; outputs without `features`, and batches without labels, are passed over."""
        if training:
            self._training_features = None  # of weights that are about to change
        features = outputs.get("features") if hasattr(outputs, "get") else None
        if features is None or labels is None:
            return
        if labels.ndim == 1 and labels.is_floating_point():
            if not training and self.evaluating:
                self._numbers.add(outputs, labels, accelerator)
            return
        heads, present = outputs.get("unimodal_logits"), outputs.get("present")
        probed = heads is None and labels.ndim == 1
        if not training and self.evaluating:
            self._imbalance.add(outputs, labels, accelerator)
            everywhere = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
            having = {name: everywhere if present is None else present[name] for name in features}
            logits, counted = _variants(heads or {}, outputs.get("ablation_logits") or {}, having)
            if logits:
                judged = torch.stack([_judge(logits[name], labels, counted[name]) for name in logits], dim=1)
                for name, column in zip(logits, _gathered(judged, accelerator).T, strict=True):
                    self._judged.setdefault(name, []).append(column)
            if probed and self._training_features is not None:
                values = {"labels": labels}
                values |= {f"features.{name}": feature.float() for name, feature in features.items()}
                values |= {f"present.{name}": column for name, column in having.items() if present is not None}
                for name, value in values.items():
                    self._batches.setdefault(name, []).append(_gathered(value, accelerator))

    def finish(self) -> dict[str, float]:
        """End an evaluation: name of the metric -> value, empty if nothing could be measured."""
        self.evaluating = False
        metrics = self._imbalance.finish() | self._numbers.finish()
        for name, columns in self._judged.items():
            column = np.concatenate(columns)
            counted = column[column != _NOT_COUNTED]
            if len(counted):
                metrics[f"{name}_accuracy"] = float(counted.mean())
        if self._batches:
            values = {name: np.concatenate(batches) for name, batches in self._batches.items()}
            metrics |= {f"unimodal_{name}_accuracy": found for name, found in self._probe(values).items()}
        self._judged, self._batches = {}, {}
        return metrics

    def _probe(self, values: Mapping[str, np.ndarray]) -> dict[str, float]:
        train = self._training_features
        assert train is not None  # or nothing would have been gathered
        by_kind: dict[str, dict[str, np.ndarray]] = {"features": {}, "present": {}}
        for name, value in values.items():
            kind, _, modality = name.partition(".")
            if modality:
                by_kind[kind][modality] = value
        return by_first_process(
            lambda: probe_accuracies(train, by_kind["features"], values["labels"], by_kind["present"]), self.args
        )


def makes_ablations(model: Any) -> bool:
    """Check whether a model, possibly with adapters, gives `ablation_logits` when asked to, of several modalities."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # of a PeftModel
    several = len(getattr(getattr(model, "config", None), "modalities", ())) > 1
    return several and "output_ablations" in inspect.signature(model.forward).parameters


def _variants(
    heads: Mapping[str, Tensor], ablations: Mapping[str, Tensor], having: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Logits by the name of their metric, and which samples count for each: those with a modality that is looked at.

    `ablations` are named `only_<modality>` and `without_<modality>`.
    """
    logits = {f"unimodal_{name}": values for name, values in heads.items()}
    counted = {f"unimodal_{name}": having[name] for name in heads}
    for name, own in having.items():
        others = [column for other, column in having.items() if other != name]
        counted[f"only_{name}"] = own
        if others:
            counted[f"without_{name}"] = torch.stack(others).any(dim=0)
    logits |= {name: values for name, values in ablations.items() if name in counted}
    return logits, counted


def _judge(logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """(batch,) int64: 1 if the prediction is right, of multi-label targets in every class; 0; or not counted."""
    if labels.ndim == 2:
        right = ((logits > 0) == (labels > 0.5)).all(dim=-1)
    else:
        right = logits.argmax(dim=-1) == labels
        counted = counted & (labels != -100)
    return torch.where(counted, right.long(), _NOT_COUNTED)


def _gathered(values: Tensor, accelerator: Accelerator) -> np.ndarray:
    return accelerator.gather_for_metrics(values.detach()).cpu().numpy()


class NumberMeasures:
    """Gather a regression's predictions with all modalities and with some of them, and judge them by R².

    Samples without a target (NaN) are left out. The measures are:

    - `unimodal_<modality>_r2`: of the predictions of its uni-modal head;
    - `only_<modality>_r2`, `without_<modality>_r2`: of the fused prediction with this modality alone and without it.
      Samples that lack the modality, or all others, do not count;
    - `shapley_r2_<modality>`: the modality's Shapley value of R², as `ImbalanceMeasures` has it of accuracy. No
      modality counts as predicting the mean target, whose R² is 0.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._batches: dict[str, list[np.ndarray]] = {}

    def add(self, outputs: Mapping[str, Any], labels: Tensor, accelerator: Accelerator) -> None:
        """Look at one batch; every process has to call this."""
        self._names = list(outputs["features"])
        everywhere = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
        columns = {"target": labels, "fused": outputs["logits"]}
        for name in self._names:
            columns[f"has {name}"] = (outputs.get("present") or {}).get(name, everywhere)
        columns |= {f"unimodal_{name}": values for name, values in (outputs.get("unimodal_logits") or {}).items()}
        columns |= outputs.get("ablation_logits") or {}
        rows = torch.stack([values.detach().float().reshape(len(labels)) for values in columns.values()], dim=1)
        gathered = accelerator.gather_for_metrics(rows).cpu().double().numpy()
        for name, column in zip(columns, gathered.T, strict=True):
            self._batches.setdefault(name, []).append(column)

    def finish(self) -> dict[str, float]:
        """Compute the measures by name; empty if there was no target."""
        columns = {name: np.concatenate(batches) for name, batches in self._batches.items()}
        if not columns or np.isnan(columns["target"]).all():
            return {}
        kept = ~np.isnan(columns["target"])
        columns = {name: column[kept] for name, column in columns.items()}
        having = {name: columns[f"has {name}"] > 0 for name in self._names}
        subsets = {name: kept for name, kept in ablations(self._names).items() if name in columns}
        counted = {f"unimodal_{name}": own for name, own in having.items()}
        counted |= {name: np.any([having[each] for each in kept], axis=0) for name, kept in subsets.items()}
        metrics = {
            f"{name}_r2": r_squared(columns[name][rows], columns["target"][rows])
            for name, rows in counted.items()
            if name in columns and "+" not in name and rows.any()
        }
        if subsets:
            values = shapley_values(self._names, self._worth(columns, subsets, counted))
            metrics |= {name.replace("shapley_", "shapley_r2_", 1): value for name, value in values.items()}
        return metrics

    def _worth(
        self,
        columns: Mapping[str, np.ndarray],
        subsets: Mapping[str, frozenset[str]],
        counted: Mapping[str, np.ndarray],
    ) -> dict[frozenset[str], float]:
        """Compute R² by the set of modalities that are given."""
        target = columns["target"]
        worth = {
            kept: r_squared(np.where(counted[name], columns[name], target.mean()), target)
            for name, kept in subsets.items()
        }
        return {**worth, frozenset(self._names): r_squared(columns["fused"], target), frozenset(): 0.0}
