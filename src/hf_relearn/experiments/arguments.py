"""The flags that all recipes share: which preset, what to compare."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from hf_relearn.cards import CardInfo
from hf_relearn.experiments.arms import ARMS, DEFAULT_ARMS

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
            "help": "Train the arms of a comparison, each with several seeds, and write comparison.md with their "
            "paired differences. Each run is a process of its own. Started again, a comparison goes on: a finished "
            "run is not trained again."
        },
    )
    compare_arms: list[str] = field(
        default_factory=lambda: list(DEFAULT_ARMS),
        metadata={"help": f"Arms of the comparison: {', '.join(ARMS)}, and only_<modality>."},
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

    def card_info(self, **facts: Any) -> CardInfo:
        """What the model card has to be told: the flags above, and other fields of `CardInfo`."""
        if self.language:
            facts["language"] = self.language
        return CardInfo(license=self.license, **facts)
