"""The settings of diagnosing & re-learning, and the training arguments that carry them."""

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from transformers import TrainingArguments

from hf_relearn.balancing import BalancingSettings
from hf_relearn.relearning.schedule import DEFAULT_POINTS
from hf_relearn.relearning.settings import RelearnSettings
from hf_relearn.training.parameter_groups import ParameterSettings
from hf_relearn.training.targets import TargetSettings

# The method's settings. Models and data need others (epochs, learning rate), which recipes set.
PRESETS: dict[str, dict[str, Any]] = {
    # Re-learns what has memorised, early; the defaults.
    "balanced": {
        "relearn_strategy": "epoch",
        "relearn_points": list(DEFAULT_POINTS),
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
    """Return the settings of a preset by field; an interval takes the place of its re-learning points.

    Raises:
        ValueError: for an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}: choose one of {', '.join(PRESETS)}")
    left_out = () if relearn_interval is None else ("relearn_points",)
    return {name: value for name, value in PRESETS[preset].items() if name not in left_out}


@dataclass
class RelearnTrainingArguments(
    RelearnSettings, BalancingSettings, ParameterSettings, TargetSettings, TrainingArguments
):
    """`TrainingArguments` with the fields of the four classes of settings before it.

    Raw columns have to reach the collator, so `remove_unused_columns` is False here; and gradients are not clipped
    unless `max_grad_norm` is given.
    """

    remove_unused_columns: bool = field(
        default=False,
        metadata={"help": "Remove columns that the model's forward does not take. The collator needs them."},
    )
    max_grad_norm: float = field(
        default=0.0,
        metadata={
            "help": "Norm to which gradients are clipped; 0 does not clip. Gradients are largest just after a "
            "re-learning step, and clipping them there undoes its gain."
        },
    )

    @classmethod
    def from_preset(cls, preset: str, output_dir: str | None = None, **kwargs: Any) -> "RelearnTrainingArguments":
        """Make training arguments by the name of a preset.

        Build the model with `from_backbones(..., preset=...)` of the same name, which sets its uni-modal heads.

        Args:
            preset: `"balanced"`, `"paper"` or `"heads"`.
            output_dir: as in `TrainingArguments`.
            **kwargs: further fields; they win over the preset.

        Raises:
            ValueError: for an unknown preset.
        """
        return cls(output_dir=output_dir, **{**preset_settings(preset, kwargs.get("relearn_interval")), **kwargs})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not torch.accelerator.is_available():
            self.dataloader_pin_memory = False  # there is nothing to pin for, and torch warns at every data loader
        self.check()
        self.build_balancing()  # refuses what does not fit
        self.check_parameters()
        self.check_targets()

    def relearn_settings(self) -> RelearnSettings:
        """The settings alone, as `RelearnCallback` takes them."""
        return RelearnSettings(**{item.name: getattr(self, item.name) for item in fields(RelearnSettings)})
