"""Measure how well features tell classes apart, leaving one out, on training samples and on held-out ones."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_relearn.method.samples import Spread, diagnosed_rows, feature_matrix, label_vector, measure_spread
from hf_relearn.method.separators import Standardised, most_likely, one_thread, own_probability

# Below this separability over chance nothing has been learnt that could have been memorised.
LEARNT = 0.05


@dataclass(frozen=True)
class Separability:
    """Separability of one modality's features on the training part and on the held-out part.

    All values but the last two are plain Python numbers and text. `numbers_separability` says what they are for
    targets that are numbers.

    Attributes:
        train: mean probability of the own class over the training samples, each scored without itself.
        val: the same over the held-out samples, each scored without one training sample of its class.
        gap: `train - val`, signed; 0 is expected if nothing is over-fitted.
        standard_error: of the gap.
        chance: 1 / `num_classes`, the separability of features without information about the classes.
        memorised: share of what was learnt on the training part that does not hold on the held-out part.
        memorised_error: its standard error.
        separator: "centres" or "ridge PENALTY", the one that suits the training part best.
        train_size: number of training samples looked at.
        val_size: number of held-out samples looked at.
        num_classes: number of classes that occur in either part.
        train_scores: probability of the own class of each training sample, shape (n_train,). NaN if the class has no
            second training sample, or the sample was not looked at.
        val_scores: the same for the held-out samples, NaN if the class has fewer than two training samples.
    """

    train: float
    val: float
    gap: float
    standard_error: float
    chance: float
    memorised: float
    memorised_error: float
    separator: str
    train_size: int
    val_size: int
    num_classes: int
    train_scores: np.ndarray = field(compare=False, repr=False)
    val_scores: np.ndarray = field(compare=False, repr=False)


def separability(
    train_features: Any,
    train_labels: Any,
    val_features: Any,
    val_labels: Any,
    *,
    max_samples: int | None = None,
    seed: int = 0,
) -> Separability:
    """Measure how well one modality's features tell classes apart in training and on held-out samples.

    A closed-form separator of the training part, the nearest class centre or a ridge regression, gives each sample
    the probability of its own class. Every training sample is scored without itself. Every held-out sample is scored
    without one training sample of its class, so that both parts compare. Noise scores 1 / classes in both parts.
    The result depends neither on the scale of the dimensions, nor on the number of threads (one is used), nor on a
    global random generator.

    Args:
        train_features: of the samples trained on, shape (n_train, d): a tensor or an array.
        train_labels: their classes, any integers, shape (n_train,).
        val_features: of held-out samples, shape (n_val, d).
        val_labels: their classes, shape (n_val,).
        max_samples: if given, at most so many held-out samples and a stratified part of the training samples are
            looked at: as many, at least twice the held-out ones, and at least 20 of each class.
        seed: of that draw.

    Raises:
        NonFiniteFeaturesError: NaN or infinity in the features.
        ValueError: the parts do not fit together, or no class has two training samples and a held-out one.
    """
    train, val = feature_matrix(train_features, "training part"), feature_matrix(val_features, "diagnosing part")
    train_names, val_names = label_vector(train_labels), label_vector(val_labels)
    for part, matrix, names in (("training", train, train_names), ("diagnosing", val, val_names)):
        if len(matrix) != len(names):
            raise ValueError(f"{part} part: {len(matrix)} features but {len(names)} labels")
    rows = diagnosed_rows(train_names, val_names, estimator="separability", max_samples=max_samples, seed=seed)
    return measure_separability(train, train_names, val, val_names, *rows, measure_spread(train, rows[0]))


def measure_separability(
    train: np.ndarray,
    train_names: np.ndarray,
    val: np.ndarray,
    val_names: np.ndarray,
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    spread: Spread,
) -> Separability:
    """Measure the separability of checked features on given rows; `spread` is that of the training rows.

    Raises:
        ValueError: dimensions that differ, or no class has two training samples and a held-out one.
    """
    if train.shape[1] != val.shape[1]:
        raise ValueError(
            f"the training part has features of {train.shape[1]} dimensions, the diagnosing part of {val.shape[1]}: "
            "give features of the same encoder"
        )
    n = len(train_rows)
    classes, codes = np.unique(np.concatenate([train_names[train_rows], val_names[val_rows]]), return_inverse=True)
    y, z = codes[:n], codes[n:]
    k = len(classes)
    sizes = np.bincount(y, minlength=k)
    counted, val_counted = np.flatnonzero(sizes[y] >= 2), np.flatnonzero(sizes[z] >= 2)
    if len(val_counted) == 0:
        raise ValueError(
            f"not one of {k} classes has two training samples and a held-out one ({n} training samples, {len(z)} "
            "held-out ones), so nothing can be compared: give more samples of each class"
        )
    x = Standardised(train, train_rows, spread, k)
    # Only the rows that count are scored; all rows of the training part fit the separators.
    v = Standardised(val, val_rows[val_counted], spread, k)
    z = z[val_counted]
    partners = _partners(y, z, sizes)

    train_scores, val_scores = np.full(len(train), np.nan), np.full(len(val), np.nan)
    with one_thread():
        separator, temperature = most_likely(x, y, sizes, counted)
        for piece in x.pieces(len(counted)):
            scores = separator.train_scores(counted[piece], y[counted[piece]])
            train_scores[train_rows[counted[piece]]] = own_probability(scores, y[counted[piece]], temperature)
        for piece in v.pieces(len(z)):
            scores = separator.val_scores(v[piece], z[piece], partners[piece])
            val_scores[val_rows[val_counted[piece]]] = own_probability(scores, z[piece], temperature)
    found = train_scores[train_rows[counted]], val_scores[val_rows[val_counted]]

    weights = np.bincount(z, minlength=k) / len(z)
    s_train, s_val = (
        float((weights * _class_means(scores, codes, k)).sum())
        for scores, codes in zip(found, (y[counted], z), strict=True)
    )
    gap = s_train - s_val
    variance = sum(
        _error_variance(scores, codes, weights, gap) for scores, codes in zip(found, (y[counted], z), strict=True)
    )
    error, learnt = float(np.sqrt(variance)), s_train - 1 / k
    return Separability(
        train=s_train,
        val=s_val,
        gap=gap,
        standard_error=error,
        chance=1 / k,
        memorised=max(0.0, gap) / learnt if learnt >= LEARNT else 0.0,
        memorised_error=error / learnt if learnt >= LEARNT else 0.0,
        separator=separator.name,
        train_size=n,
        val_size=len(val_rows),
        num_classes=k,
        train_scores=train_scores,
        val_scores=val_scores,
    )


def _partners(y: np.ndarray, z: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the training sample of its own class without which each held-out sample is scored."""
    by_class, starts = np.argsort(y, kind="stable"), np.cumsum(sizes) - sizes
    order, counts = np.argsort(z, kind="stable"), np.bincount(z, minlength=len(sizes))
    place = np.empty(len(z), dtype=np.int64)
    place[order] = np.arange(len(z)) - np.repeat(np.cumsum(counts) - counts, counts)
    return by_class[starts[z] + place * 7919 % sizes[z]]


def _class_means(scores: np.ndarray, codes: np.ndarray, num_classes: int) -> np.ndarray:
    sums = np.bincount(codes, scores, minlength=num_classes)
    return sums / np.maximum(np.bincount(codes, minlength=num_classes), 1)


def _error_variance(scores: np.ndarray, codes: np.ndarray, weights: np.ndarray, gap: float) -> float:
    """Return the variance of a part's class-weighted mean."""
    n, counts = len(scores), np.bincount(codes, minlength=len(weights))
    within = float(((scores - _class_means(scores, codes, len(weights))[codes]) ** 2).sum())
    freedom = n - int(np.count_nonzero(counts))
    variance = within / max(freedom, 1)
    if freedom < n / 2:
        variance = max(variance, float(scores.var()))
    shrunk = (n * variance + gap**2) / (n + 1)
    return float(shrunk * (weights**2 / np.maximum(counts, 1)).sum())
