"""A preparation of CREMA-D that is killed leaves whole files only, and the next one completes it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

SCRIPT = Path(__file__).with_name("killed_preparation.py")
# What the killed process was about to do, for the how many-th time: (audit event, part of the path, occurrence).
MOMENTS = {
    "shard: begun": ("open", ".partial", 2),
    "shard: its notes begun": ("open", ".partial-notes", 2),
    "shard: written, its notes not in place": ("os.rename", ".partial-notes", 2),
    "shard: notes in place, rows not": ("os.rename", ".partial", 4),
    "list of unreadable clips: begun": ("open", "unreadable.csv.partial", 2),
    "list of unreadable clips: not in place": ("os.rename", "unreadable.csv.partial", 2),
}
KILLS = 6


@pytest.fixture(scope="module")
def prepared(corpus_once, tmp_path_factory) -> Path:
    """Folder with all preparations of 24 clips, one of them unreadable."""
    folder = tmp_path_factory.mktemp("preparations")
    for kind in ("AudioWAV", "VideoFlash"):
        (folder / "clone" / kind).mkdir(parents=True)
        for path in sorted((corpus_once / kind).iterdir())[:24]:
            shutil.copy(path, folder / "clone" / kind)
    sorted((folder / "clone" / "AudioWAV").iterdir())[3].write_bytes(b"no sound")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    arguments = [str(folder / "clone"), str(folder), str(KILLS), json.dumps(list(MOMENTS.values()))]
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def files_of(cache: Path) -> dict[str, bytes]:
    (folder,) = [path for path in cache.iterdir() if path.is_dir()]
    return {path.name: path.read_bytes() for path in folder.iterdir()}


NAMES = [f"event-{number}" for number in range(len(MOMENTS))] + [f"random-{number}" for number in range(KILLS)]


@pytest.mark.parametrize("name", NAMES, ids=[*MOMENTS, *NAMES[len(MOMENTS) :]])
def test_a_killed_preparation_is_completed(prepared, name):
    expected = files_of(prepared / "whole")
    assert len([file for file in expected if file.endswith(".arrow")]) == 3
    for path in (prepared / f"{name}-killed").glob("*/*.arrow"):
        datasets.Dataset.from_file(str(path))  # whole, or it would raise

    assert files_of(prepared / name) == expected
    rows = json.loads((prepared / f"{name}.json").read_text())
    assert rows == json.loads((prepared / "whole.json").read_text()) and len(rows["name"]) == 23


def test_the_kills_came_while_files_were_written(prepared):
    for number in range(len(MOMENTS)):
        (left,) = [path for path in (prepared / f"event-{number}-killed").iterdir() if path.is_dir()]
        assert {path.name for path in left.iterdir()} != set(files_of(prepared / "whole")), number
