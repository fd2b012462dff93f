"""Accuracy, as a module of `evaluate`."""

import datasets
import evaluate
import sklearn.metrics

_DESCRIPTION = "Share of the samples whose predicted class is the right one, or all of whose classes are."
_INPUTS = """
Args:
    predictions: predicted classes, integers; with the configuration `multilabel`, zeros and ones for every class.
    references: right classes, in the same form.
Returns:
    accuracy: float in [0, 1].
"""


class Accuracy(evaluate.Metric):
    """Share of right predictions."""

    def _info(self) -> evaluate.MetricInfo:
        value = datasets.Value("int64")
        kind = datasets.Sequence(value) if self.config_name == "multilabel" else value
        features = {"predictions": kind, "references": kind}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(features),
        )

    def _compute(self, predictions, references):
        return {"accuracy": float(sklearn.metrics.accuracy_score(references, predictions))}
