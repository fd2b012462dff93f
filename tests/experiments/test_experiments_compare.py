"""A comparison as a user starts it: processes, kills, failures, and the command that draws it anew."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

ROOT = Path(__file__).parents[2]
ARMS = ("joint", "heads", "heads_ensemble")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Two sensors with two numbers each, three classes."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("table")
    for split, count in (("train", 96), ("validation", 48), ("test", 48)):
        labels = rng.integers(0, 3, count)
        columns = {name: labels + rng.normal(0, 1.5, count) for name in "abcd"}
        names = ["low", "middle", "high"]
        Dataset.from_dict({**columns, "label": [names[label] for label in labels]}).to_parquet(
            folder / f"{split}.parquet"
        )
    return folder


@pytest.fixture(scope="module")
def start(table):
    """Start a comparison on the table, two runs long."""

    def start(output: Path, *flags: str, arms: tuple[str, ...] = ARMS) -> subprocess.Popen:
        command = [
            sys.executable,
            str(ROOT / "recipes" / "train_multimodal.py"),
            "--use_cpu",
            "--disable_tqdm",
            "true",
        ]
        command += ["--dataset_name", str(table), "--modalities", "x:features", "y:features"]
        command += ["--columns", "x=a,b", "y=c,d", "--per_device_train_batch_size", "8", "--num_train_epochs", "4"]
        command += ["--output_dir", str(output), "--compare", "--compare_seeds", "1", "--compare_arms", *arms, *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    return start


def finished(process: subprocess.Popen, code: int = 0) -> str:
    text, _ = process.communicate(timeout=600)
    assert process.returncode == code, text[-3000:]
    return text


def without_cost(folder: Path) -> dict:
    verdict = json.loads((folder / "comparison.json").read_text())
    assert verdict.pop("cost")
    return verdict


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory) -> Path:
    """A comparison that nothing interrupted, with two runs at a time."""
    output = tmp_path_factory.mktemp("whole") / "run"
    text = finished(start(output, "--compare_jobs", "2"))
    assert "Run 3 of 3 (" in text and "About " in text
    end = text[text.index("\narm ") :].splitlines()
    assert end[1].split() == ["arm", "seeds", "test", "accuracy", "over", "joint", "p", "(Holm)"]
    assert [line.split()[0] for line in end[2:5]] == list(ARMS)
    assert len(end[2].split()) == 3 and re.fullmatch(r"heads +1 +[\d.]+ +[+-][\d.]+", end[3])
    assert end[-1].split() == ["report", str(output / "comparison.md")]
    return output


def test_each_run_leaves_its_result_and_no_checkpoints(whole):
    for arm in ("joint", "heads"):
        run = whole / arm / "seed-42"
        result = json.loads((run / "result.json").read_text())
        assert result["epochs"]["last"] == 4 and 1 <= result["epochs"]["best"] <= 4
        validation = [result["results"][epoch]["validation"]["accuracy"] for epoch in ("best", "last")]
        assert validation[0] >= validation[1]
        assert result["seconds"] > 0 and result["peak_memory"] > 2**20
        assert (run / "model.safetensors").is_file() and (run / "report.md").is_file()
        assert not [*run.glob("checkpoint-*"), *run.glob("_initial_weights-*")]
    assert (whole / "comparison.png").stat().st_size > 5000
    arms = without_cost(whole)["epochs"]["last"]["arms"]
    assert list(arms) == list(ARMS) and arms["heads"]["to"]["joint"]["n"] == 1


@pytest.mark.slow
def test_killed_twice_and_with_one_run_at_a_time_it_ends_with_the_same_figures(start, whole, tmp_path):
    output = tmp_path / "run"
    first = start(output, "--compare_jobs", "1")
    for line in first.stdout:
        if "Run 1 of 3 (joint, seed 42) is done" in line:
            break
    first.kill()
    trained = (output / "joint" / "seed-42" / "result.json").stat().st_mtime_ns
    second = start(output, "--compare_jobs", "1")
    deadline = time.monotonic() + 300
    while not list(output.glob("heads/seed-42/checkpoint-*/trainer_state.json")):
        assert second.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    text = finished(start(output, "--compare_jobs", "1"))
    assert "1 of 3 runs are done already" in text
    assert (output / "joint" / "seed-42" / "result.json").stat().st_mtime_ns == trained
    assert without_cost(output) == without_cost(whole)
    for process in (first, second):
        process.communicate()


def test_a_failed_run_is_reported_and_does_not_end_the_rest(start, whole, tmp_path):
    output = tmp_path / "run"
    encoder = str(tmp_path / "nowhere")
    arms = ("joint", "ensemble")
    text = finished(start(output, "--encoders_from", f"y={encoder}", arms=arms), code=1)
    verdict = json.loads((output / "comparison.json").read_text())
    assert list(verdict["epochs"]["last"]["arms"]) == ["only_x"]
    assert set(verdict["failures"]) == {"joint, seed 42", "only_y, seed 42", "ensemble, seed 42"}
    assert "nowhere" in verdict["failures"]["joint, seed 42"]
    assert verdict["failures"]["ensemble, seed 42"] == "it needs only_y, seed 42, which failed"
    assert "(joint, seed 42) failed: " in text
    assert "## Runs that failed" in (output / "comparison.md").read_text()


def test_other_flags_do_not_mix_with_finished_runs(start, whole):
    before = (whole / "comparison.json").read_bytes()
    text = finished(start(whole, "--learning_rate", "0.5"), code=1)
    assert "was started with another --learning_rate" in text
    assert (whole / "comparison.json").read_bytes() == before


def test_the_command_draws_a_comparison_anew(whole, tmp_path):
    command = [sys.executable, "-m", "hf_relearn", "compare", str(whole), "--output", str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no difference can be told from chance" in done.stdout and f"{tmp_path / 'new'}" in done.stdout
    assert without_cost(tmp_path / "new") == without_cost(whole)
    assert (tmp_path / "new" / "comparison.png").read_bytes() == (whole / "comparison.png").read_bytes()
