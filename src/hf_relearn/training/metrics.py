"""Metrics of an evaluation, by the `evaluate` modules that the package ships, which load offline by path."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
from transformers import EvalPrediction, TrainingArguments

from hf_relearn.method.regression import r_squared
from hf_relearn.quality import LOWER_IS_BETTER, main_metric

ComputeMetrics = Callable[[EvalPrediction], dict[str, float]]

_METRICS_FOLDER = Path(__file__).parents[1] / "metrics"


@lru_cache
def load_metric(name: str, config_name: str | None = None) -> evaluate.Metric:
    """Load a shipped metric: `accuracy`, `f1` or `purity`.

    Args:
        name: of the metric.
        config_name: `"multilabel"` for accuracy and F1 of (n, classes) zeros and ones.

    Raises:
        ValueError: for a metric that is not shipped.
    """
    path = _METRICS_FOLDER / name / f"{name}.py"
    if not path.is_file():
        shipped = sorted(
            folder.name for folder in _METRICS_FOLDER.iterdir() if (folder / f"{folder.name}.py").is_file()
        )
        raise ValueError(f"the metric {name!r} is not shipped; there are {', '.join(shipped)}")
    return evaluate.load(str(path), config_name, keep_in_memory=True)


def classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Return accuracy and F1, as the labels are.

    Of one class per sample, F1 is averaged over classes (`f1_macro`) and over samples (`f1_weighted`). Of multi-label
    targets, a class is predicted if its probability is above one half; accuracy is the share of samples with every
    class right, and F1 is averaged over classes (`f1_macro`) and over all decisions (`f1_micro`).

    Args:
        prediction: logits (n, classes), and labels: integers (n,), or zeros and ones (n, classes).
    """
    logits: Any = prediction.predictions
    logits = logits[0] if isinstance(logits, tuple) else logits
    labels: Any = prediction.label_ids
    multi_label = np.ndim(labels) == 2
    predicted = (np.asarray(logits) > 0).astype(np.int64) if multi_label else np.argmax(logits, axis=-1)
    values = {"predictions": predicted, "references": labels.astype(np.int64) if multi_label else labels}
    config_name = "multilabel" if multi_label else None
    f1 = load_metric("f1", config_name)
    averages = ("macro", "micro" if multi_label else "weighted")
    return {
        "accuracy": load_metric("accuracy", config_name).compute(**values)["accuracy"],
        **{f"f1_{average}": f1.compute(**values, average=average)["f1"] for average in averages},
    }


def regression_metrics(prediction: EvalPrediction, *, signed: bool = False) -> dict[str, float]:
    """Return mean absolute error, R² and Pearson's correlation of predicted numbers.

    Args:
        prediction: numbers (n, 1), and targets (n,), NaN for samples that do not count.
        signed: whether to add `sign_accuracy`, the share of the targets other than 0 whose sign is predicted.

    Returns:
        Without any target nothing. The correlation is 0 where predictions or targets are all the same.
    """
    found: Any = prediction.predictions
    found = np.asarray(found[0] if isinstance(found, tuple) else found, dtype=np.float64).reshape(-1)
    targets = np.asarray(prediction.label_ids, dtype=np.float64)
    found, targets = found[~np.isnan(targets)], targets[~np.isnan(targets)]
    if len(targets) == 0:
        return {}
    varies = len(targets) > 1 and found.std() > 0 and targets.std() > 0
    metrics = {
        "mae": float(np.abs(found - targets).mean()),
        "r2": r_squared(found, targets),
        "pearson": float(np.corrcoef(found, targets)[0, 1]) if varies else 0.0,
    }
    if signed and (targets != 0).any():
        metrics["sign_accuracy"] = float(((found > 0) == (targets > 0))[targets != 0].mean())
    return metrics


def with_own_metrics(standard: ComputeMetrics, own: ComputeMetrics) -> ComputeMetrics:
    """Return a function that computes the standard metrics, and then a user's own of the logits."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits = prediction.predictions  # with those of the heads behind, at the end of a run
        logits = logits[0] if isinstance(logits, tuple) else logits
        return {**standard(prediction), **own(EvalPrediction(logits, prediction.label_ids))}

    return compute


def search_objective(
    args: TrainingArguments, *, measured: bool, numbers: bool = False
) -> tuple[Callable[[Mapping[str, float]], float], str]:
    """Return the objective of a hyper-parameter search, and its direction: `metric_for_best_model`, or accuracy.

    Args:
        args: of the run.
        measured: whether there are metrics beside the loss, which is the objective otherwise.
        numbers: whether numbers are predicted, whose measure is R².
    """
    name = args.metric_for_best_model or (main_metric(numbers) if measured else "loss")
    key = name if name.startswith("eval_") else f"eval_{name}"
    greater = args.greater_is_better
    if greater is None:
        greater = not name.endswith(LOWER_IS_BETTER)

    def objective(metrics: Mapping[str, float]) -> float:
        if key not in metrics:
            raise ValueError(
                f"the search looks for the best {key!r}, but an evaluation gives {', '.join(metrics)}: name one of "
                "these by --metric_for_best_model, or give a compute_objective"
            )
        return metrics[key]

    return objective, "maximize" if greater else "minimize"
