"""The metrics that tell a model's quality: which count, which one stands for all, and which are better if lower."""

from collections.abc import Mapping
from typing import Any

from hf_relearn.records import finite

_SPEED = ("runtime", "samples_per_second", "steps_per_second", "jit_compilation_time", "model_preparation_time")
_COUNTS = ("epoch", "samples", "total_flos")
# Names of metrics end so if the lower value is the better one.
LOWER_IS_BETTER = ("loss", "mae", "nll", "ece")


def main_metric(numbers: bool) -> str:
    """Return the measure of a model, the higher the better: accuracy, of numbers R²."""
    return "r2" if numbers else "accuracy"


def quality_metrics(metrics: Mapping[str, Any], split: str) -> dict[str, float]:
    """Return the quality metrics of an evaluation: its numbers but those of its speed, a user's own among them.

    Args:
        metrics: of the Trainer, whose names begin with the split.
        split: such as `"eval"` or `"test"`.

    Returns:
        Name without the split -> value. What is no finite number is left out.
    """
    found = {}
    for name, value in metrics.items():
        short, number = name.removeprefix(f"{split}_"), finite(value)
        if short != name and number is not None and short not in (*_SPEED, *_COUNTS):
            found[short] = number
    return found
