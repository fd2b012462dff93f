"""Giving the diagnosing part back to training after the last re-learning point."""

from collections.abc import Iterator

import torch
from torch.utils.data import ConcatDataset, Dataset, Sampler


class ReturningSampler(Sampler[int]):
    """Random order of the training part, and from some epoch on a draw of as many samples from both parts.

    The number of steps in an epoch, and so the learning-rate schedule, stays as it was. The order depends on seed and
    epoch only, so a resumed run draws what the uninterrupted one would have drawn.

    Args:
        train_size, diagnosis_size: samples of the two parts, which lie one after the other in the data set.
        return_epoch: first epoch that draws from both; None for never.
        seed: of the order.
    """

    def __init__(self, train_size: int, diagnosis_size: int, return_epoch: int | None, seed: int):
        self.train_size = train_size
        self.diagnosis_size = diagnosis_size
        self.return_epoch = return_epoch
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's data loader at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.train_size

    def __iter__(self) -> Iterator[int]:
        returned = self.return_epoch is not None and self.epoch >= self.return_epoch
        pool = self.train_size + self.diagnosis_size if returned else self.train_size
        # One seed per epoch of this run; nearby seeds of other runs stay far away.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(torch.randperm(pool, generator=generator)[: self.train_size].tolist())


class ReturningDataset(ConcatDataset):
    """Training and diagnosing part, one after the other, with the length of the training part alone."""

    def __init__(self, training: Dataset, diagnosing: Dataset):
        super().__init__([training, diagnosing])
        self.train_size = len(training)  # type: ignore[arg-type]
        self.diagnosis_size = len(diagnosing)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.train_size
