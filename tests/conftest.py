"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several tests run at a time, and results to the bit need one thread


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real recorded data, which is not part of the repository."""
    folder = Path(os.environ.get("HF_RELEARN_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the recorded data set folder {folder} is absent (set HF_RELEARN_SHARED_DATA to where it is)")
    return folder


@pytest.fixture(scope="session")
def shared_reference(shared_data: Path) -> Path:
    """Folder with reference values of the method, beside the recorded data."""
    folder = shared_data.parent / "reference"
    if not folder.is_dir():
        pytest.skip(f"the folder of reference values {folder} is absent")
    return folder
