"""Results of each class on one split: precision, recall and F1, and which classes are taken for which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit, softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from hf_relearn.report.markdown import number, table, text
from hf_relearn.report.training_figures import confusion_figure

MEASURES = ("precision", "recall", "f1", "support")
MOST_CLASSES = 50  # in a report; more are neither a figure nor a table to read


@dataclass(frozen=True)
class ClassResults:
    """Hold the results of each class, as plain data.

    Attributes:
        split: what was predicted.
        per_class: class -> `precision`, `recall`, `f1` and `support` (its samples).
        confusion: (classes, classes) counts, true classes in rows; None if a sample has several classes.
    """

    split: str
    per_class: Mapping[str, Mapping[str, float]]
    confusion: Sequence[Sequence[int]] | None

    def figure(self) -> Figure | None:
        """Draw the confusion matrix, if there is one to read."""
        if self.confusion is None or len(self.per_class) > MOST_CLASSES:
            return None
        return confusion_figure(np.asarray(self.confusion), list(self.per_class))

    def table(self) -> str:
        """Return a Markdown table, one row for each class."""
        rows = [
            [text(name), *(number(values[key]) for key in MEASURES[:3]), f"{values['support']:.0f}"]
            for name, values in self.per_class.items()
        ]
        return table(["class", *MEASURES[:3], "samples"], rows)


def class_probabilities(logits: np.ndarray, several: bool) -> np.ndarray:
    """Return (n, classes) probabilities; with `several` classes per sample each is one of its own."""
    return expit(logits.astype(np.float64)) if several else softmax(logits.astype(np.float64), axis=-1)


def class_results(split: str, labels: np.ndarray, logits: np.ndarray, names: Sequence[str]) -> ClassResults:
    """Compare predictions with labels, class by class.

    Args:
        split: what was predicted.
        labels: (n,) integers, -100 without a class, or (n, classes) zeros and ones.
        logits: (n, classes).
        names: of the classes, in order.
    """
    several = labels.ndim == 2
    scores = class_probabilities(logits, several)
    rows = np.ones(len(labels), dtype=bool) if several else labels >= 0
    true, said = labels[rows], (scores > 0.5 if several else scores.argmax(axis=-1))[rows]
    places = list(range(len(names)))
    by_measure = precision_recall_fscore_support(true, said, labels=places, zero_division=0.0)
    per_class = {
        name: {measure: float(values[place]) for measure, values in zip(MEASURES, by_measure, strict=True)}
        for place, name in enumerate(names)
    }
    return ClassResults(split, per_class, None if several else confusion_matrix(true, said, labels=places).tolist())


def read_class_results(value: Any) -> ClassResults | None:
    """Read what `report.json` holds of the classes; None if it holds nothing."""
    if not isinstance(value, Mapping):
        return None
    return ClassResults(value["split"], value["per_class"], value.get("confusion"))
