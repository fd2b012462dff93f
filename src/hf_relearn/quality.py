"""The quality metrics of an evaluation: its numbers but those of its speed, so that a user's own are among them."""

from collections.abc import Mapping
from typing import Any

from hf_relearn.records import finite

_SPEED = ("runtime", "samples_per_second", "steps_per_second", "jit_compilation_time", "model_preparation_time")
_COUNTS = ("epoch", "samples", "total_flos")


def quality_metrics(metrics: Mapping[str, Any], split: str) -> dict[str, float]:
    """Return the quality metrics of an evaluation.

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
