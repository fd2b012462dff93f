"""The flags that all recipes share: which preset, what to compare."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from hf_relearn.cards import CardInfo

# The method's settings. What a model and a data set need (epochs, learning rate) is set by each recipe.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "unimodal_loss_weight": 0.0,
        "relearn_alpha": None,
        "relearn_lambda": 3.0,
        "diagnosis_source": "holdout",
        "diagnosis_sampling": "all",
    },
    "balanced": {
        "unimodal_loss_weight": 1.0,
        "relearn_alpha": "0.9",
        "diagnosis_source": "eval",
        "diagnosis_sampling": "matched",
    },
}


@dataclass
class RunArguments:
    """What to run."""

    _argument_group_name: ClassVar[str] = "run"

    preset: str = field(
        default="balanced",
        metadata={
            "help": "'balanced': uni-modal heads and a constant strength of 0.9, with the evaluation set as "
            "diagnosing part, which costs no training data; for a good model where joint training over-fits. "
            "'paper': the diagnosed strength with a held-out diagnosing part and no heads, as published; to "
            "reproduce the method. Single flags override a preset, and --compare tells which helps.",
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

    def card_info(self, **facts: Any) -> CardInfo:
        """What the model card has to be told: the flags above, and other fields of `CardInfo`."""
        if self.language:
            facts["language"] = self.language
        return CardInfo(license=self.license, **facts)
