"""Paired tests over seeds, against SciPy, statsmodels and simulations."""

import numpy as np
import pytest
from scipy import stats

from hf_relearn.report.statistics import compare_paired, holm, visible_difference


def by_seed(values):
    return dict(enumerate(values))


def simulated(difference: float, seeds: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies of a baseline and of an arm that is better by a difference, with the noise of a seed in common."""
    rng = np.random.default_rng(3)
    common, own = rng.normal(0, 0.02, seeds), rng.normal(0, 0.01, (2, seeds))
    return 0.7 + common + own[0], 0.7 + difference + common + own[1]


@pytest.mark.parametrize("difference", [0.0, 0.01, 0.05, -0.03])
def test_p_values_and_interval_are_those_of_scipy(difference):
    baseline, arm = simulated(difference)
    pair = compare_paired(by_seed(arm), by_seed(baseline))
    test = stats.ttest_rel(arm, baseline)
    assert pair.n == 12 and pair.mean == pytest.approx(np.mean(arm - baseline))
    assert pair.p_t == pytest.approx(test.pvalue, rel=1e-6)
    assert pair.p_wilcoxon == pytest.approx(stats.wilcoxon(arm, baseline).pvalue)
    interval = test.confidence_interval(0.95)
    assert (pair.low, pair.high) == pytest.approx((interval.low, interval.high), rel=1e-6)
    assert (pair.wins, pair.losses) == (np.sum(arm > baseline), np.sum(arm < baseline))
    assert pair.se == pytest.approx(stats.sem(arm - baseline))


def test_a_known_difference_is_found_and_its_absence_not_more_often_than_promised():
    baseline, arm = simulated(0.05)
    assert compare_paired(by_seed(arm), by_seed(baseline)).p_t < 1e-4
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2, 400, 6))
    false = [compare_paired(by_seed(a), by_seed(b)).p_t < 0.05 for a, b in zip(*draws, strict=True)]
    assert 0.02 < np.mean(false) < 0.08


def test_an_arm_beside_itself_does_not_differ():
    pair = compare_paired(by_seed([0.7, 0.8, 0.9]), by_seed([0.7, 0.8, 0.9]))
    assert (pair.mean, pair.sd, pair.wins, pair.losses) == (0, 0, 0, 0)
    assert (pair.p_t, pair.p_wilcoxon) == (1.0, 1.0)
    assert visible_difference([pair]) is None


def test_only_common_seeds_count():
    pair = compare_paired({1: 0.5, 2: 0.6, 3: 0.9}, {2: 0.5, 3: 0.6, 4: 0.1})
    assert pair.n == 2 and pair.mean == pytest.approx(0.2)
    assert compare_paired({1: 0.5}, {2: 0.5}) is None


def test_one_seed_and_equal_differences_give_no_t_test():
    one = compare_paired({1: 0.5}, {1: 0.4})
    assert (one.n, one.wins, one.se, one.low, one.p_t, one.p_wilcoxon) == (1, 1, None, None, None, None)
    equal = compare_paired(by_seed([0.5, 0.6, 0.7]), by_seed([0.4, 0.5, 0.6]))
    assert equal.p_t is None and equal.p_wilcoxon == 0.25 and equal.se == 0


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [  # of statsmodels 0.15.0, multipletests(p_values, method="holm")
        ([0.01, 0.04, 0.03, 0.005, 0.6, 0.005], [0.04, 0.09, 0.09, 0.03, 0.6, 0.03]),
        ([0.2, 0.03, 0.9, 0.0004, 0.013, 0.051, 0.049], [0.4, 0.15, 0.9, 0.0028, 0.078, 0.196, 0.196]),
    ],
)
def test_holm_is_that_of_statsmodels(p_values, expected):
    assert holm(p_values) == pytest.approx(expected)


def test_what_was_not_tested_does_not_count_for_holm():
    assert holm([None, 0.03, None, 0.01]) == pytest.approx([None, 0.03, None, 0.02])
    assert holm([]) == []


def test_visible_difference_is_the_half_width_of_the_interval():
    pairs = [compare_paired(by_seed(arm), by_seed(baseline)) for baseline, arm in [simulated(0.0), simulated(0.04)]]
    assert visible_difference(pairs) == pytest.approx(stats.t.ppf(0.975, 11) * pairs[0].se)
