"""A run that is killed, again and again, ends as if nothing had happened."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny import assert_same, history, without_times

from hf_relearn.method import InitialWeights
from hf_relearn.training.checkpoints import is_whole

SCRIPT = Path(__file__).with_name("killed_run.py")
KILLS = 20
# What the killed process was about to do, for the how many-th time: (audit event, part of the path, occurrence).
MOMENTS = {
    "initial weights: written, without their mode": ("os.chmod", "._initial_weights-", 1),
    "initial weights: written, not in place": ("os.rename", "._initial_weights-", 1),
    "record: begun": ("open", "/.relearn_history.jsonl", 1),
    "record: written, not in place": ("os.rename", "/.relearn_history.jsonl", 1),
    "note: written, not in place": ("os.rename", "/.relearn_run.json", 1),
    "record of a point: about to be appended": ("open", "/relearn_history.jsonl", 2),
    "checkpoint: folder only": ("open", "checkpoint-3/.relearn_run.json", 1),
    "checkpoint: our own files": ("open", "checkpoint-4/config.json", 1),
    "checkpoint: all but the Trainer's state": ("open", "checkpoint-5/trainer_state.json", 1),
    "older checkpoint: about to be deleted": ("shutil.rmtree", "checkpoint-", 1),
    "older checkpoint: half deleted": ("os.remove", "model.safetensors", 1),
}


def result_of(folder: Path) -> dict:
    """Everything that has to be equal to the bit, without what a clock measured."""
    return {
        "weights": load_file(folder / "weights.safetensors"),
        "optimizer": load_file(folder / "optimizer.safetensors"),
        "log": without_times(json.loads((folder / "log.json").read_text())),
        "history": without_times([json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]),
    }


@pytest.fixture(scope="module")
def lived(tmp_path_factory) -> Path:
    """Folder in which all lives were lived and died, one after the other, by one program."""
    folder = tmp_path_factory.mktemp("lives")
    plan = {"seed": 0, "kills": KILLS, "events": list(MOMENTS.values())}
    (folder / "plan.json").write_text(json.dumps(plan))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def expected(lived) -> dict:
    """Result of the run that nothing interrupted."""
    result = result_of(lived / "uninterrupted-result")
    assert [record["kind"] for record in result["history"]] == ["start", "point", "point", "point", "end"]
    assert any(0 < values["alpha"] < 1 for r in result["history"][:-1] for values in r["modalities"].values())
    assert [entry["step"] for entry in result["log"] if "eval_loss" in entry] == [2, 4, 6, 8]
    return result


def nothing_half_written(folder: Path) -> None:
    """Every file that appears under its own name can be read, at any moment."""
    history(folder)
    for path in InitialWeights.find(folder):
        InitialWeights.load(path)
    for checkpoint in folder.glob("checkpoint-*"):
        history(checkpoint)
        if (checkpoint / "relearn_run.json").exists():
            json.loads((checkpoint / "relearn_run.json").read_text())


@pytest.mark.parametrize("number", range(len(MOMENTS)), ids=list(MOMENTS))
def test_a_run_killed_at_a_tender_moment_goes_on(lived, expected, number):
    (left,) = lived.glob(f"moment-{number}-killed-*")
    nothing_half_written(left)
    assert_same(result_of(lived / f"moment-{number}-result"), expected)
    assert not list((lived / f"moment-{number}").rglob(".*.tmp"))


def test_runs_killed_at_random_moments_end_as_the_uninterrupted_one(lived, expected):
    for folder in lived.glob("random-*-killed-*"):
        nothing_half_written(folder)
    results = list(lived.glob("random-*-result"))
    assert len(results) > 1
    for folder in results:
        assert_same(result_of(folder), expected)
        run = folder.with_name(folder.name.removesuffix("-result"))
        assert all(is_whole(checkpoint) for checkpoint in run.glob("checkpoint-*"))
        assert not list(run.rglob(".*.tmp"))
