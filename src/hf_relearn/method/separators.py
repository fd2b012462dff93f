"""Closed-form separators of a training part, whose scores of a sample leave one training sample out."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.linalg.blas import ssyrk
from threadpoolctl import ThreadpoolController

from hf_relearn.method.samples import Spread

# Numbers that are worked on at a time: 16 MB in float32; and those that stay in a processor's cache in float64.
_PIECE, _CACHED = 2**22, 2**16
PENALTIES = (0.01, 0.1, 1.0, 10.0)
# Ridge regressions are fitted up to so many samples or dimensions, the fewer of both.
RIDGE_MOST = 1024
_LIKELIHOOD_ROWS = 2000
_LEAST_LIKELIHOOD = 1e-30
# A dimension with a smaller share of the largest deviation is left out, an eigenvalue of the largest one too.
NEGLIGIBLE = 1e-6
# Standardised training values lie within the root of their number; held-out ones may be anything.
_FARTHEST = 1e6


@cache
def _thread_pools() -> ThreadpoolController:
    """Find the thread pools of NumPy and SciPy once, which takes some milliseconds."""
    return ThreadpoolController()


def one_thread() -> AbstractContextManager:
    """Compute in one thread meanwhile, so that results do not depend on how many there are."""
    return _thread_pools().limit(limits=1)


class Standardised:
    """Rows standardised by the spread of the training part, in float32, a piece at a time."""

    def __init__(self, matrix: np.ndarray, rows: np.ndarray, spread: Spread, num_classes: int):
        self._matrix, self._rows, self._spread = matrix, rows, spread
        with np.errstate(divide="ignore"):
            factors = 1 / spread.deviation
        self._factors = np.where(spread.deviation > NEGLIGIBLE * spread.deviation.max(), factors, 0.0)
        self.width = matrix.shape[1]
        self._piece = max(1, _PIECE // max(self.width, num_classes))
        self.in_one_piece = len(rows) <= self._piece
        self._whole = self._scaled(rows) if self.in_one_piece else None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, positions: Any) -> np.ndarray:
        return self._scaled(self._rows[positions]) if self._whole is None else self._whole[positions]

    def pieces(self, size: int) -> Iterator[slice]:
        return (slice(start, start + self._piece) for start in range(0, size, self._piece))

    def _scaled(self, rows: np.ndarray) -> np.ndarray:
        scaled = np.empty((len(rows), self.width), dtype=np.float32)
        for few in few_at_a_time(len(rows), self.width):
            values = self._spread.clipped(self._matrix[rows[few]])
            values -= self._spread.mean
            values *= self._factors
            np.clip(values, -_FARTHEST, _FARTHEST, out=scaled[few], casting="same_kind")
        return scaled


def few_at_a_time(size: int, width: int) -> Iterator[slice]:
    """Cut `size` rows of a width into slices that stay in a processor's cache."""
    step = max(1, _CACHED // width)
    return (slice(start, start + step) for start in range(0, size, step))


class Centres:
    """The nearest class centre, its own sampling noise removed."""

    name = "centres"

    def __init__(self, x: Standardised, sums: np.ndarray, squares: float, sizes: np.ndarray):
        self._x = x
        self._sizes = np.maximum(sizes, 1)
        self._centres = sums / self._sizes[:, None]
        self._norms = (self._centres**2).sum(axis=1)
        within = max(0.0, squares - float((sizes * self._norms).sum()))
        self._scatter = within / max(int(sizes.sum()) - int(np.count_nonzero(sizes)), 1)
        self._absent = sizes == 0
        self.temperatures = max(self._scatter / x.width, 1e-6) * np.logspace(-1, 4, 21)

    def _scores(self, rows: np.ndarray) -> np.ndarray:
        """Return half of the squared distance to each centre, negative, in float64."""
        scores = np.empty((len(rows), len(self._centres)))
        for few in few_at_a_time(len(rows), self._x.width):
            values = rows[few].astype(np.float64)
            np.matmul(values, self._centres.T, out=scores[few])
            scores[few] -= np.einsum("ij,ij->i", values, values)[:, None] / 2
        return scores - self._norms / 2

    def _with_own(self, scores: np.ndarray, y: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Return the scores without the centres' sampling noise; those of the own classes are replaced."""
        scores += self._scatter / self._sizes / 2
        scores[:, self._absent] = -np.inf
        scores[np.arange(len(y)), y] = own + self._scatter / (self._sizes[y] - 1) / 2
        return scores

    def train_scores(self, rows: np.ndarray, y: np.ndarray) -> np.ndarray:
        scores, size = self._scores(self._x[rows]), self._sizes[y]
        return self._with_own(scores, y, scores[np.arange(len(y)), y] * (size / (size - 1)) ** 2)

    def val_scores(self, v: np.ndarray, z: np.ndarray, partners: np.ndarray) -> np.ndarray:
        size = self._sizes[z][:, None]
        apart = v - (size * self._centres[z] - self._x[partners]) / (size - 1)
        return self._with_own(self._scores(v), z, -np.einsum("ij,ij->i", apart, apart) / 2)


class Components:
    """The training part's principal components: their eigenvalues, and the centred one-hot labels along them."""

    def __init__(self, x: Standardised, sums: np.ndarray, sizes: np.ndarray):
        self._x, self.size = x, len(x)
        if self.size < x.width:  # the smaller of the two scatter matrices has the same eigenvalues
            rows = x[:].astype(np.float64)
            eigenvalues, basis = _kept(rows @ rows.T)
            basis = (rows.T @ basis) / np.sqrt(eigenvalues)
        else:
            scatter = np.zeros((x.width, x.width))
            for piece in x.pieces(self.size):
                scatter += ssyrk(1.0, x[piece].T)  # the upper half of the product
            eigenvalues, basis = _kept(scatter.astype(np.float32))
        self.eigenvalues = eigenvalues
        self.shares = sizes / self.size
        self.targets = basis.T @ (sums.T - sums.sum(axis=0)[:, None] * self.shares)
        self._basis = basis.astype(np.float32)
        # Rows that were projected once are kept, if there is not too much of it.
        self._known = np.zeros(self.size, dtype=bool)
        self._projected = np.empty((self.size, len(eigenvalues)), dtype=np.float32) if x.in_one_piece else None

    def of(self, rows: np.ndarray) -> np.ndarray:
        return rows @ self._basis

    def of_train(self, rows: np.ndarray) -> np.ndarray:
        if self._projected is None:
            return self.of(self._x[rows])
        new = rows[~self._known[rows]]
        self._projected[new], self._known[new] = self.of(self._x[new]), True
        return self._projected[rows]


def _kept(scatter: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues that are not negligible, and their eigenvectors; the upper half is looked at."""
    eigenvalues, vectors = eigh(scatter, lower=False, driver="evd", overwrite_a=True, check_finite=False)
    kept = eigenvalues > NEGLIGIBLE * eigenvalues[-1]
    return eigenvalues[kept], vectors[:, kept]


class RidgeFit:
    """A ridge regression with a free intercept along the components, and what each sample adds to it."""

    def __init__(self, components: Components, penalty: float):
        self.name = f"ridge {penalty:g}"
        self._components = components
        shrinkage = 1 / (components.eigenvalues + penalty * components.eigenvalues.mean())
        self._coefficients = (shrinkage[:, None] * components.targets).astype(np.float32)
        self._shrinkage = shrinkage.astype(np.float32)

    def left_over(self, a: np.ndarray) -> np.ndarray:
        """Return 1 less the leverage of training samples, (n,) float64."""
        leverage = np.minimum(self.influence(a, a), 1 - NEGLIGIBLE)
        return 1 - leverage.astype(np.float64)

    def influence(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the weight of training samples a in the predictions for b, row by row."""
        return (a * b) @ self._shrinkage + 1 / self._components.size


class Ridge(RidgeFit):
    """Ridge regression on one-hot labels."""

    temperatures = 2 * np.logspace(-3, 2, 21)

    def _residuals(self, a: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the centred targets of training samples, and what a fit without each sample leaves of them."""
        targets = np.tile(-self._components.shares, (len(y), 1))
        targets[np.arange(len(y)), y] += 1
        return targets, (targets - a @ self._coefficients) / self.left_over(a)[:, None]

    def train_scores(self, rows: np.ndarray, y: np.ndarray) -> np.ndarray:
        targets, residuals = self._residuals(self._components.of_train(rows), y)
        return targets - residuals + targets / (self._components.size - 1)

    def val_scores(self, v: np.ndarray, z: np.ndarray, partners: np.ndarray) -> np.ndarray:
        b, a = self._components.of(v), self._components.of_train(partners)
        targets, residuals = self._residuals(a, z)
        return (
            b @ self._coefficients - self.influence(a, b)[:, None] * residuals + targets / (self._components.size - 1)
        )


def most_likely(
    x: Standardised, y: np.ndarray, sizes: np.ndarray, counted: np.ndarray
) -> tuple[Centres | Ridge, float]:
    """Return the separator and the temperature under which the training part's own classes are most likely."""
    rows = counted
    if len(counted) > _LIKELIHOOD_ROWS:
        rows = np.random.default_rng(0).choice(counted, _LIKELIHOOD_ROWS, replace=False)
    sums, squares = _class_sums(x, y, len(sizes))
    separators: list[Centres | Ridge] = [Centres(x, sums, squares, sizes)]
    if squares > 0 and min(len(x), x.width) <= RIDGE_MOST:
        components = Components(x, sums, sizes)
        separators += [Ridge(components, penalty) for penalty in PENALTIES]
    best: tuple[float, Centres | Ridge, float] | None = None
    for separator in separators:
        scores = separator.train_scores(rows, y[rows])
        for temperature in separator.temperatures:
            likelihood = np.maximum(own_probability(scores, y[rows], temperature), _LEAST_LIKELIHOOD)
            mean = float(np.log(likelihood).mean())
            if best is None or mean > best[0]:
                best = mean, separator, float(temperature)
    assert best is not None
    return best[1:]


def _class_sums(x: Standardised, y: np.ndarray, num_classes: int) -> tuple[np.ndarray, float]:
    """Return the sum of the rows of each class, and the sum of all squares, in float64."""
    sums, squares = np.zeros((num_classes, x.width)), 0.0
    order = np.argsort(y, kind="stable")
    for few in few_at_a_time(len(x), x.width):
        values = x[order[few]].astype(np.float64)
        classes, starts = np.unique(y[order[few]], return_index=True)
        sums[classes] += np.add.reduceat(values, starts, axis=0)
        squares += float(np.vdot(values, values))
    return sums, squares


def own_probability(scores: np.ndarray, y: np.ndarray, temperature: float) -> np.ndarray:
    """Return the softmax of the scores over the temperature, at each sample's own class."""
    own = scores[np.arange(len(y)), y][:, None]
    with np.errstate(over="ignore"):
        return 1 / np.exp((scores - own) / temperature).sum(axis=1)
