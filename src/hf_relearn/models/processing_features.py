"""Prepare features that were extracted already (vectors or sequences of numbers) as a backbone's inputs."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .processing_augmentation import Augmentation
from .processing_sources import RawValueError


class FeaturesInput:
    """Vectors (input size,) or sequences (steps, input size), as lists, arrays or tensors.

    Args:
        input_size: width of a vector.
        max_steps: longer sequences are cut after this many steps; None does not cut.
        mean, std: what to subtract from every dimension and to divide it by then, each of length `input_size`;
            `FeaturesInput.statistics` finds them on the training split. None leaves values as they are.

    Raises:
        ValueError: for a mean or deviation of another length, or a deviation that is not positive.
    """

    type: ClassVar[str] = "features"

    def __init__(
        self,
        input_size: int,
        max_steps: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        for name, numbers in (("mean", mean), ("std", std)):
            if numbers is not None and len(numbers) != input_size:
                raise ValueError(f"{name} has {len(numbers)} numbers, but the input size is {input_size}")
        if std is not None and not all(number > 0 for number in std):
            raise ValueError(f"std has {min(std)}, but it divides: a deviation is above 0")
        self.input_size = input_size
        self.max_steps = max_steps
        self.mean = None if mean is None else [float(number) for number in mean]
        self.std = None if std is None else [float(number) for number in std]
        self.settings = {"input_size": input_size, "max_steps": max_steps, "mean": self.mean, "std": self.std}

    @staticmethod
    def statistics(values: Iterable[Any]) -> dict[str, list[float]]:
        """Return the mean and deviation of every dimension over all steps of all samples, for the training split.

        Args:
            values: vectors or sequences of one width; None for samples without the modality, which do not count.

        Returns:
            `mean` and `std` (1 if a dimension is constant), as the arguments of this class.

        Raises:
            RawValueError: for values that are not finite numbers, of different widths, or none at all.
        """
        count, total, squares = 0, np.zeros(0), np.zeros(0)
        for row, value in enumerate(values):
            if value is None:
                continue
            steps = np.atleast_2d(_numbers(value, row)).astype(np.float64)
            if not count:
                total, squares = np.zeros(steps.shape[1]), np.zeros(steps.shape[1])
            if steps.shape[1] != len(total):
                raise RawValueError(f"row {row} has vectors of width {steps.shape[1]}, those before {len(total)}")
            count += len(steps)
            total += steps.sum(axis=0)
            squares += (steps**2).sum(axis=0)
        if not count:
            raise RawValueError("there are no values to find a mean of")
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0))
        constant = std <= 1e-6 * np.abs(mean)  # what rounding leaves of 0
        return {"mean": mean.tolist(), "std": np.where(constant, 1.0, std).tolist()}

    def __call__(self, values: Sequence[Any], augmentation: Augmentation | None = None) -> dict[str, Tensor]:
        """Return `feature_values`, float32: (batch, input size) for vectors; for sequences (batch, steps, input size),
        padded with zeros, and `attention_mask` (batch, steps), int64, 1 for what is not padding. Nothing is augmented.

        Raises:
            RawValueError: for values that are not finite numbers, of another width, or vectors beside sequences.
        """
        arrays = [self._array(value, row) for row, value in enumerate(values)]
        if len({array.ndim for array in arrays}) > 1:
            raise RawValueError("the batch has vectors beside sequences: give a vector as a sequence of one step")
        if arrays[0].ndim == 1:
            return {"feature_values": torch.from_numpy(np.stack(arrays))}
        lengths = torch.tensor([len(array) for array in arrays])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        feature_values = torch.zeros(*mask.shape, self.input_size)
        feature_values[mask] = torch.from_numpy(np.concatenate(arrays))
        return {"feature_values": feature_values, "attention_mask": mask.long()}

    def _array(self, value: Any, row: int) -> np.ndarray:
        array = _numbers(value, row)
        if array.shape[-1] != self.input_size:
            raise RawValueError(
                f"row {row} of the batch has the shape {array.shape}, but needs ({self.input_size},) or "
                f"(steps, {self.input_size})"
            )
        array = array if array.ndim == 1 else array[: self.max_steps]
        if self.mean is not None:
            array = array - np.asarray(self.mean, dtype=np.float32)
        return array if self.std is None else array / np.asarray(self.std, dtype=np.float32)


def _numbers(value: Any, row: int) -> np.ndarray:
    """Return one sample as float32, (width,) or (steps, width); a single number is a vector of width 1."""
    if isinstance(value, Tensor):
        value = value.detach().float().cpu().numpy()
    try:
        given = np.atleast_1d(np.asarray(value))
    except ValueError as error:  # rows of different lengths
        raise RawValueError(f"row {row} of the batch is no vector or sequence of vectors ({error})") from error
    if given.size == 0 or given.ndim > 2:
        raise RawValueError(
            f"row {row} of the batch has the shape {given.shape}: give a vector or a sequence of vectors, or None "
            "where a sample has none"
        )
    if given.dtype.kind not in "fiub":
        raise RawValueError(
            f"row {row} of the batch holds {str(value)[:60]!r}, but features are numbers: turn text and categories "
            "into numbers, and fill in what is empty"
        )
    with np.errstate(over="ignore"):
        array = given.astype(np.float32)
    if not np.isfinite(array).all():
        where = tuple(int(axis[0]) for axis in np.nonzero(~np.isfinite(array)))
        raise RawValueError(
            f"row {row} of the batch holds {given[where]} at index {', '.join(map(str, where))}, which is no finite "
            "number: fill it in first"
        )
    return array
