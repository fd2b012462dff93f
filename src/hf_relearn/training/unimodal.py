"""How good each modality is by itself, from forward passes that training and evaluation make anyway."""

from collections import deque
from collections.abc import Mapping

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hf_relearn.method import NonFiniteFeaturesError, linear_probe_accuracy

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
