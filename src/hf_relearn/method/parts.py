"""The two parts of a diagnosis: their labels and features, checked, and what is to be said of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hf_relearn.method.regression import number_vector
from hf_relearn.method.samples import UNLABELLED, Spread, feature_matrix, label_vector

_FEW_SAMPLES = 5


class Part:
    """One part's labels and features, checked, and the rows that are diagnosed."""

    def __init__(self, name: str, given: Mapping[str, Any], labels: Any, *, numbers: bool = False):
        self.name, self._given = name, given
        read = number_vector if numbers else label_vector
        self.labels = read(labels, f"{'targets' if numbers else 'labels'} of the {name} part")
        self.features: dict[str, np.ndarray] = {}
        self.spreads: dict[str, Spread] = {}
        self.rows = np.arange(len(self.labels))

    def read(self, modality: str) -> None:
        matrix = feature_matrix(self._given[modality], f"modality {modality!r}, {self.name} part")
        if len(matrix) != len(self.labels):
            raise ValueError(
                f"modality {modality!r}, {self.name} part: {len(matrix)} features but {len(self.labels)} labels"
            )
        self.features[modality] = matrix

    def taken(self, values: np.ndarray) -> np.ndarray:
        """Return the rows that are diagnosed; not copied if these are all."""
        return values if len(self.rows) == len(values) else values[self.rows]


def spread_messages(modality: str, part: Part) -> list[str]:
    """Name a dead encoder, and dimensions whose scale a few outliers decide."""
    spread, where = part.spreads[modality], f"modality {modality!r}, {part.name} part"
    if spread.dead:
        return [
            f"{where}: all {len(part.rows)} samples have the same features, so the encoder is dead and says nothing; "
            "check its inputs, lower the learning rate or start again"
        ]
    if outliers := int(spread.outliers.sum()):
        return [
            f"{where}: in {outliers} of {len(spread.outliers)} dimensions at most 1 % of the samples (or one) are "
            "outliers that squeeze the others into a thousandth of the range; check the inputs of that modality"
        ]
    return []


def class_messages(train: Part, val: Part, num_classes: int) -> list[str]:
    """Name classes that the held-out part lacks, and a part with fewer samples than clusters."""
    messages = []
    absent = np.setdiff1d(train.labels, np.append(val.labels, UNLABELLED))
    if len(absent):
        messages.append(
            f"the diagnosing part has no sample of {len(absent)} classes of the training part (labels "
            f"{_enumerate(absent)}): its purity is not comparable for them; draw a stratified diagnosing part"
        )
    for part in (train, val):
        if (size := len(part.rows)) < num_classes:
            messages.append(
                f"the {part.name} part has {size} samples for {num_classes} classes: it is clustered into "
                f"{size} clusters and its purity means nothing; give more samples"
            )
    return messages


def few_samples_messages(train: Part, val: Part) -> list[str]:
    """Say that many classes are too small to be judged."""
    classes = np.union1d(train.labels[train.rows], val.labels[val.rows])
    counts = np.unique(train.labels[train.rows], return_counts=True)[1]
    few = len(classes) - int((counts >= _FEW_SAMPLES).sum())
    if 3 * few < len(classes):
        return []
    return [
        f"{few} of {len(classes)} classes have fewer than {_FEW_SAMPLES} training samples, so their separability is "
        "hardly known; give more samples or fewer classes"
    ]


def _enumerate(values: np.ndarray, limit: int = 10) -> str:
    shown = ", ".join(str(value) for value in values[:limit])
    return shown + (f" and {len(values) - limit} more" if len(values) > limit else "")
