"""F1 over several classes, as a module of `evaluate`."""

import datasets
import evaluate
import sklearn.metrics

_DESCRIPTION = "Harmonic mean of precision and recall, averaged over classes."
_INPUTS = """
Args:
    predictions: predicted classes, integers; with the configuration `multilabel`, zeros and ones for every class.
    references: right classes, in the same form.
    average: `macro`, every class counting alike, or `weighted`, by the classes' numbers of samples, or
        `micro`, over all decisions.
Returns:
    f1: float in [0, 1]; a class that is never predicted counts 0.
"""


class F1(evaluate.Metric):
    """F1 over several classes."""

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

    def _compute(self, predictions, references, average="macro"):
        value = sklearn.metrics.f1_score(references, predictions, average=average, zero_division=0)
        return {"f1": float(value)}
