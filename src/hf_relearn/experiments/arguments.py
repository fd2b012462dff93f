"""The flags that recipes share: the data set, if it is a table, which preset, and what to compare."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_relearn.experiments.arms import ARMS, DEFAULT_ARMS
from hf_relearn.relearning.presets import PRESETS as METHOD_PRESETS
from hf_relearn.relearning.presets import preset_settings

if TYPE_CHECKING:
    from datasets import DatasetDict

    from hf_relearn.cards import CardInfo, DatasetFacts
    from hf_relearn.experiments.modalities import Modality

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


@dataclass
class TableArguments:
    """Choose the data set and its splits."""

    _argument_group_name: ClassVar[str] = "data"

    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Hub id, local folder (Parquet, CSV, JSON, or media files with metadata), or one CSV, JSON or "
            "Parquet file."
        },
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of the data set."})
    train_split: str = field(default="train", metadata={"help": "Name of the training split."})
    validation_split: str = field(
        default="validation",
        metadata={"help": "Name of the validation split; if there is none, it is drawn from the training split."},
    )
    test_split: str = field(default="test", metadata={"help": "Name of the test split, if there is one."})
    validation_fraction: float = field(
        default=0.1, metadata={"help": "Share of the training split that is drawn as validation split."}
    )
    test_fraction: float = field(
        default=0.2,
        metadata={"help": "Share of the training split that --compare draws as test split, if there is none."},
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on a stratified part of so many samples only."}
    )
    label_column: str = field(
        default="label",
        metadata={
            "help": "Column with classes: names or integers; lists of them if a sample has several; or numbers, with "
            "--problem_type regression."
        },
    )
    problem_type: str = field(
        default="classification",
        metadata={
            "help": "Meaning of the labels: classes, or numbers that are predicted ('regression').",
            "choices": ["classification", "regression"],
        },
    )
    unreadable: str = field(
        default="error",
        metadata={
            "help": "Treat sounds, pictures and videos that cannot be read as an 'error' before training, rows to "
            "'skip', or 'missing' values.",
            "choices": ["error", "skip", "missing"],
        },
    )
    max_unreadable_share: float = field(
        default=0.01, metadata={"help": "Share of a split's rows that may be skipped or miss values so."}
    )

    @property
    def title(self) -> str:
        """The data set's own name, without folders before it."""
        return Path(self.dataset_name or "").name

    def card_datasets(self) -> "list[DatasetFacts] | None":
        """Name a local data set for the model card; None for one of the Hub, which names itself."""
        from hf_relearn.cards import DatasetFacts

        return [DatasetFacts(self.title)] if Path(self.dataset_name or "").exists() else None

    def load(self, modalities: "Mapping[str, Modality]", seed: int, needs_test: bool = False) -> "DatasetDict":
        """Load the splits; `load_table` tells what it raises.

        Args:
            modalities: of the recipe.
            seed: of the parts drawn.
            needs_test: whether a test split is drawn from the training split, if there is none.

        Raises:
            ValueError: if no data set is named.
        """
        from hf_relearn.data.tables import load_table

        if self.dataset_name is None:
            raise ValueError("--dataset_name is missing: give a Hub id, a folder or a file")
        return load_table(
            self.dataset_name,
            self.dataset_config_name,
            columns={name: modality.column for name, modality in modalities.items()},
            kinds={name: modality.kind for name, modality in modalities.items()},
            label_column=self.label_column,
            splits={"train": self.train_split, "validation": self.validation_split, "test": self.test_split},
            validation_fraction=self.validation_fraction,
            test_fraction=self.test_fraction if needs_test else 0.0,
            max_train_samples=self.max_train_samples,
            seed=seed,
            unreadable=self.unreadable,
            max_unreadable_share=self.max_unreadable_share,
            problem_type=self.problem_type,
            flags={name: modality.flag for name, modality in modalities.items()},
        )
