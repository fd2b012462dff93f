"""Two real processes give the optimizer the gradients that one gives it of the same rows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from expected import EXPECTED, encoder_of, separate_gradients
from safetensors.torch import load_file

from hf_relearn.balancing import METHODS

SCRIPT = Path(__file__).with_name("balancing_run.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *launcher, str(SCRIPT), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    refused = {path.stem.removeprefix("refused-"): path.read_text() for path in folder.glob("refused-*.txt")}
    return [*(load_file(folder / f"process-{index}.safetensors") for index in range(2)), refused]


def of_method(tensors, method):
    return {name.removeprefix(f"{method}:"): v for name, v in tensors.items() if name.startswith(f"{method}:")}


@pytest.mark.parametrize("method", METHODS)
def test_both_processes_have_the_same_gradients(results, method):
    first, second = (of_method(tensors, method) for tensors in results[:2])
    assert len(first) > 20 and set(first) == set(second)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def assert_close(found, expected):
    assert any(encoder_of(name) for name in found)
    for name, gradient in found.items():
        tolerance = 1e-4 * float(expected[name].abs().max()) + 1e-8
        assert torch.allclose(gradient, expected[name], rtol=1e-4, atol=tolerance), name


@pytest.mark.parametrize("method", EXPECTED)
def test_they_are_those_of_the_formula(results, method):
    assert_close(of_method(results[0], method), EXPECTED[method](*separate_gradients()))


def test_parameters_that_processes_share_out_get_the_same_gradients_or_are_refused(results):
    for method in ("detached", "mlb", "modality_dropout"):
        found = of_method(results[0], f"sharded {method}")
        assert len(found) > 20
        assert_close(found, EXPECTED[method](*separate_gradients()))
    assert set(results[2]) == {"ogm_ge", "mmpareto"}
    for method, message in results[2].items():
        assert message == f"--balancing {method} needs whole gradients, but FSDP divides them among processes: use DDP"
