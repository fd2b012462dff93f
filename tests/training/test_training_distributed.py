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


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """[(tensors, values) of one process alone, of process 0 of 2, of process 1 of 2]"""
    folder = tmp_path_factory.mktemp("distributed")
    launch(folder / "one")
    launch(folder / "two", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    return [result_of(folder / "one", 0), result_of(folder / "two", 0), result_of(folder / "two", 1)]


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
    assert len(results[1][1]["probes"]) == 3 and results[1][1]["probes"] == results[2][1]["probes"]


def test_the_diagnosing_part_returns_in_every_process_after_the_point(results):
    held_out = set(results[1][1]["held_out"])
    assert results[1][1]["steps"] == results[2][1]["steps"] == 3 * 4  # 27 samples in batches of 2 times 4
    epochs = [first + second for first, second in zip(*(values["epochs"] for _, values in results[1:]), strict=True)]
    assert len(epochs) == 3
    for number, rows in enumerate(epochs):
        assert len(set(rows)) == 27  # beside a few that even out the last batch
        assert bool(set(rows) & held_out) == (number >= 1)
    assert len({tuple(rows) for rows in epochs}) == 3
