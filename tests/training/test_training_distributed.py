"""Two real processes diagnose and re-learn as one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("distributed_run.py")


def launch(folder: Path, *launcher: str) -> None:
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(SCRIPT), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]


def result_of(folder: Path, process: int) -> tuple[dict, dict]:
    return load_file(folder / f"process-{process}.safetensors"), json.loads(
        (folder / f"process-{process}.json").read_text()
    )


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
# On a CPU `--cpu` would start one process; the script itself says `use_cpu`.
ACCELERATE = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """(tensors, values) of one process alone."""
    folder = tmp_path_factory.mktemp("alone") / "one"
    launch(folder)
    return result_of(folder, 0)


@pytest.fixture(
    scope="module",
    params=[TORCHRUN, pytest.param(ACCELERATE, marks=pytest.mark.slow)],
    ids=["torchrun", "accelerate launch"],
)
def results(request, tmp_path_factory, alone):
    """[(tensors, values) of one process alone, of process 0 of 2, of process 1 of 2]"""
    folder = tmp_path_factory.mktemp("distributed") / "two"
    launch(folder, *request.param)
    return [alone, result_of(folder, 0), result_of(folder, 1)]


def only(tensors, prefix):
    return {name: value for name, value in tensors.items() if name.startswith(prefix)}


def test_features_come_whole_and_in_order_on_the_first_process(results):
    alone, first = only(results[0][0], "features."), only(results[1][0], "features.")
    assert {name: len(value) for name, value in alone.items()} == {
        "features.training.audio": 27,
        "features.training.vision": 27,
        "features.diagnosing.audio": 9,
        "features.diagnosing.vision": 9,
    }
    assert set(alone) == set(first) and not only(results[2][0], "features.")
    assert all(torch.equal(value, first[name]) for name, value in alone.items())


def test_a_point_is_the_same_for_the_same_weights(results):
    alone, first, second = (values["record"] for _, values in results)
    assert first["modalities"] == alone["modalities"] == second["modalities"]
    assert all(0 < entry["alpha"] < 1 and entry["distance"] > 0 for entry in alone["modalities"].values())
    weights = [only(tensors, "weights.") for tensors, _ in results]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]) and torch.equal(value, weights[2][name]), name


def test_evaluation_counts_every_sample_once(results):
    accuracies = [values["accuracies"] for _, values in results]
    assert {"eval_unimodal_vision_accuracy", "eval_only_audio_accuracy"} <= set(accuracies[0])
    assert accuracies[0] == pytest.approx(accuracies[1])
    assert accuracies[1] == accuracies[2]


def test_all_processes_hold_the_same_trained_weights_and_probe(results):
    first, second = (only(tensors, "trained.") for tensors, _ in results[1:])
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert len(results[1][1]["probes"]) == 1 and results[1][1]["probes"] == results[2][1]["probes"]


def test_losses_and_points_do_not_depend_on_how_a_batch_is_shared_out(results):
    expected, accumulated = (results[0][1]["batches"][name] for name in ("16 x 1", "4 x 4"))
    assert len(expected["losses"]) == 9 and [record["kind"] for record in expected["records"]] == ["point", "point"]
    assert all(found["distance"] > 1e-3 for r in expected["records"] for found in r["modalities"].values())
    for values in (accumulated, results[1][1]["batches"]["8 x 1"], results[2][1]["batches"]["8 x 1"]):
        assert values["losses"] == pytest.approx(expected["losses"], rel=1e-5)
        assert values["norms"] == pytest.approx(expected["norms"], rel=1e-3)
        assert len(values["records"]) == 2
        for record, other in zip(values["records"], expected["records"], strict=True):
            assert record["step"] == other["step"]
            for name, found in record["modalities"].items():
                same = other["modalities"][name]
                assert found["alpha"] == same["alpha"] == 0.5
                assert found["distance"] == pytest.approx(same["distance"], rel=1e-3)
                for part in ("train_separability", "val_separability"):
                    assert found[part] == pytest.approx(same[part], abs=0.02)
    trained = only(results[0][0], "batches.16 x 1.")
    assert len(trained) > 50
    for tensors, prefix in zip([tensors for tensors, _ in results], ("4 x 4", "8 x 1", "8 x 1"), strict=True):
        for name, value in only(tensors, f"batches.{prefix}.").items():
            other = trained[name.replace(prefix, "16 x 1")]
            assert torch.allclose(value, other, rtol=1e-3, atol=1e-5), name


def test_a_run_of_two_processes_resumes_to_the_bit(results):
    for tensors, values in results[1:]:
        runs = values["resumed"]
        assert [record["kind"] for record in runs["whole"]["records"]] == ["point", "point"]
        assert len([entry for entry in runs["whole"]["log"] if "loss" in entry]) == 9
        expected = {name.removeprefix("resumed.whole."): v for name, v in only(tensors, "resumed.whole.").items()}
        assert any(name.startswith("optimizer.") for name in expected) and len(expected) > 150
        for name in runs:
            assert runs[name] == runs["whole"], name
            for key, value in only(tensors, f"resumed.{name}.").items():
                assert torch.equal(value, expected[key.removeprefix(f"resumed.{name}.")]), key


def test_a_gate_that_never_fires_leaves_the_run_of_two_processes_with_heads_alone(results):
    for tensors, values in results[1:]:
        runs = values["gate"]
        assert runs["heads"]["records"] == []
        assert runs["balanced"]["records"] == [["start", 0], ["point", 2], ["point", 4]]
        assert len([entry for entry in runs["heads"]["log"] if "loss" in entry]) == 8
        assert runs["balanced"]["log"] == runs["heads"]["log"]
        expected = only(tensors, "gate.heads.")
        assert len(expected) > 150
        for name, value in expected.items():
            assert torch.equal(tensors[name.replace("heads", "balanced", 1)], value), name


def test_a_checkpoint_counts_as_whole_when_every_process_has_written_its_share(results):
    files = results[1][1]["files"]
    assert len(files) == 9
    for names in files.values():
        assert {"trainer_state.json", "rng_state_0.pth", "rng_state_1.pth"} <= set(names)
