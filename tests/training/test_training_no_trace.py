"""A diagnosis leaves nothing behind but its record."""

import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from tiny import TensorRows, assert_same, history, make_trainer, tiny_model, weights_of
from torch import nn

from hf_relearn.relearning import features, labels
from hf_relearn.relearning.features import leaving_no_trace, preserved_random_state

# So few samples look purer or less pure by chance, and the diagnosis says so.
pytestmark = pytest.mark.filterwarnings("ignore:chance alone explains")


class AugmentedRows(TensorRows):
    """Rows that draw from every global generator, as augmentation inside a data set does."""

    def __getitem__(self, index: int) -> dict:
        row = super().__getitem__(index)
        noise = torch.randn_like(row["audio_input_values"]) * random.random()
        return {**row, "audio_input_values": row["audio_input_values"] + noise + float(np.random.normal())}


def run(folder, **kwargs):
    """Train with dropout, shuffling and augmentation: (weights, optimizer state, losses, records)."""
    torch.manual_seed(1)
    trainer = make_trainer(folder, tiny_model(dropout=0.2), AugmentedRows(), **kwargs)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return weights_of(trainer.model), trainer.optimizer.state_dict(), losses, history(folder)


@pytest.mark.parametrize("settings", [{}, {"diagnosis_interval": 1}, {"relearn_strategy": "steps"}])
def test_points_at_lambda_0_change_no_bit(tmp_path, settings):
    joint = run(tmp_path / "joint", relearn_strategy="no")
    diagnosed = run(tmp_path / "points", relearn_lambda=0.0, **settings)

    assert len(diagnosed[3]) >= 2 and joint[3] == []
    assert len(joint[2]) == 12
    assert_same(diagnosed[:3], joint[:3])


def test_recorded_diagnoses_of_a_joint_run_change_no_bit(tmp_path):
    joint = run(tmp_path / "joint", relearn_strategy="no")
    recorded = run(tmp_path / "recorded", relearn_strategy="no", diagnosis_interval=1)

    assert [record["kind"] for record in recorded[3]] == ["record", "record", "end"]
    assert_same(recorded[:3], joint[:3])


@pytest.mark.parametrize("broken", ["features", "labels"])
def test_the_comparison_notices_generators_that_are_not_restored(tmp_path, monkeypatch, broken):
    @contextmanager
    def modes_only(model, seed):
        training = model.training
        yield
        model.train(training)

    @contextmanager
    def nothing():
        yield

    # The labels of the training part are read when training begins if nothing is held out of it.
    joint = run(tmp_path / "joint", relearn_strategy="no", diagnosis_source="eval")
    if broken == "features":
        monkeypatch.setattr(features, "leaving_no_trace", modes_only)
    else:
        monkeypatch.setattr(labels, "preserved_random_state", nothing)
    diagnosed = run(tmp_path / "points", relearn_lambda=0.0, diagnosis_source="eval")

    with pytest.raises(AssertionError):
        assert_same(diagnosed[:3], joint[:3])


def test_every_generator_and_every_module_mode_is_restored():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()))
    model.train()
    model[1][0].eval()  # a frozen part
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = (random.random(), np.random.random(), torch.rand(1).item())
    random.seed(3), np.random.seed(3), torch.manual_seed(3)

    with pytest.raises(RuntimeError, match="stop"), leaving_no_trace(model, seed=0):
        model.eval()
        random.random(), np.random.random(), torch.rand(1)
        raise RuntimeError("stop")

    assert (random.random(), np.random.random(), torch.rand(1).item()) == expected
    assert [module.training for module in model.modules()] == [True, True, True, False, True]


def test_a_seed_makes_what_is_drawn_inside_the_same_each_time():
    drawn = []
    for outer in (1, 2):
        torch.manual_seed(outer)
        with preserved_random_state(seed=5):
            drawn.append((random.random(), np.random.random(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]


def test_a_data_set_with_augmentation_is_diagnosed_the_same_after_resuming(tmp_path):
    """When a run resumes, the generators are restored only after the point."""
    settings = {"num_train_epochs": 2, "save_strategy": "epoch", "diagnosis_sampling": "all"}
    whole = run(tmp_path, **settings)
    trainer = make_trainer(tmp_path, tiny_model(seed=5, dropout=0.2), AugmentedRows(), **settings)
    random.seed(7), np.random.seed(7), torch.rand(7)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert_same([record["modalities"] for record in history(tmp_path)], [record["modalities"] for record in whole[3]])
    assert_same(weights_of(trainer.model), whole[0])


def test_diagnosing_leaves_gradients_as_they_were(tmp_path):
    trainer = make_trainer(tmp_path)
    for parameter in trainer.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = weights_of(trainer.model)
    trainer.part_features()

    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in trainer.model.parameters())
    assert_same(weights_of(trainer.model), before)
