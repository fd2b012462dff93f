"""The parts of a run's data: what is trained on, what is held out to diagnose, and when the latter joins training."""

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset, Sampler

from hf_relearn.relearning.labels import LABEL_NAMES, hold_out, is_stream
from hf_relearn.relearning.schedule import RelearnSchedule
from hf_relearn.training.arguments import RelearnTrainingArguments


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


logger = logging.getLogger(__name__)


def divide(
    args: RelearnTrainingArguments, train_dataset: Any, eval_dataset: Any, names: Sequence[str] = LABEL_NAMES
) -> tuple[Any, Any]:
    """(training part, diagnosing part or None), as the arguments say; `names` are the columns to look for labels in.

    Raises:
        ValueError: if the evaluation set is to serve but there is none, or several.
    """
    if args.diagnosis_source == "eval":
        if eval_dataset is None or isinstance(eval_dataset, dict):
            found = "none" if eval_dataset is None else f"several ({', '.join(eval_dataset)})"
            raise ValueError(
                f"--diagnosis_source eval needs one evaluation set, and there is {found}: give one, or use "
                "--diagnosis_source holdout"
            )
        return train_dataset, eval_dataset
    if args.diagnosis_fraction == 0:
        return train_dataset, None
    training, diagnosing = hold_out(train_dataset, args.diagnosis_fraction, args.seed, names)
    logger.info("%d of %d training samples are held out as the diagnosing part", len(diagnosing), len(train_dataset))
    return training, diagnosing


def with_return(args: RelearnTrainingArguments, train_dataset: Any, diagnosis_dataset: Any) -> Any:
    """The training part, to which the diagnosing part is joined for after the last point, if that is asked for.

    Raises:
        ValueError: if there is no diagnosing part, or the training set is a stream.
    """
    if not args.diagnosis_return or train_dataset is None:
        return train_dataset
    if diagnosis_dataset is None:
        raise ValueError("--diagnosis_return has nothing to give back: raise --diagnosis_fraction above 0")
    if is_stream(train_dataset):
        raise ValueError("--diagnosis_return cannot join samples to a stream: give a map-style training set")
    return ReturningDataset(train_dataset, diagnosis_dataset)


def return_epoch(args: RelearnTrainingArguments, train_size: int, batch_size: int) -> int | None:
    """The first epoch that starts at or after the last point; None if no point comes.

    Args:
        args: of the run.
        train_size: samples of an epoch.
        batch_size: of one process.
    """
    round_batches = math.floor if args.dataloader_drop_last else math.ceil
    batches = round_batches(train_size / (batch_size * args.world_size))
    steps_per_epoch = max(1, math.ceil(batches / args.gradient_accumulation_steps))
    num_steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_per_epoch)
    schedule = RelearnSchedule(
        args.relearn_strategy,
        args.relearn_interval,
        args.relearn_max_times,
        num_epochs=math.ceil(num_steps / steps_per_epoch),
        num_steps=num_steps,
    )
    points = schedule.planned()
    if not points:
        return None
    return points[-1] if args.relearn_strategy == "epoch" else math.ceil(points[-1] / steps_per_epoch)
