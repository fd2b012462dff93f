"""Sharded models: two real processes that share out every parameter compute what whole parameters give."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import CONSTANT_STRENGTH, history, make_trainer, tiny_model, weights_of
from torch import nn
from transformers import TrainerCallback

from hf_relearn.method import InitialWeights, soft_reinit_

SCRIPT = Path(__file__).with_name("sharded_run.py")
ELEMENTS = 701 * 40  # of the largest parameter


def run(folder: Path, kind: str) -> tuple[dict, list[dict]]:
    """Whole tensors of the first process, and the values of both."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *launcher, str(SCRIPT), str(folder), kind]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-4000:]
    values = [json.loads((folder / f"process-{index}.json").read_text()) for index in range(2)]
    return load_file(folder / "tensors.safetensors"), values


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    return run(tmp_path_factory.mktemp("sharded"), "sharded")


@pytest.fixture(scope="module")
def replicated(tmp_path_factory):
    return run(tmp_path_factory.mktemp("replicated"), "replicated")


def only(tensors, prefix):
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def test_shards_move_as_whole_parameters_do_to_the_last_bit(sharded):
    tensors, values = sharded
    assert values[0]["parts"]["encoder.0.weight"] == [351, 40]
    assert values[1]["parts"]["encoder.0.weight"] == [350, 40]
    assert values[1]["parts"]["encoder.2.weight"] == [0, 701] and values[1]["parts"]["encoder.4.weight"] == [5, 2]
    alone, moved = only(tensors, "alone."), only(tensors, "sharded.")
    assert set(alone) == set(moved) and len(alone) == 16
    for name, value in moved.items():
        assert torch.equal(value, alone[name]), name  # and the output of a forward pass
    for way in ("with_distance.", "from_memory.", "hybrid (1, 2).", "hybrid (2, 1)."):
        assert len(only(tensors, way)) == 15
        for name, value in only(tensors, way).items():
            assert torch.equal(value, alone[name]) or "running" in name, way + name


def test_moving_shards_communicates_nothing_and_makes_no_whole_tensor(sharded):
    for values in sharded[1]:
        assert values["collectives"] == [] and values["largest"] < ELEMENTS
        # What was watched for can be seen.
        assert values["collectives_for_whole_tensors"] and values["largest_of_whole_tensors"] >= ELEMENTS


def test_the_distance_is_that_of_the_whole_on_every_process(sharded):
    (alone, *first), (_, *second) = (values["distances"] for values in sharded[1])
    assert first == second == pytest.approx([alone] * 3, rel=1e-6)
    assert all(values["collectives_for_distance"] == ["c10d.allreduce_.default"] for values in sharded[1])


def test_whole_copies_of_the_root_are_not_moved_in_vain(sharded):
    for values in sharded[1]:
        assert "FSDP holds the parameter '1.weight' as a whole" in values["refused"]
        assert "call reshard() of the module that fully_shard was called with last" in values["refused"]


def test_initial_weights_of_a_sharded_model_are_whole_and_written_once(sharded, replicated):
    for values in sharded[1]:
        assert len(values["files"]) == 1 and values["same_file"]
    names = [values["initial_weights"] for _, both in (sharded, replicated) for values in both]
    assert len(names[0]) == 1 and names.count(names[0]) == 4


def test_the_trainer_treats_a_sharded_model_as_a_replicated_one(sharded, replicated):
    for shards, copies in zip(sharded[1], replicated[1], strict=True):
        assert [record["kind"] for record in shards["records"]] == ["point", "point"]
        for record, expected in zip(shards["records"], copies["records"], strict=True):
            for name, found in record["modalities"].items():
                assert found["alpha"] == expected["modalities"][name]["alpha"]
                assert found["distance"] == pytest.approx(expected["modalities"][name]["distance"], rel=1e-6)
        assert any(found["alpha"] > 0 for record in shards["records"] for found in record["modalities"].values())
        assert shards["losses"] == pytest.approx(copies["losses"], rel=1e-5)
        assert shards["accuracy"] == copies["accuracy"]
    trained, expected = only(sharded[0], "trained."), only(replicated[0], "trained.")
    assert len(trained) == len(expected) > 50
    for name, value in trained.items():
        assert torch.allclose(value, expected[name], rtol=1e-4, atol=1e-6), name


def test_the_first_version_of_fsdp_is_refused(sharded):
    for values in sharded[1]:
        assert len(values["first_version"]) == 2 and values["first_version_files"] == []
        assert all("sharded by FSDP version 1" in message for message in values["first_version"])


def partition(model: nn.Module) -> None:
    """Stands for DeepSpeed ZeRO-3, which empties parameters and marks them when it prepares the model."""
    for number, parameter in enumerate(model.parameters()):
        parameter.ds_id = number
        parameter.data = torch.empty(0)


def test_partitions_of_deepspeed_are_refused_before_training(tmp_path):
    model = tiny_model()
    partition(model)
    trainer = make_trainer(tmp_path, model)
    with pytest.raises(
        ValueError, match="'multimodal.encoders.*' is partitioned by DeepSpeed ZeRO-3.*ZeRO stage 1 or 2, or FSDP"
    ):
        trainer.train()
    assert trainer.state.global_step == 0 and not InitialWeights.find(tmp_path) and not history(tmp_path)


def test_partitions_of_deepspeed_are_refused_by_the_functions(tmp_path):
    layer = nn.Linear(2, 2)
    initial = InitialWeights.save(layer, tmp_path)
    partition(layer)
    with pytest.raises(ValueError, match="'weight' is partitioned by DeepSpeed ZeRO-3"):
        soft_reinit_(layer, initial, 0.5)
    with pytest.raises(ValueError, match="'weight' is partitioned by DeepSpeed ZeRO-3"):
        InitialWeights.save(layer, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_reset_drops_the_state_of_moved_shards_only(sharded, replicated):
    for values in (*sharded[1], *replicated[1]):
        before, after, following = (values["reset"][when] for when in ("before", "after", "following"))
        moved = {name for name in before if ".encoders.vision." in name}
        assert len(moved) > 10 and set(before) - set(after) == moved and set(following) == set(before)
        assert {name: before[name] for name in after} == after
        assert {name in moved: step for name, (step, _) in following.items()} == {True: 1, False: 4}
    elements = [
        sum(size for _, size in values["reset"]["before"].values()) for values in (*sharded[1], *replicated[1])
    ]
    assert elements[0] + elements[1] == elements[2] == elements[3]


class FlatCopies(torch.optim.SGD):
    """Stands for the optimizer of ZeRO stage 1 or 2, which trains one flat copy of all parameters."""

    def __init__(self, parameters):
        super().__init__([torch.cat([parameter.detach().flatten() for parameter in parameters])], lr=0.1)


def test_an_optimizer_state_that_is_not_kept_by_parameter_is_refused_before_training(tmp_path):
    model = tiny_model()
    others = {"optimizers": (FlatCopies(model.parameters()), None)}
    settings = {"relearn_alpha": "1", "diagnosis_fraction": 0}
    trainer = make_trainer(tmp_path, model, trainer_kwargs=others, relearn_optimizer_state="reset", **settings)
    with pytest.raises(
        ValueError,
        match="--relearn_optimizer_state is 'reset', but the optimizer FlatCopies .*'audio' enc.*use 'keep'",
    ):
        trainer.train()
    assert trainer.state.global_step == 0 and not InitialWeights.find(tmp_path)


class MasterWeights(torch.optim.SGD):
    """Stands for the optimizer of ZeRO stage 1 or 2: steps on copies, then writes them over the weights."""

    copies: list[torch.Tensor] | None = None

    def refresh_fp32_params(self):
        self.copies = [parameter.detach().clone() for group in self.param_groups for parameter in group["params"]]

    def step(self, closure=None):
        if self.copies is None:
            self.refresh_fp32_params()
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        with torch.no_grad():
            for parameter, kept in zip(parameters, self.copies, strict=True):
                parameter.copy_(kept)


@CONSTANT_STRENGTH
def test_float32_copies_of_an_optimizer_follow_a_point(tmp_path):
    class Changed(TrainerCallback):
        def on_train_begin(self, args, state, control, model, **kwargs):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.1

    model = tiny_model()
    initial = weights_of(model)
    others = {"optimizers": (MasterWeights(model.parameters(), lr=0.0), None)}
    trainer = make_trainer(tmp_path, model, trainer_kwargs=others, relearn_alpha="1", diagnosis_fraction=0)
    trainer.add_callback(Changed())
    trainer.train()
    for name, value in weights_of(model).items():
        assert torch.equal(value, initial[name]) == (".encoders." in name), name
