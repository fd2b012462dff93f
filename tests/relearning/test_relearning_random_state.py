"""No function of the method touches a global random generator or the caller's data."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from hf_relearn import method

GENERATOR = np.random.default_rng(0)
FEATURES, LABELS = GENERATOR.normal(size=(60, 4)), np.arange(60) % 3


CALLS = {
    "diagnose": lambda: method.diagnose(
        {"a": FEATURES}, LABELS, {"a": FEATURES[:48]}, LABELS[:48], 3, sampling="matched", n_init=2, max_samples=50
    ),
    "sampling": lambda: (method.stratified_indices(LABELS, 7), method.stratified_split(LABELS, 0.3)),
    "probe": lambda: method.linear_probe_accuracy(FEATURES, LABELS, FEATURES, LABELS),
    "chance": lambda: method.chance_purity(LABELS, LABELS),
}


def states():
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), (kind, keys.tolist(), *rest), torch.get_rng_state().tolist()


@pytest.mark.parametrize("name", CALLS)
def test_global_generators_and_inputs_are_left_alone(name):
    before, features, labels = states(), FEATURES.copy(), LABELS.copy()
    CALLS[name]()
    assert states() == before
    assert np.array_equal(FEATURES, features)
    assert np.array_equal(LABELS, labels)


def test_relearning_leaves_the_generators_alone(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    before = states()
    weights = method.InitialWeights.save(model, tmp_path)
    method.soft_reinit_with_distance_(model, weights, 0.5)
    method.interpolate_buffers_(model, weights, 0.5)
    assert states() == before
