"""Loading any data set with an audio, an image and a label column."""

import io

import datasets
import numpy as np
import pytest
import soundfile
from PIL import Image

from hf_relearn.data.tables import TableError, load_table

COLUMNS = {"audio": "sound", "image": "picture"}
SPLITS = {"train": "train", "validation": "validation", "test": "test"}


def wav() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(800, dtype=np.float32), 8000, format="WAV")
    return buffer.getvalue()


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, format="PNG")
    return buffer.getvalue()


def write_split(folder, split, labels):
    folder.mkdir(exist_ok=True)
    rows = {
        "sound": [{"bytes": wav(), "path": None}] * len(labels),
        "picture": [{"bytes": png(), "path": None}] * len(labels),
        "kind": labels,
    }
    datasets.Dataset.from_dict(rows).to_parquet(folder / f"{split}.parquet")


def load(folder, cache=None, **changes):
    options = {"columns": COLUMNS, "label_column": "kind", "splits": SPLITS, **changes}
    return load_table(str(folder), **options)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_string_labels_become_classes_over_all_splits(tmp_path):
    write_split(tmp_path / "set", "train", ["dog", "cat"] * 10)
    write_split(tmp_path / "set", "test", ["eel", "cat"])
    splits = load(tmp_path / "set")
    assert splits["train"].features["kind"].names == ["cat", "dog", "eel"]
    assert splits["test"]["kind"][:] == [2, 0]
    assert splits["train"][0]["sound"]["bytes"] == wav()
    assert splits["train"][0]["picture"]["bytes"] == png()


def test_missing_validation_split_is_drawn_stratified_and_seeded(tmp_path):
    write_split(tmp_path / "set", "train", [5, -1] * 20)
    splits = load(tmp_path / "set", validation_fraction=0.25, seed=3)
    again = load(tmp_path / "set", validation_fraction=0.25, seed=3)
    assert (len(splits["train"]), len(splits["validation"])) == (30, 10)
    assert "test" not in splits
    assert sum(splits["validation"]["kind"]) == 5
    assert splits["validation"]["kind"][:] == again["validation"]["kind"][:]
    assert splits["train"].features["kind"].names == ["-1", "5"]


def test_max_train_samples_draws_a_stratified_part(tmp_path):
    write_split(tmp_path / "set", "train", ["a", "b", "b", "b"] * 10)
    splits = load(tmp_path / "set", max_train_samples=12)
    assert sorted(splits["train"]["kind"]) == [0] * 3 + [1] * 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {"audio": "noise", "image": "picture"}}, "no column 'noise'; it has sound, picture, kind"),
        ({"label_column": "class"}, "no column 'class'"),
        ({"splits": {"train": "training"}}, "no split 'training'; it has train"),
    ],
)
def test_what_is_missing_is_named(tmp_path, changes, message):
    write_split(tmp_path / "set", "train", ["a", "b"] * 5)
    with pytest.raises(TableError, match=message):
        load(tmp_path / "set", **changes)


@pytest.mark.parametrize(("labels", "message"), [([0.5, 1.5], "one class per sample"), (["a", None], "empty values")])
def test_labels_that_are_no_classes_are_refused(tmp_path, labels, message):
    write_split(tmp_path / "set", "train", labels * 5)
    with pytest.raises(TableError, match=message):
        load(tmp_path / "set")
