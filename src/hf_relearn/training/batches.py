"""Collate batches of a data set, and seed the random draws of training batches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_relearn.models import Augmentation, MultimodalProcessor, TableInput
from hf_relearn.models.configuration_multimodal import REGRESSION

UNLABELLED = -100


@dataclass(frozen=True)
class MultimodalCollator:
    """Collate samples into a fusion model's inputs.

    `MultimodalRelearnTrainer` augments training batches only: for evaluation and diagnosis it calls
    `without_augmentation`. In another trainer, give training the collator and evaluation `without_augmentation()`.

    Args:
        processor: turns raw values into the model's inputs.
        columns: modality -> column of the data set, or a list of columns: numbers that are the dimensions of one
            vector (a *features* modality), or cells of a row (a *table* modality). Unset, columns are named like the
            modalities. An empty cell (None) is a sample that lacks the modality; of a row, all cells are empty.
        label_column: column with integer labels, or with lists of the classes that a sample has
            (`datasets.List(ClassLabel)`; several, one or none). Rows without the column give a batch without labels.
        augmentation: what training batches get; None for none.
        num_labels: number of classes, beyond which labels are refused; lists of classes need it.
        problem_type: `"regression"` if labels are numbers to predict; a `MultimodalRelearnTrainer` takes the model's.
    """

    processor: MultimodalProcessor
    columns: Mapping[str, str | Sequence[str]] | None = None
    label_column: str = "label"
    augmentation: Augmentation | None = None
    num_labels: int | None = None
    problem_type: str | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return `{modality}_{argument}` tensors and, if rows have labels, `labels`.

        `labels` are (batch,) int64; for lists of classes (batch, num_labels) float32, 1 for those that a sample has;
        of a regression (batch,) float32, NaN for an empty cell.

        Raises:
            KeyError: if a modality's column is missing.
            ValueError: for labels that are not classes, or a vector of columns that are empty or not numbers.
        """
        columns = self.columns_of_modalities
        for name, column in columns.items():
            for each in [column] if isinstance(column, str) else column:
                if each not in rows[0]:
                    raise KeyError(
                        f"the data set has no column {each!r} for the modality {name!r}; it has {', '.join(rows[0])} "
                        "(with a stock Trainer, set remove_unused_columns=False so that raw columns reach the "
                        "collator)"
                    )
        values = {name: [self._value(row, name, column) for row in rows] for name, column in columns.items()}
        batch = dict(self.processor(values, self.augmentation))
        if self.label_column in rows[0]:
            batch["labels"] = self._labels([row[self.label_column] for row in rows])
        return batch

    def _value(self, row: Mapping[str, Any], name: str, column: str | Sequence[str]) -> Any:
        modality_input = self.processor.inputs.get(name)
        if isinstance(modality_input, TableInput):
            return modality_input.row_of(row, column)
        return row[column] if isinstance(column, str) else vector_of(row, column, name)

    @property
    def columns_of_modalities(self) -> Mapping[str, str | Sequence[str]]:
        """Modality -> column or columns; those that are called like the modalities, if none are named."""
        return self.columns or {name: name for name in self.processor.inputs}

    def tell_processor(self) -> None:
        """Let the processor remember the columns, which it saves with its settings."""
        self.processor.columns = {
            name: column if isinstance(column, str) else list(column)
            for name, column in self.columns_of_modalities.items()
        }
        self.processor.label_column = self.label_column

    def without_augmentation(self) -> "MultimodalCollator":
        """Return the same collator for evaluation."""
        return replace(self, augmentation=None)

    def _labels(self, labels: list[Any]) -> Tensor:
        if self.problem_type == REGRESSION:
            return torch.tensor([self._number(label) for label in labels])
        if any(label is None for label in labels):
            raise ValueError(f"the label column {self.label_column!r} has empty values: leave these rows out")
        if not any(_is_list(label) for label in labels):
            return torch.tensor([self._class(label) for label in labels])
        if self.num_labels is None:
            raise ValueError(
                f"the label column {self.label_column!r} holds lists of classes: give the collator num_labels, the "
                "number of all classes"
            )
        targets = torch.zeros(len(labels), self.num_labels)
        for row, label in enumerate(labels):
            classes = [int(index) for index in label]
            if len(set(classes)) < len(classes) or any(not 0 <= index < self.num_labels for index in classes):
                raise ValueError(
                    f"the label column {self.label_column!r} holds {classes}: a list names each class that a sample "
                    f"has once, by its number from 0 to {self.num_labels - 1}"
                )
            targets[row, classes] = 1.0
        return targets

    def _number(self, label: Any) -> float:
        if label is None:
            return math.nan
        try:
            number = float(label)
        except (TypeError, ValueError):
            number = math.inf
        if math.isinf(number):
            raise ValueError(
                f"the label column {self.label_column!r} holds {label!r}, but a regression predicts finite numbers"
            )
        return number

    def _class(self, label: Any) -> int:
        if isinstance(label, (bool, np.bool_)) or getattr(label, "dtype", None) == torch.bool:
            raise ValueError(
                f"the label column {self.label_column!r} holds {label}, a boolean: give the number of a class"
            )
        if isinstance(label, float) and not label.is_integer():
            raise ValueError(
                f"the label column {self.label_column!r} holds {label}, which is no class: to predict numbers, build "
                "the model with num_labels=1 (--problem_type regression)"
            )
        number = int(label)
        beyond = self.num_labels is not None and number >= self.num_labels
        if beyond or (number < 0 and number != UNLABELLED):
            most = "" if self.num_labels is None else f" to {self.num_labels - 1}"
            raise ValueError(
                f"the label column {self.label_column!r} holds {number}, but classes are 0{most}; rows without a "
                f"class have the label {UNLABELLED}: leave out rows with hidden labels, or raise num_labels"
            )
        return number


def vector_of(row: Mapping[str, Any], columns: Sequence[str], modality: str) -> list[float] | None:
    """Return the numbers of several columns as one vector; None if all of them are empty.

    Raises:
        ValueError: for a column that is not a number, or empty if others are not.
    """
    vector = [row[column] for column in columns]
    if all(value is None for value in vector):
        return None
    for column, value in zip(columns, vector, strict=True):
        if value is None:
            raise ValueError(
                f"modality {modality!r}: the column {column!r} is empty in a row where others of {', '.join(columns)} "
                "are not: fill it in, or empty all of them where a sample lacks the modality"
            )
        if not isinstance(value, Real) and not (isinstance(value, Tensor) and value.ndim == 0):
            raise ValueError(
                f"modality {modality!r}: the column {column!r} holds {value!r}, but only columns with one number make "
                "a vector: turn categories into numbers first"
            )
    return [float(value) for value in vector]


def _is_list(label: Any) -> bool:
    return isinstance(label, (list, tuple)) or getattr(label, "ndim", 0) == 1
