"""Stratified samples and splits."""

import numpy as np
import pytest

from hf_relearn.method import stratified_indices, stratified_split

LABELS = np.random.default_rng(0).permutation(np.repeat([-3, 0, 5, 8], [100, 60, 33, 7]))


@pytest.mark.parametrize("size", [1, 3, 20, 77, 199, 200])
def test_size_is_exact_and_shares_are_rounded_shares(size):
    drawn = stratified_indices(LABELS, size, seed=5)
    assert len(np.unique(drawn)) == len(drawn) == size
    assert (np.diff(drawn) > 0).all()
    for label in np.unique(LABELS):
        share = (LABELS == label).sum() * size / len(LABELS)
        assert np.floor(share) <= (LABELS[drawn] == label).sum() <= np.ceil(share)


def test_largest_remainder_is_rounded_up():
    labels = [0] * 6 + [1] * 3 + [2]
    drawn = np.asarray(labels)[stratified_indices(labels, 4)]
    assert np.bincount(drawn, minlength=3).tolist() == [2, 1, 1] or np.bincount(drawn, minlength=3).tolist() == [
        3,
        1,
        0,
    ]
    drawn = np.asarray(labels)[stratified_indices(labels, 3)]  # shares 1.8, 0.9, 0.3
    assert np.bincount(drawn, minlength=3).tolist() == [2, 1, 0]


def test_fraction_is_rounded_to_a_size():
    assert len(stratified_indices(LABELS, 0.25)) == 50
    assert len(stratified_indices(LABELS, 1.0)) == 200
    assert len(stratified_indices(LABELS, 1)) == 1


def test_seed_decides_alone():
    first = stratified_indices(LABELS, 50, seed=1)
    np.random.seed(99)
    assert np.array_equal(first, stratified_indices(LABELS, 50, seed=1))
    assert not np.array_equal(first, stratified_indices(LABELS, 50, seed=2))


def test_every_sample_of_a_class_can_be_drawn():
    labels = np.zeros(10, dtype=int)
    drawn = np.concatenate([stratified_indices(labels, 2, seed) for seed in range(60)])
    assert set(drawn.tolist()) == set(range(10))


@pytest.mark.parametrize("size", [0, -1, 201, 0.0, 1.5, float("nan"), 0.001])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match="size|fraction"):
        stratified_indices(LABELS, size)


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.9])
def test_split_is_a_partition_that_keeps_every_class_in_training(fraction):
    kept, held_out = stratified_split(LABELS, fraction, seed=3)
    assert np.array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(200))
    assert len(held_out) == round(200 * fraction)
    assert set(LABELS[kept]) == set(LABELS)


def test_a_single_sample_is_never_held_out():
    labels = np.array([4] * 20 + [1] * 20 + [7])
    for seed in range(20):
        kept, held_out = stratified_split(labels, 0.5, seed)
        assert 40 in kept
        assert np.bincount(labels[held_out], minlength=5)[[1, 4]].tolist() == [10, 10]


def test_split_that_cannot_spare_enough_says_how_many_it_can():
    with pytest.raises(ValueError, match="cannot hold out 5 of 10 samples: only 1 can be spared.*9 classes"):
        stratified_split([0, 0, 1, 2, 3, 4, 5, 6, 7, 8], 0.5)


@pytest.mark.parametrize("fraction", [0, 1, 1.0, -0.1, 0.001])
def test_split_into_nothing_or_everything_is_refused(fraction):
    with pytest.raises(ValueError, match="fraction"):
        stratified_split(LABELS, fraction)
