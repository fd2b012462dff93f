"""From rows of a data set to a batch: the processor applied to the columns of each modality."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from hf_relearn.models import Augmentation, MultimodalProcessor


@dataclass(frozen=True)
class MultimodalCollator:
    """Data collator of a fusion model.

    `MultimodalRelearnTrainer` augments training batches only: for evaluation and diagnosis it calls
    `without_augmentation`. In another trainer, give training the collator and evaluation `without_augmentation()`.

    Args:
        processor: turns raw values into the model's inputs.
        columns: modality -> column of the data set; unset, columns are named like the modalities.
        label_column: column with integer labels; rows without it give a batch without labels.
        augmentation: what training batches get; None for none.
    """

    processor: MultimodalProcessor
    columns: Mapping[str, str] | None = None
    label_column: str = "label"
    augmentation: Augmentation | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return `{modality}_{argument}` tensors and, where rows have labels, `labels` of shape (batch,), int64.

        Raises:
            KeyError: if a modality's column is missing.
        """
        columns = self.columns or {name: name for name in self.processor.inputs}
        for name, column in columns.items():
            if column not in rows[0]:
                raise KeyError(
                    f"the data set has no column {column!r} for the modality {name!r}; it has {', '.join(rows[0])} "
                    "(with a stock Trainer, set remove_unused_columns=False so that raw columns reach the collator)"
                )
        values = {name: [row[column] for row in rows] for name, column in columns.items()}
        batch = dict(self.processor(values, self.augmentation))
        if self.label_column in rows[0]:
            batch["labels"] = torch.tensor([int(row[self.label_column]) for row in rows])
        return batch

    def without_augmentation(self) -> "MultimodalCollator":
        """The same collator for evaluation."""
        return replace(self, augmentation=None)


def without_augmentation(collate_fn: Callable[[list], Any]) -> Callable[[list], Any]:
    """A collate function as evaluation needs it: one that cannot leave augmentation out is given back as it is."""
    plain = getattr(collate_fn, "without_augmentation", None)
    return plain() if plain else collate_fn
