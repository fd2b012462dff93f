"""Bounds on what a file may ask for: sizes of media, and sizes that a configuration names."""

import os
from collections.abc import Mapping
from typing import Any

LIMITS_VARIABLE = "HF_RELEARN_LIMITS"  # a factor for every bound below, 1 by default
LIMITS = {
    "image pixels": 64_000_000,  # 256 MB as Pillow holds them, more than the largest photographs of cameras
    "video pixels": 2**28,  # over all frames that are kept: 32 frames of 4K
    "samples": 2**26,  # of a decoded sound: 70 minutes at 16 kHz, 268 MB as float32
    "image side": 8_000,
    "frames": 4_096,
    "filters": 8_192,  # mel bins, Fourier windows and the like, two of which span a table
    "layers": 1_000,
    "vocabulary": 10_000_000,
    "width": 2**20,
    "parameters": 10**10,
}
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz

# Ends of the names that configurations and preprocessors use -> what bounds their values.
_BOUNDED = {
    "layers": "layers",
    "depth": "layers",
    "depths": "layers",
    "num_blocks": "layers",
    "vocab_size": "vocabulary",
    "num_labels": "vocabulary",
    "image_size": "image side",
    "crop_size": "image side",
    "pad_size": "image side",
    "spec_size": "image side",
    "size_divisor": "image side",
    "num_frames": "frames",
    "frames_per_clip": "frames",
    "num_mel_bins": "filters",
    "n_fft": "filters",
    "fft_window_size": "filters",
    "hidden_size": "width",
    "hidden_sizes": "width",
    "intermediate_size": "width",
    "embedding_size": "width",
    "feature_size": "width",
    "token_size": "width",
    "input_size": "width",
    "d_model": "width",
    "max_length": "width",
    "num_bottlenecks": "width",
    "rank": "width",
    "num_channels": "width",
    "position_embeddings": "width",
    "source_positions": "width",
    "num_patches": "filters",
}


def limit(name: str) -> int:
    """Return a bound of `LIMITS`, times the factor that `HF_RELEARN_LIMITS` gives.

    Raises:
        ValueError: if the variable holds anything but a number above 0.
    """
    given = os.environ.get(LIMITS_VARIABLE, "1")
    try:
        factor = float(given)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise ValueError(f"{LIMITS_VARIABLE} is {given!r}, but it is a number above 0, by which bounds are multiplied")
    return int(LIMITS[name] * factor)


def excess(name: str, value: float, what: str) -> str | None:
    """Say why a value above a bound is refused, or None if it is not above.

    Args:
        name: of `LIMITS`.
        value: that a file holds or asks for.
        what: to call the value in the message.
    """
    most = limit(name)
    if value <= most:
        return None
    shown = f"{value:,}" if abs(value) < 10**18 else f"{value:.3g}" if isinstance(value, float) else "10^18 or more"
    return (
        f"{what} is {shown}, and at most {most:,} is allowed ({LIMITS_VARIABLE}={_factor_for(value, most)} in the "
        "environment would raise every bound so far)"
    )


def _factor_for(value: float, most: int) -> int:
    return min(10**9, int(min(value, 1e18) * float(os.environ.get(LIMITS_VARIABLE, "1")) // max(most, 1)) + 1)


def check_size(name: str, value: float, what: str) -> None:
    """Refuse a value above a bound; arguments are those of `excess`.

    Raises:
        ValueError: that names the value and the bound.
    """
    if reason := excess(name, value, what):
        raise ValueError(reason)


def check_rate(rate: Any, what: str) -> int:
    """Return a sampling rate as a whole number of Hz.

    Raises:
        ValueError: if it is not a number from 1 kHz to 768 kHz.
    """
    try:
        number = int(rate)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if not LOWEST_RATE <= number <= HIGHEST_RATE:
        raise ValueError(f"{what} is {rate} Hz, but rates are from {LOWEST_RATE} Hz to {HIGHEST_RATE} Hz")
    return number


def check_settings(settings: Any, where: str) -> None:
    """Refuse sizes above their bounds, wherever they stand in nested settings.

    Args:
        settings: of a model or preprocessor, as read from its file.
        where: to call it in a message.

    Raises:
        ValueError: that names the setting, its value and the bound.
    """
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            bound = _bound_of(str(name))
            if bound is not None:
                _check_numbers(bound, value, f"{where}: {name}")
            elif name == "sampling_rate" and value is not None:
                check_rate(value, f"{where}: {name}")
            check_settings(value, where)
    elif isinstance(settings, (list, tuple)):
        for item in settings:
            check_settings(item, where)


def _bound_of(name: str) -> str | None:
    if name in _BOUNDED:
        return _BOUNDED[name]
    return next((bound for end, bound in _BOUNDED.items() if name.endswith(f"_{end}")), None)


def _check_numbers(bound: str, value: Any, what: str) -> None:
    for number in _numbers_in(value):
        check_size(bound, number, what)


def _numbers_in(value: Any) -> list[float]:
    if isinstance(value, Mapping):
        return [number for item in value.values() for number in _numbers_in(item)]
    if isinstance(value, (list, tuple)):
        return [number for item in value for number in _numbers_in(item)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []
