"""Measure how well features predict numbers, leaving one out: targets of a regression in place of classes."""

from typing import Any

import numpy as np
import torch

from hf_relearn.method.samples import UNLABELLED, Spread, diagnosed_rows, feature_matrix, filled_vector, measure_spread
from hf_relearn.method.separability import LEARNT, Separability
from hf_relearn.method.separators import PENALTIES, RIDGE_MOST, Components, RidgeFit, Standardised, one_thread

_STRATA = 10
# Standard errors by which a regression has to predict the training part better than its mean does.
_SURE = 2.0


def number_vector(numbers: Any, name: str = "targets") -> np.ndarray:
    """Turn target numbers into a vector, without changing the input.

    Args:
        numbers: shape (n,), n >= 1, NaN for a sample without one: tensor, array or sequence.
        name: what to call them in an error message.

    Returns:
        A float64 array of shape (n,).

    Raises:
        ValueError: not one-dimensional, empty, not numbers, or infinite.
    """
    if isinstance(numbers, torch.Tensor):
        numbers = numbers.detach().double().cpu().numpy()
    vector = filled_vector(numbers, name, "number")
    if vector.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be numbers, but the type is {vector.dtype}")
    vector = vector.astype(np.float64)
    if infinite := int(np.isinf(vector).sum()):
        raise ValueError(f"{name}: {infinite} of {len(vector)} are infinite; NaN marks a sample without a target")
    return vector


def quantile_strata(targets: np.ndarray, count: int = _STRATA) -> np.ndarray:
    """Divide numbers into strata of about equal size, whose shares a draw can keep as it keeps those of classes.

    Args:
        targets: (n,) numbers, NaN for a sample without one.
        count: of the strata at most; equal numbers share a stratum.

    Returns:
        (n,) int64, the higher the larger the number; -100 where it is NaN.
    """
    strata = np.full(len(targets), UNLABELLED)
    known = ~np.isnan(targets)
    if known.any():
        edges = np.unique(np.quantile(targets[known], np.arange(1, count) / count))
        strata[known] = np.searchsorted(edges, targets[known], side="right")
    return strata


def r_squared(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Return the share of the targets' variance that is predicted: 1 − Σ (y − ŷ)² / Σ (y − mean)².

    Args:
        predictions: (n,) numbers.
        targets: (n,) numbers in the same unit, NaN where there is none; these samples do not count.

    Returns:
        At most 1, and 0 for targets that are all the same, of which nothing is known; NaN without any target.
    """
    known = ~np.isnan(targets)
    if not known.any():
        return float("nan")
    wanted, found = targets[known].astype(np.float64), predictions[known].astype(np.float64)
    total = float(((wanted - wanted.mean()) ** 2).sum())
    return 1 - float(((wanted - found) ** 2).sum()) / total if total > 0 else 0.0


def numbers_separability(
    train_features: Any,
    train_targets: Any,
    val_features: Any,
    val_targets: Any,
    *,
    max_samples: int | None = None,
    seed: int = 0,
) -> Separability:
    """Measure how well one modality's features predict a number in training and on held-out samples.

    A ridge regression on the standardised features is fitted to the training part. Every training sample is predicted
    without itself. Every held-out sample is predicted without the training sample whose target is nearest to its own,
    so that both parts compare. The measure is R²: 1 less the squared error over that of the mean target, which leaves
    the same sample out. The training part chooses the penalty and the scale of the predictions. Where no regression
    surely predicts it better than its mean, the mean is the prediction, whose R² is 0; so features that know nothing
    have R² 0 in both parts.

    Args:
        train_features: of the samples trained on, shape (n_train, d): a tensor or an array.
        train_targets: their numbers, shape (n_train,); samples with NaN are left out.
        val_features: of held-out samples, shape (n_val, d).
        val_targets: their numbers, shape (n_val,).
        max_samples: if given, at most so many held-out samples and at least twice as many training samples are
            looked at, drawn from strata of the targets.
        seed: of that draw.

    Returns:
        A `Separability` whose `train` and `val` are R², `chance` is 0, `num_classes` is 0, and whose scores are the
        predictions, in the targets' unit.

    Raises:
        NonFiniteFeaturesError: NaN or infinity in the features.
        ValueError: the parts do not fit together, all targets of the training part are the same, or one part is empty.
    """
    train, val = feature_matrix(train_features, "training part"), feature_matrix(val_features, "diagnosing part")
    y, z = number_vector(train_targets), number_vector(val_targets)
    for part, matrix, numbers in (("training", train, y), ("diagnosing", val, z)):
        if len(matrix) != len(numbers):
            raise ValueError(f"{part} part: {len(matrix)} features but {len(numbers)} targets")
    rows = numbers_rows(y, z, max_samples=max_samples, seed=seed)
    return measure_numbers(train, y, val, z, *rows, measure_spread(train, rows[0]))


def numbers_rows(
    train_targets: np.ndarray,
    val_targets: np.ndarray,
    *,
    max_samples: int | None = None,
    enough: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Decide which samples of both parts are diagnosed, by strata of their targets; see `diagnosed_rows`.

    Raises:
        ValueError: all targets of a part are NaN.
    """
    for part, targets in (("training", train_targets), ("diagnosing", val_targets)):
        if np.isnan(targets).all():
            raise ValueError(f"all {len(targets)} targets of the {part} part are NaN, so nothing can be compared")
    return diagnosed_rows(
        quantile_strata(train_targets),
        quantile_strata(val_targets),
        estimator="separability",
        max_samples=max_samples,
        enough=enough,
        seed=seed,
    )


def measure_numbers(
    train: np.ndarray,
    train_targets: np.ndarray,
    val: np.ndarray,
    val_targets: np.ndarray,
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    spread: Spread,
) -> Separability:
    """Measure the R² of checked features on given rows; `spread` is that of the training rows.

    Of more than 1024 dimensions at most 1024 training samples are looked at, drawn from strata of the targets.

    Raises:
        ValueError: dimensions that differ, fewer than three training samples, or targets that are all the same.
    """
    if train.shape[1] != val.shape[1]:
        raise ValueError(
            f"the training part has features of {train.shape[1]} dimensions, the diagnosing part of {val.shape[1]}: "
            "give features of the same encoder"
        )
    if min(len(train_rows), train.shape[1]) > RIDGE_MOST:
        targets = train_targets[train_rows]
        train_rows = train_rows[
            diagnosed_rows(*[quantile_strata(targets)] * 2, estimator="purity", max_samples=RIDGE_MOST)[0]
        ]
        spread = measure_spread(train, train_rows)
    y, z = train_targets[train_rows], val_targets[val_rows]
    if len(y) < 3 or y.min() == y.max():
        raise ValueError(
            f"the {len(y)} targets of the training part are {'too few' if len(y) < 3 else f'all {y[0]:g}'}, so there "
            "is nothing to predict: give samples with different numbers"
        )
    scale = float(y.std())
    center = float(y.mean())
    x, v = Standardised(train, train_rows, spread, 1), Standardised(val, val_rows, spread, 1)
    y, z = (y - center) / scale, (z - center) / scale
    partners = _partners(y, z)
    # The mean target without one training sample, which both parts leave out in the same way.
    means, val_means = -y / (len(y) - 1), -y[partners] / (len(y) - 1)
    weights = _shares_of(y, z)
    with one_thread():
        name, factor, predictor = _best(x, y, means, weights)
        predictions = means + factor * predictor.train(y)
        val_predictions = np.concatenate(
            [val_means[piece] + factor * predictor.val(v[piece], y, partners[piece]) for piece in v.pieces(len(z))]
        )
    s_train, train_variance = _r_squared(y, predictions, means, weights)
    s_val, val_variance = _r_squared(z, val_predictions, val_means, np.ones(len(z)))
    gap = s_train - s_val
    # As with classes, the gap itself is worth one sample: few samples that happen to agree prove little.
    variance = sum(
        (size * each + gap**2) / (size + 1) / size for size, each in ((len(y), train_variance), (len(z), val_variance))
    )
    train_scores, val_scores = np.full(len(train), np.nan), np.full(len(val), np.nan)
    train_scores[train_rows], val_scores[val_rows] = center + scale * predictions, center + scale * val_predictions
    error = float(np.sqrt(variance))
    return Separability(
        train=s_train,
        val=s_val,
        gap=gap,
        standard_error=error,
        chance=0.0,
        memorised=max(0.0, gap) / s_train if s_train >= LEARNT else 0.0,
        memorised_error=error / s_train if s_train >= LEARNT else 0.0,
        separator=name,
        train_size=len(y),
        val_size=len(z),
        num_classes=0,
        train_scores=train_scores,
        val_scores=val_scores,
    )


class _Predictor(RidgeFit):
    """A ridge regression whose predictions leave one training sample out.

    Predictions are relative to the mean target, which leaves the same sample out.
    """

    def _residuals(self, a: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return what a fit without each training sample leaves of its target."""
        return (y - a @ self._coefficients[:, 0]) / self.left_over(a)

    def train(self, y: np.ndarray) -> np.ndarray:
        size = self._components.size
        pieces = np.array_split(np.arange(size), -(-size // RIDGE_MOST))
        residuals = [self._residuals(self._components.of_train(rows), y[rows]) for rows in pieces]
        return y - np.concatenate(residuals) + y / (size - 1)

    def val(self, v: np.ndarray, y: np.ndarray, partners: np.ndarray) -> np.ndarray:
        b, a = self._components.of(v), self._components.of_train(partners)
        left_out = self.influence(a, b) * self._residuals(a, y[partners])
        return b @ self._coefficients[:, 0] - left_out + y[partners] / (self._components.size - 1)


class _Mean:
    """Predict the mean target: the features say nothing."""

    def train(self, y: np.ndarray) -> np.ndarray:
        return np.zeros(len(y))

    def val(self, v: np.ndarray, y: np.ndarray, partners: np.ndarray) -> np.ndarray:
        return np.zeros(len(v))


def _best(
    x: Standardised, y: np.ndarray, means: np.ndarray, weights: np.ndarray
) -> tuple[str, float, _Predictor | _Mean]:
    """Return the name, the factor of the predictions and the predictor whose R² on the training part is largest."""
    best: tuple[float, str, float, _Predictor | _Mean] = (0.0, "mean", 1.0, _Mean())
    sums = sum((y[piece] @ x[piece] for piece in x.pieces(len(x))), np.zeros(x.width))
    if not sums.any():  # all features are the same
        return best[1:]
    components = Components(x, sums[None], np.zeros(1, dtype=np.int64))
    for penalty in PENALTIES:
        predictor = _Predictor(components, penalty)
        guesses, targets = predictor.train(y), y - means
        factor = float((weights * guesses * targets).sum()) / max(float((weights * guesses**2).sum()), 1e-30)
        r_squared, variance = _r_squared(y, means + max(0.0, factor) * guesses, means, weights)
        if r_squared > best[0] and r_squared > _SURE * (variance / len(y)) ** 0.5:
            best = r_squared, predictor.name, factor, predictor
    return best[1:]


def _r_squared(
    targets: np.ndarray, predictions: np.ndarray, means: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    """Return R² over the mean as a predictor, and the variance of a sample's part in it."""
    errors, spread = weights * (targets - predictions) ** 2, weights * (targets - means) ** 2
    total = max(float(spread.mean()), 1e-30)
    ratio = float(errors.mean()) / total
    return 1 - ratio, float((((errors - ratio * spread) / total) ** 2).mean())


def _partners(y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return the training sample without which each held-out sample is predicted: the one with the nearest target.

    Among equal targets they are taken in turn.
    """
    order = np.argsort(y, kind="stable")
    ranked = y[order]
    above = np.clip(np.searchsorted(ranked, z), 1, len(y) - 1)
    nearest = np.where(z - ranked[above - 1] <= ranked[above] - z, ranked[above - 1], ranked[above])
    first, last = np.searchsorted(ranked, nearest, side="left"), np.searchsorted(ranked, nearest, side="right")
    turn = np.argsort(np.argsort(nearest, kind="stable"))
    turn -= np.searchsorted(np.sort(nearest), nearest)
    return order[first + turn * 7919 % (last - first)]


def _shares_of(y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return weights of the training samples under which their targets are spread as those held out."""
    edges = np.unique(np.quantile(y, np.arange(1, _STRATA) / _STRATA))
    own, held_out = np.searchsorted(edges, y, side="right"), np.searchsorted(edges, z, side="right")
    counts, wanted = (np.bincount(each, minlength=len(edges) + 1) for each in (own, held_out))
    weights = (wanted / np.maximum(counts, 1))[own]
    return weights * len(y) / weights.sum() if weights.any() else np.ones(len(y))
