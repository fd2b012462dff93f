"""A run that is killed, again and again, ends as if nothing had happened."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny import assert_same, without_times

from hf_relearn.method import InitialWeights
from hf_relearn.training import read_history
from hf_relearn.training.checkpoints import is_whole

SCRIPT = Path(__file__).with_name("killed_run.py")
KILLS = 20
RUNS = 11  # each killed twice, where it is not faster than it should be
# What the killed process was about to do, for the how many-th time: (audit event, part of the path, occurrence).
MOMENTS = {
    "initial weights: begun": ("open", "._initial_weights-", 1),
    "initial weights: written, not in place": ("os.rename", "._initial_weights-", 1),
    "record: begun": ("open", "/.relearn_history.jsonl", 2),
    "record: written, not in place": ("os.rename", "/.relearn_history.jsonl", 4),
    "record of a point: written, not in place": ("os.rename", "/.relearn_history.jsonl", 5),
    "checkpoint: folder only": ("open", "checkpoint-3/.relearn_history.jsonl", 1),
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
    generator = random.Random(0)
    plan: list[dict] = [{"run": "warm-up"}, {"run": "uninterrupted"}]
    plan += [{"run": f"random-{run}", "share": generator.uniform(0.05, 0.5)} for run in range(RUNS) for _ in range(2)]
    plan += [{"run": f"moment-{number}", "event": event} for number, event in enumerate(MOMENTS.values())]
    plan += [{"run": run} for run in sorted({life["run"] for life in plan[2:]})]
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
    assert [record["kind"] for record in result["history"]] == ["point", "point", "point", "end"]
    assert any(0 < values["alpha"] < 1 for r in result["history"][:-1] for values in r["modalities"].values())
    assert [entry["step"] for entry in result["log"] if "eval_loss" in entry] == [2, 4, 6, 8]
    return result


def nothing_half_written(folder: Path) -> None:
    """Every file that appears under its own name can be read, at any moment."""
    read_history(folder)
    for path in InitialWeights.find(folder):
        InitialWeights.load(path)
    for checkpoint in folder.glob("checkpoint-*"):
        read_history(checkpoint)
        if (checkpoint / "relearn_run.json").exists():
            json.loads((checkpoint / "relearn_run.json").read_text())


@pytest.mark.parametrize("number", range(len(MOMENTS)), ids=list(MOMENTS))
def test_a_run_killed_at_a_tender_moment_goes_on(lived, expected, number):
    (left,) = lived.glob(f"moment-{number}-killed-*")
    nothing_half_written(left)
    assert_same(result_of(lived / f"moment-{number}-result"), expected)
    assert not list((lived / f"moment-{number}").rglob(".*.tmp"))


def test_runs_killed_at_random_moments_end_as_the_uninterrupted_one(lived, expected):
    kills = [life for life in json.loads((lived / "lives.json").read_text()) if "share" in life and life["killed"]]
    assert len(kills) >= KILLS
    for left in lived.glob("random-*-killed-*"):
        nothing_half_written(left)
    for run in range(RUNS):
        assert_same(result_of(lived / f"random-{run}-result"), expected)
        assert all(is_whole(checkpoint) for checkpoint in (lived / f"random-{run}").glob("checkpoint-*"))
