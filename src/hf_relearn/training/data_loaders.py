"""Data loaders whose random draws depend on the seed, the epoch and the batch alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_relearn.relearning.features import preserved_random_state, without_augmentation
from hf_relearn.relearning.labels import dataset_labels, is_stream
from hf_relearn.training.arguments import RelearnTrainingArguments
from hf_relearn.training.batches import UNLABELLED
from hf_relearn.training.targets import is_regression


class DataLoadingTrainer(Trainer):
    """The part of `MultimodalRelearnTrainer` that makes data loaders: seeded by batch, augmented in training only."""

    args: RelearnTrainingArguments
    _label_columns: Sequence[str]

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> torch.utils.data.Sampler | None:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        dataset = dataset.dataset if isinstance(dataset, SeededBatches) else dataset
        if self.args.train_sampling_strategy != "balanced":
            return super()._get_train_sampler(dataset)
        try:
            labels = dataset_labels(dataset, self._label_columns)
        except ValueError as error:
            raise ValueError(f"--train_sampling_strategy balanced cannot count the classes: {error}") from error
        return BalancedSampler(labels, self.args.seed if self.args.data_seed is None else self.args.data_seed)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | int | None:
        if is_regression(self.model):  # the Trainer counts labels other than -100, which is a number like any other
            batch_samples = [
                {"labels": torch.where(batch["labels"].isnan(), -100.0, 0.0)} if "labels" in batch else {}
                for batch in batch_samples
            ]
        return super()._get_num_items_in_batch(batch_samples, device)

    def get_train_dataloader(self) -> DataLoader:
        """Return the Trainer's data loader; if rows have numbers, random draws are seeded by batch."""
        dataset, collator = self.train_dataset, self.data_collator
        if (
            is_stream(dataset) or self.args.remove_unused_columns
        ):  # the Trainer removes columns on the way to the collator
            return super().get_train_dataloader()
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        self.train_dataset, self.data_collator = SeededBatches(dataset, collator, seed), as_it_is
        try:
            loader = super().get_train_dataloader()
        finally:
            self.train_dataset, self.data_collator = dataset, collator
        return _with_generator(loader)

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        with self._without_augmentation():
            return _with_generator(super().get_eval_dataloader(eval_dataset))

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        with self._without_augmentation():
            return _with_generator(super().get_test_dataloader(test_dataset))

    @contextmanager
    def _without_augmentation(self) -> Iterator[None]:
        collator = self.data_collator
        self.data_collator = without_augmentation(collator)
        try:
            yield
        finally:
            self.data_collator = collator


def _with_generator(loader: DataLoader) -> DataLoader:
    """Give a data loader a generator of its own, for the seed of its workers.

    It would draw from torch's global generator, which dropout uses too: a run that is resumed between an evaluation
    and the next step, or in which persistent workers start later, would then draw other numbers.
    """
    getattr(loader, "base_dataloader", loader).generator = torch.Generator()
    return loader


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
        """Return the collated batch of these rows."""
        entropy = [self.seed, int(self._epoch), *indices]
        with preserved_random_state(int(np.random.SeedSequence(entropy).generate_state(1)[0]), devices=False):
            many = getattr(self.dataset, "__getitems__", None)
            return self.collate(many(indices) if many else [self.dataset[index] for index in indices])


class BalancedSampler(Sampler[int]):
    """Draw as many samples as there are, of each class as many as of the others.

    A sample comes again only when all others of its class have come. The order depends on the seed and the epoch
    alone, so that a resumed run and every process draw alike.

    Args:
        labels: (n,) classes; a sample with the label -100 is not drawn.
        seed: of the run.

    Raises:
        ValueError: if no sample has a class.
    """

    def __init__(self, labels: np.ndarray, seed: int):
        self.labels = labels
        self.seed = seed
        self.epoch = 0
        self._classes = [np.flatnonzero(labels == number) for number in np.unique(labels[labels != UNLABELLED])]
        if not self._classes:
            raise ValueError("--train_sampling_strategy balanced: no training sample has a class")

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, as data loaders do."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        share, rest = divmod(len(self.labels), len(self._classes))
        extra = set(rng.permutation(len(self._classes))[:rest].tolist())
        drawn: list[int] = []
        for place, rows in enumerate(self._classes):
            count = share + (place in extra)
            rounds = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
            drawn += np.concatenate(rounds)[:count].tolist() if rounds else []
        yield from rng.permutation(drawn).tolist()


class EpochCallback(TrainerCallback):
    """Tell `SeededBatches` the epoch; a data loader passes it on in some cases only."""

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
    """Return the collate function of a data loader over `SeededBatches`."""
    return batch
