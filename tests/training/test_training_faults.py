"""A failure of one of two real processes ends both with its message."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("faults_run.py")


def launch(folder: Path, kind: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *launcher, str(SCRIPT), str(folder), kind]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each process saw of each fault: `[{fault: {"error", "warned", "step", "points"}}]`."""
    folder = tmp_path_factory.mktemp("faults")
    done = launch(folder, "agreed")
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"process-{index}.json").read_text()) for index in range(2)]


@pytest.mark.parametrize(
    ("fault", "failing", "message", "step"),
    [
        ("clustering", 0, "MemoryError: the clusters do not fit", 0),
        ("features", 1, "ValueError: no features of this batch", 0),
        ("labels", 1, "OSError: row 0 is damaged", 0),
        ("rows", 1, "OSError: row 4 is damaged", 3),
        ("samples", 0, "/samples.json", 0),
        ("initial weights", 0, "/_initial_weights-", 0),
        ("first record", 0, "/relearn_history.jsonl", 0),
        ("note", 0, "/relearn_run.json", 0),
        ("record", 0, "/relearn_history.jsonl", 3),
    ],
)
def test_a_failure_of_one_process_ends_both_with_its_message(found, fault, failing, message, step):
    for process, faults in enumerate(found):
        seen = faults[fault]
        assert message in seen["error"] and seen["step"] == step and seen["points"] == 0
        if "/" in message:
            assert "OSError: [Errno 28] No space left on device: '" in seen["error"]
        if process != failing and fault != "initial weights":  # which is the very same exception
            assert f"process {failing} of 2 failed" in seen["error"] or "the first process failed" in seen["error"]


def test_features_that_are_not_finite_on_one_process_are_left_out_on_both(found):
    for faults in found:
        assert "error" not in faults["nan"] and (faults["nan"]["step"], faults["nan"]["points"]) == (6, 1)
        assert faults["nan"]["moved"] == 0
    first, second = (faults["nan"]["warned"] for faults in found)
    assert "modality 'audio', training part: features of 16 of 36 samples" in first[0] and len(first) == 4
    assert second == []  # the first process judges


def test_a_row_that_one_process_cannot_train_on_ends_both(tmp_path):
    start = time.monotonic()
    done = launch(tmp_path, "training")
    assert done.returncode != 0 and "OSError: row" in done.stderr and "is damaged" in done.stderr
    assert not list(tmp_path.glob("process-*.json"))
    assert time.monotonic() - start < 120  # the time limit of a collective operation is 30 minutes


@pytest.mark.slow
def test_the_time_limit_of_the_arguments_holds_on_a_cpu(tmp_path):
    done = launch(tmp_path, "late")
    seconds, error = json.loads((tmp_path / "waited.json").read_text())
    assert error and 4 < seconds < 60, (error, done.stderr[-2000:])  # ddp_timeout is 5, the default 30 minutes
