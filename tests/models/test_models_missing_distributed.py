"""A modality that is missing on some processes only: two real processes, by DDP and sharded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distributed_missing import RUNS, model_of, train
from fusions import NAMES
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("distributed_missing.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("missing")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *launcher, str(SCRIPT), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("run", [*RUNS, "sharded"])
def test_processes_train_one_model_as_a_single_process_would(run, folder):
    first, second = (load_file(folder / f"{run}-{process}.safetensors") for process in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())

    alone = model_of("concat" if run == "sharded" else run)
    start = {name: value.clone() for name, value in alone.state_dict().items()}
    train(alone, [0, 1])
    expected = alone.state_dict()
    assert all(torch.allclose(value, expected[name], rtol=1e-4, atol=1e-6) for name, value in first.items())
    for modality in NAMES:
        moved = [name for name, value in first.items() if modality in name and not torch.equal(value, start[name])]
        assert any("encoders" in name for name in moved), modality
