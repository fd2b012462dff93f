"""Collecting, batch by batch, what tells how good each modality is by itself."""

import os
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from hf_relearn.training.unimodal import PROBE_FILE, FeatureWindow, probe_accuracies


class UnimodalEvaluation:
    """Watches forward passes: keeps features of training ones, and gathers those of an evaluation.

    Where the model has uni-modal heads their predictions are gathered; where it has none, features, on which a
    linear probe is scored that was fitted on the features of the latest training steps.
    """

    def __init__(self) -> None:
        self.window = FeatureWindow()
        self._evaluating = False
        self._batches: dict[str, list[np.ndarray]] = {}
        self._labels: list[np.ndarray] = []
        self._heads = False
        self._accelerator: Accelerator | None = None

    def begin(self) -> None:
        """Start an evaluation."""
        self._evaluating = True
        self._batches, self._labels = {}, []

    def observe(self, outputs: Any, labels: Tensor | None, *, training: bool, accelerator: Accelerator) -> None:
        """Look at one forward pass; outputs without `features`, and batches without labels, are passed over."""
        features = outputs.get("features") if hasattr(outputs, "get") else None
        if features is None or labels is None or labels.ndim != 1:
            return
        self._accelerator = accelerator
        heads = outputs.get("unimodal_logits")
        self._heads = heads is not None
        if training and not self._heads:
            self.window.add(features, labels)
        elif not training and self._evaluating:
            values = {name: logits.argmax(dim=-1) for name, logits in heads.items()} if heads is not None else features
            for name, value in values.items():
                gathered = accelerator.gather_for_metrics(value.detach())
                self._batches.setdefault(name, []).append(gathered.float().cpu().numpy())
            self._labels.append(accelerator.gather_for_metrics(labels).cpu().numpy())

    def finish(self) -> dict[str, float]:
        """End an evaluation: modality -> accuracy, empty where nothing could be measured."""
        self._evaluating = False
        if not self._labels:
            return {}
        labels = np.concatenate(self._labels)
        values = {name: np.concatenate(batches) for name, batches in self._batches.items()}
        self._batches, self._labels = {}, []
        if self._heads:
            return {name: float((predicted == labels).mean()) for name, predicted in values.items()}
        # Every process holds the features of its own batches; all score the probe that is fitted on all of them.
        windows = [window for window in gather_object([self.window.tensors()]) if window]
        names = windows[0] if windows else []
        return probe_accuracies({name: torch.cat([part[name] for part in windows]) for name in names}, values, labels)

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
