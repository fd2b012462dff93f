"""The recipes' `--push_to_hub`, run as a user runs them."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hub_client import pull_files
from hub_server import TOKEN, USER
from test_hub_push import CODE, MODEL, RUN, assert_nothing_local, figures_shown

from hf_relearn.data import build_sample_corpus
from hf_relearn.hub.upload import PUSH_FAILED_EXIT_CODE

ROOT = Path(__file__).parents[2]
FLAGS = [
    *(
        "--use_cpu",
        "--disable_tqdm",
        "true",
        "--num_frames",
        "1",
        "--image_size",
        "32",
        "--spectrogram_size",
        "32",
        "32",
    ),
    *("--dataloader_num_workers", "0", "--num_train_epochs", "2", "--relearn_interval", "1"),
    *("--audio_model_name_or_path", "backbones/resnet-tiny-spectrogram"),
    *("--vision_model_name_or_path", "backbones/resnet-tiny", "--save_strategy", "no", "--push_to_hub"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return build_sample_corpus(tmp_path_factory.mktemp("corpus") / "sample", num_actors=5, num_sentences=1)


def run_recipe(corpus: Path, output: Path, environment: dict[str, str], *flags: str) -> subprocess.CompletedProcess:
    folders = ["--data_dir", str(corpus), "--cache_dir", str(corpus.parent / "cache"), "--output_dir", str(output)]
    command = [sys.executable, str(ROOT / "recipes" / "train_cremad.py"), *folders, *FLAGS, *flags]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_recipe_pushes_a_model_that_a_colleague_loads(client, hub, corpus, tmp_path, client_environment):
    output = tmp_path / "run"
    process = run_recipe(corpus, output, client_environment, "--hub_model_id", f"{USER}/cremad")
    assert process.returncode == 0, process.stderr[-3000:]
    files = hub.repositories[f"{USER}/cremad"].files
    assert set(files) == MODEL | RUN | CODE | figures_shown(files)
    assert_nothing_local(files, str(tmp_path), str(ROOT), str(corpus.parent))
    local, pulled = client(pull_files, str(output)), client(pull_files, f"{USER}/cremad")
    assert pulled == local
    assert (output / "report.md").is_file()


def test_a_recipe_whose_push_fails_finishes_and_says_so_by_its_exit(hub, corpus, tmp_path, client_environment):
    output = tmp_path / "later"
    without_token = {name: value for name, value in client_environment.items() if name != "HF_TOKEN"}
    process = run_recipe(corpus, output, without_token)
    assert process.returncode == PUSH_FAILED_EXIT_CODE == 75, process.stderr[-3000:]
    assert "Nothing is pushed for now" in process.stderr
    assert "the token is missing" in process.stderr
    assert (output / "model.safetensors").is_file() and (output / "report.md").is_file()
    command = shlex.split(process.stderr.strip().splitlines()[-1])
    assert command[:3] == ["hf", "upload", "later"]
    subprocess.run(command, env={**client_environment, "HF_TOKEN": TOKEN}, check=True, capture_output=True)
    files = hub.repositories[f"{USER}/later"].files
    assert set(files) == MODEL | RUN | CODE | figures_shown(files)


def test_a_comparison_pushes_nothing_and_says_so_before_it_trains(corpus, tmp_path, client_environment):
    process = run_recipe(corpus, tmp_path / "run", client_environment, "--compare")
    assert process.returncode == 1
    assert "--compare pushes nothing: train the arm that you want by itself" in process.stderr
    assert not (tmp_path / "run").exists()
