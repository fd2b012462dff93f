"""The recipes, run as a user runs them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import history

from hf_relearn import MultimodalForClassification, MultimodalProcessor
from hf_relearn.cards import card_figures
from hf_relearn.data import build_sample_corpus

ROOT = Path(__file__).parents[2]
SMALL = ["--num_frames", "1", "--image_size", "32", "--spectrogram_size", "32", "32", "--dataloader_num_workers", "0"]
TINY = [
    *("--audio_model_name_or_path", "backbones/resnet-tiny-spectrogram"),
    *("--vision_model_name_or_path", "backbones/resnet-tiny"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return build_sample_corpus(tmp_path_factory.mktemp("corpus") / "sample", num_actors=5, num_sentences=1)


def start_recipe(
    name: str, *flags: str, launcher: tuple[str, ...] = (sys.executable,), cwd: Path = ROOT
) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [*launcher, str(ROOT / "recipes" / name), "--use_cpu", "--disable_tqdm", "true", *flags]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def run_recipe(name: str, *flags: str, **options) -> str:
    process = start_recipe(name, *flags, **options)
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout + process.stderr


def test_cremad_recipe_ends_with_a_model_that_loads_and_a_report(corpus, tmp_path):
    output = tmp_path / "run"
    accelerate = (sys.executable, "-m", "accelerate.commands.launch", "--cpu")
    text = run_recipe(
        "train_cremad.py",
        *("--data_dir", str(corpus), "--cache_dir", str(tmp_path / "cache"), "--output_dir", str(output)),
        *("--num_train_epochs", "3", "--relearn_interval", "1", "--diagnosis_interval", "1", *SMALL, *TINY),
        *("--relearn_strength", "0.9"),
        *("--license", "mit", "--language", "en", "--report_to", "tensorboard"),
        launcher=accelerate,
    )
    assert [record["kind"] for record in history(output)] == ["point", "point", "end"]
    assert "re-learnt (α .90)" in text
    report = (output / "report.md").read_text()
    for figure in ("separability", "accuracy", "features_audio", "features_vision"):
        assert f"figures/{figure}.png" in report
        assert (output / "figures" / f"{figure}.png").stat().st_size > 5000
    events = EventAccumulator(str(next(output.glob("runs/*"))))
    events.Reload()
    (verdict,) = events.Tensors("report/verdict/text_summary")
    assert verdict.tensor_proto.string_val[0].decode() in report
    assert {f"figures/{name.removeprefix('report/')}.png" for name in events.Tags()["images"]} == set(
        re.findall(r"\((figures/.*?)\)", report)
    )
    card = (output / "README.md").read_text()
    shown = re.findall(r"\((figures/.*?)\)", report)
    assert shown[0] == "figures/confusion.png" and card_figures(card) == shown[1:]
    assert "## Classes on test" in report and "| neutral |" in report
    assert "license: mit" in card and "- en\n" in card and "| `preset` | `balanced` |" in card
    assert str(tmp_path) not in card
    model = MultimodalForClassification.from_pretrained(output)
    assert list(model.encoders) == ["audio", "vision"]
    assert list(MultimodalProcessor.from_pretrained(output).inputs) == ["audio", "vision"]
    assert model.config.id2label[0] == "neutral"


@pytest.mark.slow
def test_compare_trains_every_arm_on_the_same_samples(corpus, tmp_path):
    output = tmp_path / "run"
    text = run_recipe(
        "train_cremad.py",
        *("--data_dir", str(corpus), "--cache_dir", str(tmp_path / "cache"), "--output_dir", str(output), "--compare"),
        *("--compare_arms", "joint", "paper", "--compare_seeds", "1", "--compare_jobs", "2"),
        *("--num_train_epochs", "2", "--relearn_interval", "1", *SMALL, *TINY),
    )
    assert "Run 2 of 2 (" in text and "no difference can be told from chance" in (output / "comparison.md").read_text()
    results = [json.loads((output / arm / "seed-42" / "result.json").read_text()) for arm in ("joint", "paper")]
    # 5 actors of 16 clips, of whom 3 train; none of their clips is held out to diagnose.
    assert [result["train_size"] for result in results] == [48, 48]
    assert history(output / "joint" / "seed-42") == []
    (point,) = [record for record in history(output / "paper" / "seed-42") if record["kind"] == "point"]
    assert point["diagnosis_size"] == 16


@pytest.mark.slow
def test_resuming_from_the_last_checkpoint_gives_the_same_model(corpus, tmp_path):
    flags = [
        *("--data_dir", str(corpus), "--cache_dir", str(tmp_path / "cache"), "--num_train_epochs", "3"),
        *("--relearn_interval", "1", "--save_total_limit", "5", *SMALL, *TINY),
    ]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run_recipe("train_cremad.py", *flags, "--output_dir", str(whole))
    run_recipe("train_cremad.py", *flags, "--output_dir", str(resumed))
    last = sorted(resumed.glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))[-1]
    for file in [*last.iterdir()]:
        file.unlink()
    last.rmdir()
    run_recipe("train_cremad.py", *flags, "--output_dir", str(resumed), "--resume_from_checkpoint", "last")
    assert (whole / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()
    assert "Resumed at" not in (resumed / "report.md").read_text()
    changed = ["--resume_from_checkpoint", "last", "--num_train_epochs", "4", "--relearn_lambda", "2.5"]
    run_recipe("train_cremad.py", *flags, "--output_dir", str(resumed), *changed)
    assert "with another `relearn_lambda`: 2.5 instead of 3.0" in (resumed / "report.md").read_text()


def test_a_folder_with_another_run_is_not_overwritten(corpus, tmp_path):
    output = tmp_path / "run"
    (output / "checkpoint-7").mkdir(parents=True)
    flags = ["--data_dir", str(corpus), "--cache_dir", str(tmp_path / "cache"), *SMALL, *TINY]
    accelerate = (sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--cpu")
    process = start_recipe("train_cremad.py", *flags, "--output_dir", str(output), launcher=accelerate)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert process.stderr.splitlines()[-1].startswith("train_cremad.py: error: --output_dir")
    assert [path.name for path in output.iterdir()] == ["checkpoint-7"]


@pytest.mark.filterwarnings("ignore:chance alone explains", "ignore:the diagnosing part has no sample")
def test_multimodal_recipe_on_recorded_digits(shared_data, tmp_path, run_here):
    output = tmp_path / "run"
    run_here(
        "train_multimodal.py",
        *("--dataset_name", str(shared_data / "av_digits"), "--output_dir", str(output), "--from_scratch"),
        *("--max_steps", "4", "--per_device_train_batch_size", "16", "--eval_strategy", "no", "--preset", "paper"),
        *("--diagnosis_max_samples", "20", "--relearn_strategy", "steps", "--relearn_interval", "2"),
    )
    assert [record["step"] for record in history(output) if record["kind"] == "point"] == [2]
    assert "| accuracy |" in (output / "report.md").read_text()


def test_without_data_the_stand_in_is_built_and_named_as_such(tmp_path, run_here, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    sizes = []

    def few(folder: str, **size: int) -> Path:
        sizes.append(size)
        return build_sample_corpus(folder, num_actors=5, num_sentences=1)

    monkeypatch.setattr("hf_relearn.data.build_sample_corpus", few)
    run_here(
        "train_cremad.py",
        *("--cache_dir", str(tmp_path / "cache"), "--max_steps", "2", "--per_device_train_batch_size", "8"),
        *("--eval_strategy", "no", "--diagnosis_interval", "0", "--relearn_strategy", "no", *SMALL, *TINY),
    )
    text = caplog.text
    first = text.index("SYNTHETIC stand-in")
    assert first < text.index("preparing CREMA-D")
    assert "--data_dir" in text[first : first + 500]
    assert sizes == [{"num_actors": 30, "num_sentences": 4}]
    report = (tmp_path / "outputs" / "cremad_sample_run" / "report.md").read_text()
    assert report.startswith("# CREMA-D: a synthetic stand-in")
    assert "SYNTHETIC" in report
