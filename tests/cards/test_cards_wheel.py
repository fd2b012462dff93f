"""Source archive and wheel carry every module, the card's template, the figures' style, and the recipes, which run."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel that is built from the source archive, as an index would get both."""
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"setuptools {setuptools.__version__} is older than what builds this package (77)")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("src", "model_cards", "recipes"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-c", BUILD]
    subprocess.run([*build, "build_sdist", str(folder)], check=True, cwd=source, capture_output=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.glob("hf_relearn-*/")
    subprocess.run([*build, "build_wheel", str(folder)], check=True, cwd=unpacked, capture_output=True)
    return next(folder.glob("*.whl"))


def files_below(folder: Path, *patterns: str) -> dict[str, bytes]:
    """Name below a folder -> content."""
    found = [path for pattern in patterns for path in folder.rglob(pattern)]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_wheel_holds_all_modules_the_template_and_the_recipes(wheel):
    with zipfile.ZipFile(wheel) as opened:
        held = {name: opened.read(name) for name in opened.namelist() if ".dist-info/" not in name}
    expected = files_below(ROOT / "src", "*.py", "py.typed", "*.mplstyle")
    recipes = files_below(ROOT / "recipes", "*.py", "config.json", "*.yaml")
    assert {"train_cremad.py", "backbones/resnet-tiny/config.json"} <= set(recipes)
    expected |= {f"hf_relearn/recipes/{name}": content for name, content in recipes.items()}
    expected["hf_relearn/model_cards/template.md"] = (ROOT / "model_cards" / "template.md").read_bytes()
    assert held == expected


@pytest.mark.slow
def test_recipe_of_the_wheel_trains_by_the_command(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "hf_relearn", "train", "image-text", "--use_cpu", "--max_steps", "2"]
    small = ["--image_size", "32", "--eval_strategy", "no", "--diagnosis_interval", "0", "--disable_tqdm", "true"]

    def start(*flags: str) -> subprocess.CompletedProcess:
        flags = (*command, *small, "--output_dir", "run", *flags)
        return subprocess.run(flags, cwd=tmp_path, env=environment, capture_output=True, text=True)

    done = start("--relearn_strategy", "no")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert "/site/" not in (tmp_path / "run" / "README.md").read_text()
    again = start()
    assert again.returncode == 1 and again.stderr.startswith("hf-relearn train image-text: error: --output_dir run")
