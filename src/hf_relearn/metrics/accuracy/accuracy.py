"""Accuracy, as a module of `evaluate`."""

import datasets
import evaluate
import sklearn.metrics

_DESCRIPTION = "Share of the samples whose predicted class is the right one."
_INPUTS = """
Args:
    predictions: predicted classes, integers.
    references: right classes, integers.
Returns:
    accuracy: float in [0, 1].
"""


class Accuracy(evaluate.Metric):
    """Share of right predictions."""

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(features),
        )

    def _compute(self, predictions, references):
        return {"accuracy": float(sklearn.metrics.accuracy_score(references, predictions))}
