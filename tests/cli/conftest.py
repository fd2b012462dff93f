"""A saved model and samples for the commands."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from tiny import NUM_CLASSES, tiny_model

from hf_relearn import MultimodalProcessor
from hf_relearn.cli.main import main


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """An audio + image model with its processor."""
    folder = tmp_path_factory.mktemp("saved") / "my-model"
    model = tiny_model()
    model.save_pretrained(folder)
    MultimodalProcessor.from_model(model.config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """A folder with `train.csv` and `validation.csv` beside sounds and pictures, and `samples.jsonl`."""
    folder = tmp_path_factory.mktemp("clips")
    for split, size in (("train", 18), ("validation", 12)):
        lines = ["sound,picture,emotion"]
        for index in range(size):
            label, generator = index % NUM_CLASSES, np.random.default_rng([index, size])
            tone = np.sin(np.arange(3200) * (0.1 + 0.3 * label)) + 0.1 * generator.normal(size=3200)
            pixels = generator.integers(0, 80, size=(16, 16, 3)) + 80 * label
            soundfile.write(folder / f"{split}{index}.wav", 0.3 * tone, 16000)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{split}{index}.png")
            lines.append(f"{split}{index}.wav,{split}{index}.png,emotion {label}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    samples = [{"audio": "train0.wav", "vision": "train0.png"}, {"audio": "train1.wav", "vision": None}]
    (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return folder


@pytest.fixture
def run(capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: exit code, stdout, stderr."""

    def run_command(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_command
