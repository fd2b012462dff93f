"""A tiny corpus for the tests of the data sets, built once."""

import shutil
from pathlib import Path

import pytest

from hf_relearn.data import build_sample_corpus


@pytest.fixture(scope="session")
def corpus_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three actors, two sentences: 66 clips. Read only."""
    return build_sample_corpus(tmp_path_factory.mktemp("corpus") / "sample", num_actors=3, num_sentences=2, num_proc=1)


@pytest.fixture
def clone(corpus_once: Path, tmp_path: Path) -> Path:
    """A copy of the tiny corpus that a test may damage."""
    return Path(shutil.copytree(corpus_once, tmp_path / "clone"))
