"""The accuracy of each modality by itself, and of the model without it."""

import inspect
import os
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor

from hf_relearn.method import NonFiniteFeaturesError, linear_probe_accuracy
from hf_relearn.training.imbalance import ImbalanceMeasures

PROBE_FILE = "unimodal_probe_{}.safetensors"


class FeatureWindow:
    """The latest training features, for a linear probe where a model has no uni-modal heads.

    They come from training steps, so from slightly older weights, with dropout and augmentation: the probe is an
    estimate that costs no forward pass.

    Args:
        size: samples kept at most.
    """

    def __init__(self, size: int = 2048):
        self.size = size
        self._batches: deque[tuple[dict[str, Tensor], Tensor]] = deque()
        self._count = 0

    def add(self, features: Mapping[str, Tensor], labels: Tensor, present: Mapping[str, Tensor] | None = None) -> None:
        """Keep one batch: modality -> (batch, d), (batch,) labels, and modality -> (batch,) bool: which have it."""
        # Copies, because a view would keep all hidden states alive; on the device, so that no step waits for them.
        kept = {f"features.{name}": values.detach().to(torch.float32, copy=True) for name, values in features.items()}
        kept |= {f"present.{name}": having.detach().clone() for name, having in (present or {}).items()}
        self._batches.append((kept, labels.detach().clone()))
        self._count += len(labels)
        while self._count - len(self._batches[0][1]) >= self.size:
            self._count -= len(self._batches.popleft()[1])

    def tensors(self) -> dict[str, Tensor]:
        """Everything kept, oldest first, on the CPU.

        Returns:
            `features.<modality>` -> (n, d) float32, `present.<modality>` -> (n,) bool where this was told, `labels`
            (n,), `batch_sizes`; empty where nothing is kept.
        """
        if not self._batches:
            return {}
        names = self._batches[0][0]
        output = {name: torch.cat([batch[name].cpu() for batch, _ in self._batches]) for name in names}
        output["labels"] = torch.cat([labels.cpu() for _, labels in self._batches])
        output["batch_sizes"] = torch.tensor([len(labels) for _, labels in self._batches])
        return output

    def save(self, path: str) -> None:
        """Write the window into a checkpoint, so that a resumed run evaluates as the uninterrupted one."""
        if self._batches:
            save_file(self.tensors(), path)

    def load(self, path: str) -> None:
        """Read a window that `save` wrote."""
        tensors = load_file(path)
        sizes = tensors.pop("batch_sizes").tolist()
        labels = tensors.pop("labels").split(sizes)
        features = {name: values.split(sizes) for name, values in tensors.items()}
        self._batches = deque(
            ({name: parts[index] for name, parts in features.items()}, labels[index]) for index in range(len(sizes))
        )
        self._count = sum(sizes)


def probe_accuracies(
    train: Mapping[str, Tensor],
    features: Mapping[str, np.ndarray],
    labels: np.ndarray,
    present: Mapping[str, np.ndarray] | None = None,
) -> dict[str, float]:
    """Accuracy of a linear probe per modality, over the samples that have it.

    Args:
        train: `FeatureWindow.tensors()`.
        features: modality -> (n, d) evaluation features.
        labels: (n,) evaluation labels.
        present: modality -> (n,) bool, False for samples that lack it; None: all have all.

    Returns:
        modality -> accuracy; empty where nothing was trained on yet. A modality with NaN or infinite features, or
        without any sample that has it, is left out.
    """
    accuracies = {}
    for name, values in features.items():
        if f"features.{name}" not in train:
            continue
        train_values, train_labels = train[f"features.{name}"].numpy(), train["labels"].numpy()
        if f"present.{name}" in train:
            rows = train[f"present.{name}"].numpy()
            train_values, train_labels = train_values[rows], train_labels[rows]
        rows = present[name] if present else np.ones(len(labels), dtype=bool)
        if len(train_labels) == 0 or not rows.any():
            continue
        try:
            accuracies[name] = linear_probe_accuracy(train_values, train_labels, values[rows], labels[rows])
        except NonFiniteFeaturesError:
            continue
    return accuracies


_NOT_COUNTED = -1


class ModalityEvaluation:
    """Watches forward passes: keeps features of training ones, and gathers what those of an evaluation tell.

    Where the model has uni-modal heads it is seen whether their predictions are right; where it has none, features
    are gathered, on which a linear probe is scored that was fitted on the features of the latest training steps.
    Where the outputs hold `ablation_logits`, predictions without some modalities are judged too. A sample without a
    modality does not count for this modality, nor where none of its modalities is left. `ImbalanceMeasures` tells
    what else is measured.

    Attributes:
        evaluating: whether an evaluation has begun and not ended.
    """

    def __init__(self) -> None:
        self.window = FeatureWindow()
        self.evaluating = False
        self._judged: dict[str, list[np.ndarray]] = {}
        self._batches: dict[str, list[np.ndarray]] = {}
        self._imbalance = ImbalanceMeasures()

    def begin(self) -> None:
        """Start an evaluation."""
        self.evaluating = True
        self._judged, self._batches = {}, {}
        self._imbalance = ImbalanceMeasures()

    def observe(self, outputs: Any, labels: Tensor | None, *, training: bool, accelerator: Accelerator) -> None:
        """Look at one forward pass; outputs without `features`, and batches without labels, are passed over."""
        features = outputs.get("features") if hasattr(outputs, "get") else None
        if features is None or labels is None:
            return
        heads, present = outputs.get("unimodal_logits"), outputs.get("present")
        probed = heads is None and labels.ndim == 1
        if training and probed:
            self.window.add(features, labels, present)
        elif not training and self.evaluating:
            self._imbalance.add(outputs, labels, accelerator)
            everywhere = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
            having = {name: everywhere if present is None else present[name] for name in features}
            logits, counted = _variants(heads or {}, outputs.get("ablation_logits") or {}, having)
            if logits:
                judged = torch.stack([_judge(logits[name], labels, counted[name]) for name in logits], dim=1)
                for name, column in zip(logits, _gathered(judged, accelerator).T, strict=True):
                    self._judged.setdefault(name, []).append(column)
            if probed:
                values = {"labels": labels}
                values |= {f"features.{name}": feature.float() for name, feature in features.items()}
                values |= {f"present.{name}": column for name, column in having.items() if present is not None}
                for name, value in values.items():
                    self._batches.setdefault(name, []).append(_gathered(value, accelerator))

    def finish(self) -> dict[str, float]:
        """End an evaluation: name of the metric -> value, empty where nothing could be measured."""
        self.evaluating = False
        metrics = self._imbalance.finish()
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
        # Every process holds the features of its own batches; all score the probe that is fitted on all of them.
        windows = [window for window in gather_object([self.window.tensors()]) if window]
        names = windows[0] if windows else []
        train = {name: torch.cat([part[name] for part in windows]) for name in names}
        by_kind: dict[str, dict[str, np.ndarray]] = {"features": {}, "present": {}}
        for name, value in values.items():
            kind, _, modality = name.partition(".")
            if modality:
                by_kind[kind][modality] = value
        return probe_accuracies(train, by_kind["features"], values["labels"], by_kind["present"])

    def save(self, folder: str, process_index: int) -> None:
        """Write this process's window of training features into a checkpoint."""
        os.makedirs(folder, exist_ok=True)
        self.window.save(os.path.join(folder, PROBE_FILE.format(process_index)))

    def start(self, checkpoint: str | None, process_index: int) -> None:
        """Begin to train: with an empty window, or with this process's one from the checkpoint that is resumed."""
        self.window = FeatureWindow()
        path = os.path.join(checkpoint or "", PROBE_FILE.format(process_index))
        if checkpoint is not None and os.path.isfile(path):
            self.window.load(path)


def makes_ablations(model: Any) -> bool:
    """Whether a model, possibly with adapters, gives `ablation_logits` when asked to, of several modalities."""
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
    """(batch,) int64: 1 where the prediction is right, of multi-label targets in every class; 0; or not counted."""
    if labels.ndim == 2:
        right = ((logits > 0) == (labels > 0.5)).all(dim=-1)
    else:
        right = logits.argmax(dim=-1) == labels
        counted = counted & (labels != -100)
    return torch.where(counted, right.long(), _NOT_COUNTED)


def _gathered(values: Tensor, accelerator: Accelerator) -> np.ndarray:
    return accelerator.gather_for_metrics(values.detach()).cpu().numpy()
