"""Data sets that are read from the beginning only: the samples of them that a diagnosis looks at."""

from itertools import islice
from typing import Any

from accelerate.data_loader import IterableDatasetShard
from torch.utils.data import IterableDataset

from hf_relearn.training.random_state import preserved_random_state

STREAM_SAMPLES = 2048


def is_stream(dataset: Any) -> bool:
    """Whether a data set can only be iterated: torch's or datasets' `IterableDataset`, or anything without rows."""
    return isinstance(dataset, IterableDataset) or not (
        hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    )


def first_rows(dataset: Any, bound: int | None, seed: int) -> list[Any]:
    """The first samples of a stream, read at once and kept in memory, so that every diagnosis sees the same ones.

    Reading leaves the random generators as they were. A stream that draws from them is read with `seed`, and a
    `datasets` stream in the order of its first epoch, so that a resumed run reads the same samples.

    Args:
        dataset: a stream; every iteration over it begins anew.
        bound: samples at most; None for 2048.
        seed: of all random generators meanwhile.

    Raises:
        ValueError: if the stream is its own iterator, so that what is read here would be lost to training.
    """
    if isinstance(dataset, IterableDatasetShard):
        dataset = dataset.dataset  # the whole stream, of which each process trains on a share
    with preserved_random_state(seed):
        iterator = iter(dataset)
        if iterator is dataset:
            raise ValueError(
                f"{type(dataset).__name__} is its own iterator, so samples read for a diagnosis would be lost to "
                "training: let __iter__ return a new iterator each time"
            )
        return list(islice(iterator, bound or STREAM_SAMPLES))
