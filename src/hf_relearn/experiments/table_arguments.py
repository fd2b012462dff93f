"""The flags of a data set that is a table: from the Hub, a folder or a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from datasets import DatasetDict

    from hf_relearn.cards import DatasetFacts
    from hf_relearn.experiments.modalities import Modality


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
