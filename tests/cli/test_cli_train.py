"""`hf-relearn train`: recipes by their names, in one process or several."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf_relearn import MultimodalForClassification
from hf_relearn.cli.train import RECIPES, recipes_folder

TINY = ["--from_scratch", "--modalities", "audio", "vision", "--columns", "audio=sound", "vision=picture"]
TINY += ["--label_column", "emotion", "--use_cpu", "--disable_tqdm", "true", "--per_device_train_batch_size", "4"]
TINY += ["--image_size", "16", "--spectrogram_size", "16", "16", "--max_steps", "2", "--save_strategy", "no"]
TINY += [
    "--validation_fraction",
    "0.3",
    "--eval_strategy",
    "no",
    "--relearn_strategy",
    "no",
    "--diagnosis_interval",
    "0",
]


def train(*words: object, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "hf_relearn", "train", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("recipe", RECIPES)
def test_help_of_a_recipe_is_that_of_its_file_under_the_name_of_the_command(recipe, tmp_path):
    done = train(recipe, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: hf-relearn train {recipe} [flags]")
    assert f"    hf-relearn train {recipe} --" in done.stdout and "accelerate launch" not in done.stdout
    (file,) = recipes_folder().glob(f"*{recipe.replace('-', '_')}.py")
    own = subprocess.run([sys.executable, str(file), "--help"], capture_output=True, text=True, timeout=120).stdout
    assert done.stdout.partition("\ndata:\n")[2] == own.partition("\ndata:\n")[2] != ""


def test_several_processes_share_the_work(clips, tmp_path):
    flags = ["--dataset_name", clips / "train.csv", "--output_dir", "run", "--num_processes", "2", *TINY]
    done = train("multimodal", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| `world_size` | `2` |" in (tmp_path / "run" / "report.md").read_text()
    assert list(MultimodalForClassification.from_pretrained(tmp_path / "run").encoders) == ["audio", "vision"]


def test_number_of_processes_that_cannot_be_is_wrong_usage(run):
    code, out, err = run("train", "cremad", "--num_processes", "0")
    assert (code, out) == (2, "") and err.startswith("hf-relearn train: error: --num_processes is 0")
    assert run("train", "cremad", "--num_processes", "two")[0] == 2
    assert run("train", "fly")[0] == 2
