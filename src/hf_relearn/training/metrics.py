"""Metrics of an evaluation, by the `evaluate` modules that the package ships, which load offline by path."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
from transformers import EvalPrediction

_METRICS_FOLDER = Path(__file__).parents[1] / "metrics"


@lru_cache
def load_metric(name: str) -> evaluate.Metric:
    """Load a shipped metric: `accuracy`, `f1` or `purity`.

    Raises:
        ValueError: for a metric that is not shipped.
    """
    path = _METRICS_FOLDER / name / f"{name}.py"
    if not path.is_file():
        shipped = sorted(
            folder.name for folder in _METRICS_FOLDER.iterdir() if (folder / f"{folder.name}.py").is_file()
        )
        raise ValueError(f"the metric {name!r} is not shipped; there are {', '.join(shipped)}")
    return evaluate.load(str(path), keep_in_memory=True)


def classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy, and F1 averaged over classes (`f1_macro`) and over samples (`f1_weighted`).

    Args:
        prediction: logits (n, classes) and integer labels (n,).
    """
    logits: Any = prediction.predictions
    predicted = np.argmax(logits[0] if isinstance(logits, tuple) else logits, axis=-1)
    values = {"predictions": predicted, "references": prediction.label_ids}
    f1 = load_metric("f1")
    return {
        "accuracy": load_metric("accuracy").compute(**values)["accuracy"],
        "f1_macro": f1.compute(**values, average="macro")["f1"],
        "f1_weighted": f1.compute(**values, average="weighted")["f1"],
    }
