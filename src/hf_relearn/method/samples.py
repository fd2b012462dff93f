"""Checked arrays of labels and features, and seeded draws that keep the share of every class."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

Estimator = Literal["purity", "separability"]
Sampling = Literal["all", "matched"]

# The label of samples without one, as torch's losses have it.
UNLABELLED = -100
# Numbers that are read at a time; they stay in a processor's cache.
_PIECE = 2**16
# Outliers leave all samples but this share within this share of a dimension's range.
_OUTLIERS, _BIN = 0.01, 0.001
# Of fewer samples it is not said that one is an outlier.
_FEWEST = 20


class NonFiniteFeaturesError(ValueError):
    """Features hold NaN or infinite values, so nothing can be clustered or fitted on them."""


def filled_vector(values: Any, name: str, what: str) -> np.ndarray:
    """Turn values into a vector that is not empty; `what` names one of them in an error message."""
    vector = np.asarray(values)
    if vector.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, one {what} per sample, but the shape is {vector.shape}")
    if len(vector) == 0:
        raise ValueError(f"{name} must hold at least one sample, but there is none")
    return vector


def label_vector(labels: Any, name: str = "labels") -> np.ndarray:
    """Turn class or cluster names into a vector of integers, without changing the input.

    Args:
        labels: integers (any, also negative ones) or booleans, shape (n,), n >= 1: tensor, array or sequence.
        name: what to call them in an error message.

    Returns:
        An integer array of shape (n,); the caller's own memory if no conversion was needed.

    Raises:
        ValueError: not one-dimensional, empty, or not integers.
    """
    if isinstance(labels, torch.Tensor):
        labels = labels.detach().cpu().numpy()
    vector = filled_vector(labels, name, "integer")
    if vector.dtype.kind not in "iub":
        raise ValueError(f"{name} must be integers, but the type is {vector.dtype}; map class names to integers first")
    return vector.astype(np.int64) if vector.dtype.kind == "b" else vector


def feature_matrix(features: Any, name: str = "features") -> np.ndarray:
    """Turn the features of one modality into a floating-point matrix of finite numbers.

    float32 and float64 keep their type, 16-bit floats become float32, integers become float64: the types in which
    scikit-learn scales and clusters.

    Args:
        features: shape (n, d), n >= 1, d >= 1: tensor of any device and float type, array or nested sequence.
        name: what to call them in an error message, e.g. "modality 'audio', training part".

    Returns:
        A float32 or float64 array of shape (n, d).

    Raises:
        NonFiniteFeaturesError: some samples hold NaN or infinity; says how many.
        ValueError: not two-dimensional, empty, or not numbers.
    """
    if isinstance(features, torch.Tensor):
        features = features.detach().cpu()
        if features.dtype not in (torch.float32, torch.float64):
            features = features.to(torch.float32 if features.is_floating_point() else torch.float64)
        features = features.numpy()
    matrix = np.asarray(features)
    if matrix.dtype.kind not in "fiub":
        raise ValueError(f"{name}: features must be numbers, but the type is {matrix.dtype}")
    if matrix.ndim != 2:
        raise ValueError(
            f"{name}: features must have the shape (samples, dimensions), but the shape is {matrix.shape}; "
            "pool or flatten each sample to one vector"
        )
    if matrix.size == 0:
        raise ValueError(f"{name}: features are empty, the shape is {matrix.shape}")
    if matrix.dtype not in (np.float32, np.float64):
        matrix = matrix.astype(np.float32 if matrix.dtype == np.float16 else np.float64)
    step = max(1, _PIECE // matrix.shape[1])
    affected = sum(
        int((~np.isfinite(matrix[start : start + step]).all(axis=1)).sum()) for start in range(0, len(matrix), step)
    )
    if affected:
        raise NonFiniteFeaturesError(
            f"{name}: features of {affected} of {len(matrix)} samples ({affected / len(matrix):.1%}) are NaN or "
            "infinite; lower the learning rate or leave half precision, and check the inputs of that modality"
        )
    return matrix


@dataclass(frozen=True)
class Spread:
    """Range, mean and standard deviation of each dimension, shape (d,) each, in float64.

    An outlier counts as the outermost value of the others; `outliers` says in which dimensions there are any.
    A dimension that varies by no more than rounding does has the deviation 0.
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    outliers: np.ndarray

    @property
    def dead(self) -> bool:
        """Whether every dimension is constant."""
        return not self.deviation.any()

    def clipped(self, values: np.ndarray) -> np.ndarray:
        """Return a copy in float64, moved into the range in dimensions with outliers."""
        copy = values.astype(np.float64)
        columns = np.flatnonzero(self.outliers)
        if len(columns):
            copy[:, columns] = np.clip(copy[:, columns], self.low[columns], self.high[columns])
        return copy


def measure_spread(matrix: np.ndarray, rows: np.ndarray) -> Spread:
    """Measure the spread of each dimension over some rows, outliers set aside.

    A dimension has outliers if at most a hundredth of its samples (or one sample) lies outside a thousandth of its
    range around the median, and those inside are not all the same (a feature that few samples have is no outlier).
    """
    spread = _plain_spread(matrix, rows, np.finfo(matrix.dtype).eps)
    # So few samples so far away lie about 10 standard deviations from the mean, one of n lies the root of n from it.
    reach = np.maximum(spread.high - spread.mean, spread.mean - spread.low)
    farthest = 0.9 * min(10.0, (len(rows) - 1) ** 0.5)
    for column in np.flatnonzero(reach > farthest * spread.deviation) if len(rows) >= _FEWEST else ():
        values = matrix[rows, column].astype(np.float64)
        while (inside := _without_outliers(values)) is not None:
            values = np.clip(values, inside[0], inside[1])
            spread.outliers[column] = True
        if spread.outliers[column]:
            spread.low[column], spread.high[column] = values.min(), values.max()
            spread.mean[column], spread.deviation[column] = values.mean(), values.std()
    return spread


def _plain_spread(matrix: np.ndarray, rows: np.ndarray, precision: float) -> Spread:
    """Return the spread with outliers, a piece at a time."""
    width = matrix.shape[1]
    step = max(1, _PIECE // width)
    pieces = [rows[start : start + step] for start in range(0, len(rows), step)]
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    for piece in pieces:
        values = matrix[piece]
        low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
    span = np.where(high > low, high - low, 1.0)
    sums, squares = np.zeros(width), np.zeros(width)
    for piece in pieces:
        values = matrix[piece].astype(np.float64)
        values -= low
        values /= span
        sums += values.sum(axis=0)
        squares += np.einsum("ij,ij->j", values, values)
    mean = sums / len(rows)
    deviation = span * np.sqrt(np.maximum(squares / len(rows) - mean**2, 0.0))
    mean = low + span * mean
    deviation[deviation <= 8 * precision * np.abs(mean)] = 0.0
    return Spread(low, high, mean, deviation, np.zeros(width, dtype=bool))


def _without_outliers(values: np.ndarray) -> tuple[float, float] | None:
    """Return the range of the values that are not outliers; None if there is not one."""
    near = np.abs(values - np.median(values)) <= _BIN / 2 * (values.max() - values.min())
    if near.all() or (~near).sum() > max(1, _OUTLIERS * len(values)):
        return None
    low, high = float(values[near].min()), float(values[near].max())
    return (low, high) if high > low else None


def diagnosed_rows(
    train_labels: np.ndarray,
    val_labels: np.ndarray,
    *,
    estimator: Estimator,
    sampling: Sampling = "all",
    max_samples: int | None = None,
    enough: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Decide which samples of the training part and of the held-out part are diagnosed.

    Samples with the label -100 have no class and are left out. `max_samples` bounds both parts by a stratified draw.
    For the separability the training part keeps at least twice as many samples as the held-out part, and 20 of each
    class that has so many; `enough` draws no more of them than these rules ask for. For the purity,
    `sampling="matched"` draws no more training samples than diagnosing ones.

    Returns:
        Sorted positions in the training part, and in the held-out part.

    Raises:
        ValueError: one part has no labelled sample, or `max_samples` is below 1.
    """
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"max_samples must be at least 1, but is {max_samples}")
    labelled = {}
    for part, labels in (("training", train_labels), ("diagnosing", val_labels)):
        labelled[part] = np.flatnonzero(labels != UNLABELLED)
        if len(labelled[part]) == 0:
            raise ValueError(f"all {len(labels)} labels of the {part} part are -100, which is no class: give labels")
    train, val = labelled.values()
    val_size = min(len(val), max_samples or len(val))
    train_size = min(len(train), max_samples or len(train))
    if estimator == "separability" and (max_samples or enough) is not None:
        train_size = min(len(train), max(max_samples or enough or 0, 2 * val_size))
    if estimator == "purity" and sampling == "matched":
        train_size = min(train_size, val_size)
    if train_size < len(train):
        names = train_labels[train]
        least = 20 if estimator == "separability" else 0
        train = train[stratified_indices(names, train_size, seed, least=least)]
    if val_size < len(val):
        val = val[stratified_indices(val_labels[val], val_size, seed)]
    return train, val


def stratified_indices(labels: Any, size_or_fraction: int | float, seed: int = 0, *, least: int = 0) -> np.ndarray:
    """Draw samples without replacement so that every class keeps its share (largest remainder).

    Args:
        labels: class of each sample, integers of shape (n,).
        size_or_fraction: an integer is the number of samples to draw, 1 to n; a float is the fraction of them, in
            (0, 1], rounded to the nearest number of samples.
        seed: of a generator of its own, >= 0; no global generator is used.
        least: drawn of each class that has so many, even if the size is exceeded by it.

    Returns:
        Sorted positions, int64, exactly as many as asked for unless `least` adds some. A class gets its share rounded
        down or up; which of equally entitled classes are rounded up is drawn.

    Raises:
        ValueError: a size or fraction out of range, or one that amounts to no sample; wrong labels.
    """
    names = label_vector(labels)
    if isinstance(size_or_fraction, int | np.integer):
        size = int(size_or_fraction)
        if not 1 <= size <= len(names):
            raise ValueError(f"cannot draw {size} of {len(names)} samples: the size must be in 1 to {len(names)}")
    else:
        size = _fraction_to_size(size_or_fraction, len(names), "fraction", allow_all=True)
    classes, counts = np.unique(names, return_inverse=True, return_counts=True)[1:]
    generator = np.random.default_rng(seed)
    shares = _proportional_shares(counts, counts, size, generator)
    return _draw(classes, np.maximum(shares, np.minimum(counts, least)), generator)


def stratified_split(labels: Any, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split samples into those that stay in training and a stratified part that is held out.

    Every class keeps at least one sample in training, so a class with a single sample is never held out.

    Args:
        labels: class of each sample, integers of shape (n,).
        fraction: of all samples that is held out, in (0, 1), rounded to the nearest number of samples.
        seed: of a generator of its own, >= 0; no global generator is used.

    Returns:
        (kept, held out): sorted int64 positions, disjoint, together all n.

    Raises:
        ValueError: the fraction is out of range, amounts to no sample, or to more than can be spared; wrong labels.
    """
    names = label_vector(labels)
    size = _fraction_to_size(fraction, len(names), "fraction to hold out", allow_all=False)
    classes, counts = np.unique(names, return_inverse=True, return_counts=True)[1:]
    spare = counts - 1
    if size > spare.sum():
        raise ValueError(
            f"cannot hold out {size} of {len(names)} samples: only {spare.sum()} can be spared, because each of the "
            f"{len(counts)} classes keeps a sample in training; lower the fraction or give a set of its own"
        )
    generator = np.random.default_rng(seed)
    shares = _proportional_shares(np.where(spare > 0, counts, 0), spare, size, generator)
    held_out = _draw(classes, shares, generator)
    return np.setdiff1d(np.arange(len(names)), held_out, assume_unique=True), held_out


def _fraction_to_size(fraction: float, total: int, name: str, *, allow_all: bool) -> int:
    interval = "(0, 1]" if allow_all else "(0, 1)"
    if not (0 < fraction < 1 or (allow_all and fraction == 1)):
        raise ValueError(f"the {name} must be a number in {interval}, but is {fraction!r}")
    size = round(float(fraction) * total)
    if size == 0:
        raise ValueError(f"a {name} of {fraction} of {total} samples amounts to no sample; raise it")
    return size


def _proportional_shares(
    weights: np.ndarray, capacity: np.ndarray, size: int, generator: np.random.Generator
) -> np.ndarray:
    """Return whole shares of `size` in proportion to `weights`, none above `capacity`, by largest remainder."""
    total = int(weights.sum())
    shares = np.minimum(weights * size // total, capacity)
    remainders = weights * size % total
    ties = generator.permutation(len(weights))
    while (left := size - int(shares.sum())) > 0:
        order = np.lexsort((ties, -remainders))
        open_classes = order[shares[order] < capacity[order]][:left]
        shares[open_classes] += 1
    return shares


def _draw(classes: np.ndarray, shares: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the positions of the first `shares[c]` samples of each class c in a random order of all samples."""
    shuffled = generator.permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    counts = np.bincount(classes, minlength=len(shares))
    rank_in_class = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[rank_in_class < np.repeat(shares, counts)])
