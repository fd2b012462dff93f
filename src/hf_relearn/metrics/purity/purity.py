"""Purity of a clustering, as a module of `evaluate`."""

import datasets
import evaluate

import hf_relearn.method

_DESCRIPTION = "Share of the samples that belong to the most frequent class of their cluster."
_INPUTS = """
Args:
    predictions: clusters, integers.
    references: classes, any integers.
Returns:
    purity: float in (0, 1].
"""


class Purity(evaluate.Metric):
    """Purity of a clustering."""

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(features),
        )

    def _compute(self, predictions, references):
        return {"purity": hf_relearn.method.purity_score(references, predictions)}
