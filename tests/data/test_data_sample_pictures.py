"""The generated image-text data set."""

import json

import datasets
import pytest
from PIL import Image

from hf_relearn.data import build_sample_pictures
from hf_relearn.data.sample_pictures import SIZE


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return build_sample_pictures(tmp_path_factory.mktemp("pictures") / "set")


def test_splits_are_read_by_datasets_with_pictures_texts_and_labels(pictures, tmp_path):
    splits = datasets.load_dataset(str(pictures), cache_dir=str(tmp_path))
    assert {name: split.num_rows for name, split in splits.items()} == {"train": 1200, "validation": 300, "test": 300}
    row = splits["test"][0]
    assert row["image"].size == (SIZE, SIZE)
    assert row["label"] == "circle" and row["text"]
    assert set(splits["test"]["label"]) == {"circle", "square", "triangle", "star", "cross", "ring"}


def test_neither_the_texts_nor_the_pictures_tell_everything(pictures):
    rows = [json.loads(line) for line in (pictures / "test" / "metadata.jsonl").read_text().splitlines()]
    told = sum(any(word in row["text"] for word in ("shape", "figure", "thing", "sign")) for row in rows)
    # "plus sign" names the cross, so the bound is generous.
    assert 0.2 < told / len(rows) < 0.45
    assert len({row["text"] for row in rows}) > 200


def test_the_same_seed_gives_the_same_files_and_another_seed_others(pictures, tmp_path):
    again, other = build_sample_pictures(tmp_path / "again"), build_sample_pictures(tmp_path / "other", seed=1)
    for name in ("metadata.jsonl", "0007.png"):
        content = (pictures / "validation" / name).read_bytes()
        assert (again / "validation" / name).read_bytes() == content
        assert (other / "validation" / name).read_bytes() != content


def test_a_folder_that_is_there_is_taken_or_refused_but_never_changed(pictures, tmp_path):
    before = (pictures / "train" / "0000.png").stat().st_mtime_ns
    assert build_sample_pictures(pictures) == pictures
    assert (pictures / "train" / "0000.png").stat().st_mtime_ns == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(FileExistsError, match="holds no sample pictures: choose another folder"):
        build_sample_pictures(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_build_that_fails_leaves_nothing(tmp_path, monkeypatch):
    saved = []

    def save(self, path):
        saved.append(path)
        if len(saved) == 20:
            raise OSError("disk full")
        original(self, path)

    original = Image.Image.save
    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match="disk full"):
        build_sample_pictures(tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
