"""The flags that all recipes share: which preset, what to compare."""

import argparse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from hf_relearn.experiments.arms import ARMS, DEFAULT_ARMS
from hf_relearn.relearning.presets import PRESETS as METHOD_PRESETS
from hf_relearn.relearning.presets import preset_settings

if TYPE_CHECKING:
    from hf_relearn.cards import CardInfo

# As in `from_backbones(preset=...)`, which takes a second to import.
_UNIMODAL_LOSS_WEIGHTS = {"balanced": 1.0, "paper": 0.0, "heads": 1.0}
# The settings of each preset, those of the model's uni-modal heads among them, by flag.
PRESETS: dict[str, dict[str, Any]] = {
    name: {**values, "unimodal_loss_weight": _UNIMODAL_LOSS_WEIGHTS[name]} for name, values in METHOD_PRESETS.items()
}


def preset_defaults(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the flags' defaults by the preset that was chosen; `--relearn_interval` replaces its points."""
    weight = _UNIMODAL_LOSS_WEIGHTS[chosen.preset]
    return {**preset_settings(chosen.preset, chosen.relearn_interval), "unimodal_loss_weight": weight}


@dataclass
class RunArguments:
    """Choose what is run."""

    _argument_group_name: ClassVar[str] = "run"

    preset: str = field(
        default="balanced",
        metadata={
            "help": "'balanced': uni-modal heads, and a modality that has memorised is re-learnt after a quarter and "
            "half of the run. 'heads': uni-modal heads without re-learning. 'paper': no heads, K-means purity on a "
            "held-out part, as published. Single flags override a preset, and --compare tells which helps.",
            "choices": sorted(PRESETS),
        },
    )
    compare: bool = field(
        default=False,
        metadata={
            "help": "Train the arms of a comparison, each with several seeds, and write comparison.md with their "
            "paired differences. Each run is a process of its own. Started again, a comparison goes on: a finished "
            "run is not trained again."
        },
    )
    compare_arms: list[str] = field(
        default_factory=lambda: list(DEFAULT_ARMS),
        metadata={
            "help": f"Arms of the comparison: {', '.join(ARMS)}, and only_<modality>. Numbers (--problem_type "
            f"regression) have no {', '.join(name for name, arm in ARMS.items() if arm.needs_classes)}."
        },
    )
    compare_seeds: int = field(
        default=3, metadata={"help": "Seeds of each arm, counted from --seed. Small differences need 8 or more."}
    )
    compare_jobs: int | None = field(
        default=None,
        metadata={
            "help": "Runs at the same time; unset, one on each GPU, or up to 4 on a CPU. The figures do not depend on "
            "it: a run's threads (OMP_NUM_THREADS, if you set it) stay the same."
        },
    )
    save_predictions: bool = field(
        default=False,
        metadata={
            "help": "Leave the logits of validation and test in predictions.npz, and the results of the last epoch "
            "and the best on validation in result.json. The runs of a comparison do."
        },
    )
    corrupt: list[str] | None = field(
        default=None,
        metadata={
            "help": "Spoil the data for an experiment, seeded by --seed: 'vision=noise:1.0' adds noise of so many "
            "standard deviations (of a text: replaces that share of its words), 'vision=missing:0.3' empties a share "
            "of the samples, both in training and test alike; 'labels:0.2' makes a share of the training labels wrong."
        },
    )
    license: str | None = field(
        default=None,
        metadata={"help": "Licence of the model, for its card: an identifier of the Hub such as apache-2.0."},
    )
    language: list[str] | None = field(
        default=None, metadata={"help": "Languages in the data, for the model card: ISO 639 codes such as en."}
    )

    def __post_init__(self) -> None:
        self.card_info()
        for name in ("compare_seeds", "compare_jobs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} is {value}, but it is at least 1")

    @property
    def part_of_comparison(self) -> bool:
        """Whether this process compares arms, or trains one for a comparison."""
        from hf_relearn.experiments.processes import is_child  # which imports torch

        return self.compare or is_child()

    def card_info(self, **facts: Any) -> "CardInfo":
        """Return the facts for the model card: the flags above, and other fields of `CardInfo`."""
        from hf_relearn.cards import CardInfo

        if self.language:
            facts["language"] = self.language
        return CardInfo(license=self.license, **facts)
