"""What data sets and collators draw at random is the same in a resumed run, and never twice the same in a run."""

import random

import numpy as np
import pytest
import torch
from tiny import make_trainer, tiny_model, training_arguments

from hf_relearn.training import MultimodalRelearnTrainer

pytestmark = pytest.mark.filterwarnings("ignore:chance alone explains")


def noisy(rows):
    """A batch that depends on every generator of the CPU."""
    draw = torch.rand(()).item() + random.random() + np.random.rand()
    batch = {name: torch.stack([torch.as_tensor(row[name]) for row in rows]) for name in rows[0]}
    return {name: value + draw if value.is_floating_point() else value for name, value in batch.items()}


@pytest.mark.parametrize(("loading", "steps"), [({}, range(1, 6)), ({"dataloader_num_workers": 2}, (2, 4))])
def test_draws_are_those_of_the_uninterrupted_run_wherever_it_is_resumed(tmp_path, loading, steps):
    def trainer(folder, **kwargs):
        sizes = {"num_train_epochs": 2, "per_device_train_batch_size": 9, **loading}
        return make_trainer(folder, tiny_model(dropout=0.2), None, {"data_collator": noisy}, **{**sizes, **kwargs})

    uninterrupted = trainer(tmp_path / "run", save_strategy="steps", save_steps=1)
    uninterrupted.train()
    expected = [entry["loss"] for entry in uninterrupted.state.log_history if "loss" in entry]
    assert len(expected) == 6
    for step in steps:
        resumed = trainer(tmp_path / "run")
        torch.rand(step), random.random(), np.random.rand()  # the generators are elsewhere than at the start
        resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{step}"))
        assert [entry["loss"] for entry in resumed.state.log_history if "loss" in entry] == expected, step
        weights = zip(resumed.model.parameters(), uninterrupted.model.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in weights), step


class Drawing(MultimodalRelearnTrainer):
    """Notes what was drawn for each of its training batches."""

    seen: list

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.seen.append((inputs["draw"][0].item(), inputs.pop("draw").unique().numel()))
        return super().compute_loss(model, inputs, *args, **kwargs)


def drawing(rows):
    return {**noisy(rows), "draw": torch.rand(()).repeat(len(rows))}


@pytest.mark.parametrize("loading", [{}, {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}])
def test_draws_differ_between_batches_epochs_and_seeds(tmp_path, loading):
    data = make_trainer(tmp_path / "data").train_dataset
    draws = []
    for seed in (1, 2):
        # Always the same rows in the same order, so epoch and seed have to make the difference.
        rows = {"per_device_train_batch_size": 14, "train_sampling_strategy": "sequential"}
        args = training_arguments(tmp_path / "run", seed=seed, relearn_strategy="no", **rows, **loading)
        trainer = Drawing(tiny_model(), args, drawing, data, diagnosis_dataset=data)
        trainer.seen = []
        trainer.train()
        draws += [draw for draw, distinct in trainer.seen if distinct == 1]
    assert len(draws) == len(set(draws)) == 12


def test_loading_leaves_the_generators_alone(tmp_path):
    loader = make_trainer(tmp_path, trainer_kwargs={"data_collator": noisy}).get_train_dataloader()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    assert len(list(loader)) == 4
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])
