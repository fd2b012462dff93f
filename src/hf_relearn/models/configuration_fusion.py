"""The ways to fuse modalities, and the options that each takes."""

from collections.abc import Mapping
from typing import Any

# Name of the fusion -> its options with their defaults.
FUSION_OPTIONS: dict[str, dict[str, int | float]] = {
    "concat": {},
    "sum": {"hidden_size": 256},
    "gated": {"hidden_size": 256},
    "film": {"hidden_size": 256},
    "low_rank": {"hidden_size": 256, "rank": 4},
    "cross_attention": {"hidden_size": 256, "num_layers": 2, "num_attention_heads": 4, "dropout": 0.1},
    "bottleneck": {
        "hidden_size": 256,
        "num_layers": 2,
        "num_attention_heads": 4,
        "num_bottlenecks": 4,
        "dropout": 0.1,
    },
}
CUSTOM_FUSION = "custom"


def checked_fusion_kwargs(fusion: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the options of a fusion with their defaults.

    Args:
        fusion: a name in `FUSION_OPTIONS`, or `"custom"` for a module of the user's own, whose options are the user's.
        kwargs: the options that were given.

    Raises:
        ValueError: for an unknown fusion, an option that it does not take, or a value out of its range.
    """
    if fusion == CUSTOM_FUSION:
        return dict(kwargs)
    if fusion not in FUSION_OPTIONS:
        raise ValueError(f"unknown fusion {fusion!r}: use one of {', '.join(FUSION_OPTIONS)}, or a module of your own")
    defaults = FUSION_OPTIONS[fusion]
    if unknown := sorted(set(kwargs) - set(defaults)):
        takes = ", ".join(defaults) or "none"
        raise ValueError(f"the fusion {fusion!r} does not take {', '.join(unknown)}; the options it takes: {takes}")
    options = {**defaults, **kwargs}
    for name, value in options.items():
        if name == "dropout":
            if not 0 <= value < 1:
                raise ValueError(f"fusion_kwargs: dropout is {value}, but it is a probability below 1")
        elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"fusion_kwargs: {name} is {value!r}, but it is a whole number of at least 1")
    check_heads(options.get("hidden_size", 1), options.get("num_attention_heads", 1))
    return options


def check_heads(hidden_size: int, num_attention_heads: int) -> None:
    """Refuse a width that attention heads cannot share evenly."""
    if hidden_size % num_attention_heads:
        raise ValueError(
            f"hidden_size is {hidden_size}, which {num_attention_heads} attention heads cannot share evenly: choose a "
            "multiple of num_attention_heads"
        )
