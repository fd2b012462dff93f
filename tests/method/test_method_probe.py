"""The linear probe."""

import numpy as np
import pytest
import torch

from hf_relearn.method import NonFiniteFeaturesError, linear_probe_accuracy, probe


def make_part(num_samples, seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, num_samples)
    features = generator.normal(size=(num_samples, 5)) + 4 * np.eye(3, 5)[labels]
    return (features * [1e-4, 1, 1e4, 1, 1]).astype(np.float32), labels - 1


def test_separable_features_are_told_apart_whatever_their_scale():
    assert linear_probe_accuracy(*make_part(150, 0), *make_part(100, 1)) > 0.95


def test_features_without_information_give_chance():
    (features, _), (other, _) = make_part(300, 0), make_part(300, 1)
    labels = np.random.default_rng(2).integers(0, 3, 300)
    assert linear_probe_accuracy(features, labels, other, labels) == pytest.approx(1 / 3, abs=0.1)


def test_tensors_give_what_arrays_give():
    (features, labels), (other, other_labels) = make_part(60, 0), make_part(40, 1)
    tensors = torch.tensor(features), torch.tensor(labels), torch.tensor(other), torch.tensor(other_labels)
    assert linear_probe_accuracy(*tensors) == linear_probe_accuracy(features, labels, other, other_labels)


def test_one_training_class_gives_its_share():
    features = np.zeros((4, 2))
    assert linear_probe_accuracy(features, [5, 5, 5, 5], features, [5, 1, 5, 5]) == 0.75


def test_a_fit_that_does_not_converge_is_silent(monkeypatch):
    monkeypatch.setattr(probe, "MAX_ITERATIONS", 1)
    assert 0 <= linear_probe_accuracy(*make_part(150, 0), *make_part(100, 1)) <= 1  # warnings are errors here


def test_a_large_training_part_is_sampled_by_seed(monkeypatch):
    monkeypatch.setattr(probe, "MAX_TRAIN_SAMPLES", 6)
    parts = (*make_part(500, 0), *make_part(400, 1))
    accuracies = [linear_probe_accuracy(*parts, seed=seed) for seed in range(5)]
    assert len(set(accuracies)) > 1
    assert accuracies == [linear_probe_accuracy(*parts, seed=seed) for seed in range(5)]


def test_wrong_input_is_refused():
    features, labels = make_part(20, 0)
    with pytest.raises(ValueError, match="part to score: 20 features but 19 labels"):
        linear_probe_accuracy(features, labels, features, labels[:19])
    with pytest.raises(ValueError, match="5 feature dimensions, the part to score 4"):
        linear_probe_accuracy(features, labels, features[:, :4], labels)
    with pytest.raises(NonFiniteFeaturesError, match="training part: features of 20 of 20"):
        linear_probe_accuracy(features * np.nan, labels, features, labels)
