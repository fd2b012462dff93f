"""A run that is killed, again and again, ends as if nothing had happened."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from killed_run import CONFIGURATIONS
from safetensors.torch import load_file
from tiny import assert_same, history, without_times

from hf_relearn.method import InitialWeights
from hf_relearn.training.checkpoints import is_whole

SCRIPT = Path(__file__).with_name("killed_run.py")
# Lives of each configuration that are ended at random moments.
KILLS = 5
# Configurations that are always tried.
DEFAULT = 2
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
    "checkpoint: arguments written, not in place": ("os.rename", "checkpoint-8/.training_arguments.json", 1),
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


def live(folder: Path, configurations: list[str], events: list[tuple]) -> Path:
    """Let one program live all lives in a folder, one after the other."""
    plan = {"seed": 0, "configurations": configurations, "kills": KILLS, "events": events}
    (folder / "plan.json").write_text(json.dumps(plan))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def lived(tmp_path_factory) -> Path:
    """Folder in which the lives of the first configurations were lived and died."""
    return live(tmp_path_factory.mktemp("lives"), list(CONFIGURATIONS)[:DEFAULT], list(MOMENTS.values()))


@pytest.fixture(scope="module")
def expected(lived) -> dict:
    """Result of the run of the first configuration that nothing interrupted."""
    result = result_of(lived / f"{next(iter(CONFIGURATIONS))}-uninterrupted-result")
    assert [record["kind"] for record in result["history"]] == ["start", "point", "point", "point", "end"]
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


def assert_equal_to_uninterrupted(folder: Path, configuration: str) -> None:
    """A configuration's killed runs left whole files, and those that came to an end ended as if nothing happened."""
    uninterrupted = result_of(folder / f"{configuration}-uninterrupted-result")
    moved = [values["alpha"] for record in uninterrupted["history"] for values in record["modalities"].values()]
    assert any(moved)
    left = list(folder.glob(f"{configuration}-random-*-killed-*"))
    assert left
    for path in left:
        nothing_half_written(path)
    results = list(folder.glob(f"{configuration}-random-*-result"))
    assert results
    for path in results:
        assert_same(result_of(path), uninterrupted)
        run = path.with_name(path.name.removesuffix("-result"))
        # One that was half deleted may stay behind if nothing was left to train.
        assert is_whole(max(run.glob("checkpoint-*"), key=lambda checkpoint: int(checkpoint.name.split("-")[1])))
        assert sorted(run.rglob(".*.tmp")) == []


@pytest.mark.parametrize("configuration", list(CONFIGURATIONS)[:DEFAULT])
def test_a_run_killed_at_random_moments_ends_as_the_uninterrupted_one(lived, configuration):
    assert_equal_to_uninterrupted(lived, configuration)


@pytest.mark.slow
def test_runs_of_all_other_configurations_do_so_too(tmp_path):
    others = list(CONFIGURATIONS)[DEFAULT:]
    live(tmp_path, others, [])
    for configuration in others:
        assert_equal_to_uninterrupted(tmp_path, configuration)
