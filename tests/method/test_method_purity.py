"""Purity of clusters."""

import numpy as np
import pytest
import torch

from hf_relearn.method import chance_purity, purity_score


def test_reference_values(shared_reference):
    cases = np.load(shared_reference / "purity.npz")
    for i in range(int(cases["n_cases"])):
        assert purity_score(cases[f"y_true_{i}"], cases[f"y_pred_{i}"]) == pytest.approx(cases[f"purity_{i}"])


def test_value_by_hand():
    assert purity_score([7, 7, 3, 3, 3, 9], [0, 0, 0, 1, 1, 1]) == 4 / 6


def test_labels_are_only_names():
    generator = np.random.default_rng(0)
    labels, clusters = generator.integers(0, 5, 300), generator.integers(0, 4, 300)
    expected = purity_score(labels, clusters)
    names = np.array([-100, -1, 0, 2**40, 3])
    assert purity_score(names[labels], -clusters) == expected
    assert purity_score(torch.tensor(names[labels]), clusters.tolist()) == expected


def test_nothing_is_changed_in_place():
    labels, clusters = np.array([-1, 0, 0, 5]), np.array([1, 1, 0, 0])
    purity_score(labels, clusters)
    chance_purity(labels, clusters)
    assert labels.tolist() == [-1, 0, 0, 5]
    assert clusters.tolist() == [1, 1, 0, 0]


def test_many_clusters_and_classes_need_no_table():
    many = np.arange(200_000)  # a table of classes by clusters would take 320 GB
    assert purity_score(many, many) == 1.0


@pytest.mark.parametrize(
    ("labels", "clusters", "message"),
    [
        ([], [], "at least one sample"),
        ([0, 1], [0], "2 labels cannot be compared with 1 clusters"),
        ([0.0, 1.0], [0, 1], "labels must be integers"),
        (["a", "b"], [0, 1], "labels must be integers"),
        ([0, 1], [0.5, 1], "clusters must be integers"),
        ([[0, 1]], [0, 1], "one-dimensional"),
    ],
)
def test_wrong_input_is_refused(labels, clusters, message):
    for score in (purity_score, chance_purity):
        with pytest.raises(ValueError, match=message):
            score(labels, clusters)


def test_chance_purity_is_the_floor_of_uninformative_clusters():
    generator = np.random.default_rng(1)
    labels, clusters = generator.integers(0, 10, 2000), generator.integers(0, 10, 2000)
    assert chance_purity(labels, clusters) == pytest.approx(purity_score(labels, clusters), abs=0.02)
    assert chance_purity(labels, labels) < 0.2 < purity_score(labels, labels) == 1.0
    assert chance_purity(labels, clusters, seed=3) == chance_purity(labels, clusters, seed=3)
    assert chance_purity(labels, clusters, seed=3) != chance_purity(labels, clusters, seed=4)
