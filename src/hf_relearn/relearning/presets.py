"""Set training presets by name."""

from typing import Any

# The method's settings. Models and data need others (epochs, learning rate), which recipes set.
PRESETS: dict[str, dict[str, Any]] = {
    # Re-learns what has memorised, early; the defaults.
    "balanced": {
        "relearn_strategy": "epoch",
        "relearn_points": None,  # a quarter and a half of the run
        "relearn_strength": "gate",
        "diagnosis_estimator": "separability",
        "diagnosis_source": "auto",
        "max_grad_norm": 0.0,
    },
    # As published: a part is held out, purity decides, and points come after 20, 40 and 60 of 90 epochs.
    "paper": {
        "relearn_strategy": "epoch",
        "relearn_points": [2 / 9, 4 / 9, 6 / 9],
        "relearn_strength": "gap",
        "relearn_lambda": 3.0,
        "diagnosis_estimator": "purity",
        "diagnosis_source": "holdout",
        "diagnosis_sampling": "all",
        "max_grad_norm": 0.0,
    },
    # Uni-modal heads without re-learning: the baseline to beat.
    "heads": {"relearn_strategy": "no", "max_grad_norm": 0.0},
}


def preset_settings(preset: str, relearn_interval: int | None = None) -> dict[str, Any]:
    """Return the settings of a preset by field; an interval takes the place of its shares.

    Raises:
        ValueError: for an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}: choose one of {', '.join(PRESETS)}")
    left_out = () if relearn_interval is None else ("relearn_points",)
    return {name: value for name, value in PRESETS[preset].items() if name not in left_out}
