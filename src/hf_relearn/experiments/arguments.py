"""The flags that all recipes share: which preset, what to compare."""

import argparse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

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
    """What to run."""

    _argument_group_name: ClassVar[str] = "run"

    preset: str = field(
        default="balanced",
        metadata={
            "help": "'balanced': uni-modal heads, and a modality that has memorised is re-learnt at 25 % and 50 % of "
            "the run. 'heads': uni-modal heads without re-learning. 'paper': no heads, K-means purity on a held-out "
            "part, as published. Single flags override a preset, and --compare tells which helps.",
            "choices": sorted(PRESETS),
        },
    )
    compare: bool = field(
        default=False,
        metadata={
            "help": "Train from the same seed the joint model on the training part, the joint model on training and "
            "diagnosing part, uni-modal heads alone (if the run has heads) and the re-learnt model, and put them side "
            "by side in comparison.md."
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

    def card_info(self, **facts: Any) -> "CardInfo":
        """What the model card has to be told: the flags above, and other fields of `CardInfo`."""
        from hf_relearn.cards import CardInfo

        if self.language:
            facts["language"] = self.language
        return CardInfo(license=self.license, **facts)
