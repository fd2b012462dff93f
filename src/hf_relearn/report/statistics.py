"""Paired tests over seeds, and Holm's correction for several of them."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.05


@dataclass(frozen=True)
class Paired:
    """Differences of one arm to another, seed by seed.

    Attributes:
        n: seeds that both arms have.
        mean, sd, se: of the differences; `sd` and `se` need two seeds.
        low, high: 95 % confidence interval of the mean, by Student's t; needs two seeds.
        wins, losses: seeds in which the arm is better and worse; ties are neither.
        p_t, p_wilcoxon: two-sided p of the paired t test and of Wilcoxon's signed-rank test. None if no test is
            possible: with one seed, or for t if all seeds differ by the same amount.
    """

    n: int
    mean: float
    sd: float | None
    se: float | None
    low: float | None
    high: float | None
    wins: int
    losses: int
    p_t: float | None
    p_wilcoxon: float | None


def compare_paired(
    values: Mapping[int, float], baseline: Mapping[int, float], *, lower: bool = False
) -> Paired | None:
    """Compare two arms over the seeds that both have.

    Args:
        values, baseline: seed -> value.
        lower: whether the lower value is the better one.

    Returns:
        The comparison; None without a common seed.
    """
    seeds = sorted(set(values) & set(baseline))
    if not seeds:
        return None
    # Values are counts divided by a number of samples: what is left of equal ones after subtraction is rounding.
    differences = np.round([values[seed] - baseline[seed] for seed in seeds], 12)
    n, mean = len(seeds), float(differences.mean())
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    if lower:
        wins, losses = losses, wins
    if n < 2:
        return Paired(n, mean, None, None, None, None, wins, losses, None, None)
    sd = 0.0 if np.all(differences == differences[0]) else float(differences.std(ddof=1))
    se = sd / math.sqrt(n)
    reach = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * se
    return Paired(
        n, mean, sd, se, mean - reach, mean + reach, wins, losses, _t_test(differences), _wilcoxon(differences)
    )


def _t_test(differences: np.ndarray) -> float | None:
    if np.all(differences == differences[0]):
        return 1.0 if differences[0] == 0 else None
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _wilcoxon(differences: np.ndarray) -> float:
    moved = differences[differences != 0]
    if not moved.size:
        return 1.0
    with warnings.catch_warnings():  # some releases warn that the sample is small
        warnings.simplefilter("ignore", UserWarning)
        return float(stats.wilcoxon(moved).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values by Holm's step-down method, so that the whole table errs with a chance of 5 % at most.

    Args:
        p_values: of all tests of the table; None is not a test and is not counted.
    """
    tested = [index for index, p in enumerate(p_values) if p is not None]
    order = sorted(tested, key=lambda index: p_values[index] or 0.0)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * (p_values[index] or 0.0)))
        corrected[index] = highest
    return corrected


def visible_difference(comparisons: Sequence[Paired]) -> float | None:
    """Compute the smallest difference these comparisons tell from 0: the median half-width of their 95 % intervals.

    Arms without any spread of differences, such as an arm beside itself, do not count.
    """
    reaches = [
        (pair.high - pair.low) / 2
        for pair in comparisons
        if pair.sd and pair.high is not None and pair.low is not None
    ]
    return float(np.median(reaches)) if reaches else None
