"""Media that cannot be read are found before training, and are an error, skipped, or missing values."""

import csv
import io
import logging
import re
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
from PIL import Image

from hf_relearn.data.table_media import find_unreadable
from hf_relearn.data.tables import TableError, load_table

SPLITS = {"train": "train", "validation": "validation", "test": None}


def wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(800), 16000, format="WAV")
    return file.getvalue()


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """20 rows for training, 4 for validation; three pictures and a sound of the training split cannot be read."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    for part, size in (("train", 20), ("validation", 4)):
        lines = ["sound,picture,kind"]
        for index in range(size):
            (folder / f"{part}{index}.wav").write_bytes(wav())
            (folder / f"{part}{index}.png").write_bytes(png(index))
            lines.append(f"{part}{index}.wav,{part}{index}.png,{'ab'[index % 2]}")
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(noise, "PNG")
    (folder / "train3.png").write_bytes(noise.getvalue()[:600])
    (folder / "train4.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (folder / "train7.wav").write_bytes(b"noise")
    (folder / "train7.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    return folder


def load(folder, unreadable, share=0.2, **options):
    return load_table(
        str(folder),
        columns={"audio": "sound", "vision": "picture"},
        label_column="kind",
        splits=SPLITS,
        unreadable=unreadable,
        max_unreadable_share=share,
        **options,
    )


def test_they_are_an_error_that_names_them(folder):
    with pytest.raises(
        TableError, match="the train split of .*: 3 of 20 rows hold media that cannot be read"
    ) as caught:
        load(folder, "error")
    message = str(caught.value)
    for part in ("row 3, column 'picture': ", "train3.png", "train4.png: not an image", "train7.wav: not a readable"):
        assert part in message
    (listed,) = re.findall(r"All are listed in (\S+\.csv)", message)
    with open(listed, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["split"], row["row"], row["column"]) for row in rows] == [
        ("train", "3", "picture"),
        ("train", "4", "picture"),
        ("train", "7", "sound"),
        ("train", "7", "picture"),
    ]


def test_their_rows_are_skipped(folder, caplog):
    with caplog.at_level(logging.WARNING):
        splits = load(folder, "skip")
    assert {part: len(split) for part, split in splits.items()} == {"train": 17, "validation": 4}
    names = [Path(row["picture"]["path"]).stem for row in splits["train"]]
    assert names == [f"train{index}" for index in range(20) if index not in (3, 4, 7)]
    (line,) = [text for text in caplog.messages if "cannot be read" in text]
    assert "3 of 20 rows of the train split" in line and "their rows are left out" in line


def test_their_values_are_missing(folder):
    train = load(folder, "missing")["train"]
    assert [row for row in range(20) if train[row]["picture"] is None] == [3, 4, 7]
    assert [row for row in range(20) if train[row]["sound"] is None] == [7]
    assert train[5]["picture"] == {"bytes": None, "path": str(folder / "train5.png")}
    assert train.features["kind"].names == ["a", "b"] and len(train) == 20


@pytest.mark.parametrize("unreadable", ["skip", "missing"])
def test_too_many_are_an_error(folder, unreadable):
    with pytest.raises(TableError, match=r"3 of 20 rows .* at most 10.0% may be unreadable \(max_unreadable_share\)"):
        load(folder, unreadable, share=0.1)
    with pytest.raises(ValueError, match="max_unreadable_share is 2, but"):
        load(folder, unreadable, share=2)
    with pytest.raises(ValueError, match="unreadable is 'ignore': use one of error, skip, missing"):
        load(folder, "ignore")


def test_files_that_are_not_there_count(folder):
    (folder / "train5.wav").unlink()
    with pytest.raises(TableError, match="names the file 'train5.wav', but there is no"):
        load(folder, "error")
    assert len(load(folder, "skip")["train"]) == 16


def test_a_file_that_was_mended_is_read_again(folder):
    for index in (3, 4, 7):
        (folder / f"train{index}.png").write_bytes(png(index))
    with pytest.raises(TableError, match="1 of 20 rows"):
        load(folder, "error")
    (folder / "train7.wav").write_bytes(wav())
    assert len(load(folder, "error")["train"]) == 20


@pytest.mark.parametrize("num_proc", [1, 2])
def test_several_processes_find_what_one_finds(tmp_path, num_proc):
    contents = [png(index) if index % 3 else b"noise" for index in range(12)]
    frames = [[png(1), png(2)] if index % 4 else [png(1), b"noise"] for index in range(12)]
    data = datasets.Dataset.from_dict(
        {
            "picture": [{"bytes": each, "path": None} for each in contents],
            "frames": [[{"bytes": each, "path": None} for each in row] for row in frames],
        }
    )
    data = data.cast_column("picture", datasets.Image(decode=False))
    data = data.cast_column("frames", datasets.List(datasets.Image(decode=False)))
    data.to_parquet(tmp_path / "a.parquet")
    data = datasets.Dataset.from_parquet(str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / f"cache{num_proc}"))
    data = data.cast_column("picture", datasets.Image(decode=False))
    data = data.cast_column("frames", datasets.List(datasets.Image(decode=False)))
    found = find_unreadable(data, {"picture": "vision", "frames": "video"}, "a set", num_proc)
    assert {row: sorted(reasons) for row, reasons in found.items()} == {
        0: ["frames", "picture"],
        3: ["picture"],
        4: ["frames"],
        6: ["picture"],
        8: ["frames"],
        9: ["picture"],
    }
