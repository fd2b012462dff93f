"""Training batches whose random draws follow from seed, epoch and rows, wherever in an epoch a run is resumed."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_relearn.training.random_state import preserved_random_state


class SeededBatches(Dataset):
    """A data set that loads and collates whole batches, each under random generators seeded for this batch.

    A batch is asked for some time before it is trained on, and a run that is resumed in the middle of an epoch asks
    for its first batches before the Trainer restores the generators. Drawing from generators of its own, augmentation
    is the same there as in the uninterrupted run, in any number of worker processes, and leaves the generators that
    dropout draws from alone.

    Args:
        dataset: rows by index.
        collate: list of rows -> batch; what it and the data set draw from the generators of Python, NumPy and torch
            (CPU) is reproducible.
        seed: of the run.
    """

    def __init__(self, dataset: Any, collate: Callable[[list], Any], seed: int):
        self.dataset = dataset
        self.collate = collate
        self.seed = seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # worker processes may outlive an epoch

    def begin_epoch(self, epoch: int) -> None:
        """Tell which epoch the batches asked for from now on belong to."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """The collated batch of these rows."""
        entropy = [self.seed, int(self._epoch), *indices]
        with preserved_random_state(int(np.random.SeedSequence(entropy).generate_state(1)[0]), devices=False):
            many = getattr(self.dataset, "__getitems__", None)
            return self.collate(many(indices) if many else [self.dataset[index] for index in indices])


class EpochCallback(TrainerCallback):
    """Tells `SeededBatches` the epoch; a data loader passes it on in some cases only."""

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        dataset = getattr(train_dataloader, "dataset", None)
        if isinstance(dataset, SeededBatches):
            dataset.begin_epoch(int(state.epoch or 0))  # a run resumed in the middle of an epoch is at a broken one


def as_it_is(batch: Any) -> Any:
    """The collate function of a data loader over `SeededBatches`."""
    return batch
