"""Loading any data set with columns of media, text or numbers and a label column."""

import io
import json

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
    write_split(tmp_path / "set", "train", [10, 9] * 20)
    splits = load(tmp_path / "set", validation_fraction=0.25, seed=3)
    again = load(tmp_path / "set", validation_fraction=0.25, seed=3)
    assert (len(splits["train"]), len(splits["validation"])) == (30, 10)
    assert "test" not in splits
    assert sum(splits["validation"]["kind"]) == 5
    assert splits["validation"]["kind"][:] == again["validation"]["kind"][:]
    assert splits["train"].features["kind"].names == ["9", "10"]


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


TABLE_SPLITS = {"train": "train", "validation": None, "test": "test"}


def write_media(folder):
    (folder / "media").mkdir(parents=True)
    (folder / "media" / "a.png").write_bytes(png())
    (folder / "media" / "a.wav").write_bytes(wav())
    (folder / "media" / "a.mp4").write_bytes(b"video")


ROWS = [
    {
        "sound": "media/a.wav",
        "picture": "media/a.png",
        "clip": "media/a.mp4",
        "words": "NA" if index else "null",
        "x": index,
        "y": index / 2,
        "kind": "cat" if index % 2 else "dog",
    }
    for index in range(20)
]
TABLE_COLUMNS = {"a": "sound", "v": "picture", "film": "clip", "caption": "words", "sensors": ["x", "y"]}
TABLE_KINDS = {"a": "audio", "v": "vision", "film": "video", "caption": "text", "sensors": "features"}


def write_table(path, rows, sep=","):
    if path.suffix == ".parquet":
        return datasets.Dataset.from_list(rows).to_parquet(path)
    if path.suffix == ".json":
        return path.write_text(json.dumps(rows))
    if path.suffix == ".jsonl":
        return path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [sep.join(rows[0])]
    lines += [sep.join("" if value is None else str(value) for value in row.values()) for row in rows]
    return path.write_text("\n".join(lines) + "\n")


def load_rows(path, **changes):
    options = {"columns": TABLE_COLUMNS, "kinds": TABLE_KINDS, "splits": TABLE_SPLITS, **changes}
    return load_table(str(path), label_column="kind", **options)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
@pytest.mark.parametrize("whole_folder", [False, True])
def test_tables_name_their_media_relative_to_their_folder(tmp_path, monkeypatch, suffix, whole_folder):
    folder = tmp_path / "set"
    write_media(folder)
    sep = "\t" if suffix == ".tsv" else ","
    write_table(folder / f"train{suffix}", ROWS, sep)
    if whole_folder:
        write_table(folder / f"test{suffix}", ROWS[:2], sep)
    monkeypatch.chdir(tmp_path)

    splits = load_rows("set" if whole_folder else f"set/train{suffix}")

    assert set(splits) == ({"train", "validation", "test"} if whole_folder else {"train", "validation"})
    assert (len(splits["train"]), len(splits["validation"])) == (18, 2)
    row = splits["validation"][0]
    media = str(folder / "media" / "a")
    assert row["sound"] == {"bytes": None, "path": media + ".wav"}
    assert row["picture"] == {"bytes": None, "path": media + ".png"}
    assert row["clip"] == {"bytes": None, "path": media + ".mp4"}
    assert row["words"] in ("NA", "null")  # text, and no missing value
    assert splits["train"].features["kind"].names == ["cat", "dog"]
    assert splits["train"].features["x"].dtype == "int64"


def test_empty_cells_are_missing_values(tmp_path):
    write_media(tmp_path / "set")
    rows = [{**row, "sound": None, "words": None, "x": None, "y": None} for row in ROWS[:4]] + ROWS[4:]
    write_table(tmp_path / "set" / "train.csv", rows)

    splits = load_rows(tmp_path / "set")
    loaded = [*splits["train"], *splits["validation"]]

    assert sum(row["sound"] is None and row["words"] is None and row["x"] is None for row in loaded) == 4
    assert all(row["picture"] is not None for row in loaded)


# `datasets` leaves the metadata file open
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_a_folder_of_media_with_metadata(tmp_path):
    folder = tmp_path / "set"
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        for index in range(10):
            (folder / split / f"{index}.png").write_bytes(png())
        rows = [{"file_name": f"{index}.png", "words": "a", "kind": "ab"[index % 2]} for index in range(10)]
        write_table(folder / split / "metadata.csv", rows)

    splits = load_rows(folder, columns={"image": "image", "text": "words"}, kinds=None, validation_fraction=0.2)

    assert {part: len(split) for part, split in splits.items()} == {"train": 8, "validation": 2, "test": 10}
    assert splits["train"][0]["image"]["path"].endswith(".png")


def test_lists_of_frames_are_images_of_a_video(tmp_path):
    write_media(tmp_path / "set")
    rows = [{"clip": ["media/a.png"] * 3, "kind": "ab"[index % 2]} for index in range(20)]
    write_table(tmp_path / "set" / "train.jsonl", rows)

    train = load_rows(tmp_path / "set", columns={"video": "clip"}, kinds=None)["train"]

    assert train[0]["clip"] == [{"bytes": None, "path": str(tmp_path / "set" / "media" / "a.png")}] * 3


def test_sequences_of_vectors_are_features(tmp_path):
    rows = [{"gaze": [[1.0, 2.0]] * (1 + index % 3), "kind": "ab"[index % 2]} for index in range(20)]
    write_table(tmp_path / "train.jsonl", rows)

    train = load_rows(tmp_path / "train.jsonl", columns={"features": "gaze"}, kinds=None)["train"]

    assert train[0]["gaze"][0] == [1.0, 2.0]


@pytest.mark.parametrize("as_text", [True, False])
def test_lists_of_labels_become_lists_of_classes(tmp_path, as_text):
    rows = [{"words": "a", "kind": [["b", "a"], [], ["c"]][index % 3]} for index in range(30)]
    if not as_text:
        rows = [{**row, "kind": ["abc".index(name) for name in row["kind"]]} for row in rows]
    write_table(tmp_path / "train.jsonl", rows)

    splits = load_rows(tmp_path, columns={"text": "words"}, kinds=None, max_train_samples=9)

    assert {part: len(split) for part, split in splits.items()} == {"train": 9, "validation": 3}
    assert splits["train"].features["kind"].feature.names == (["a", "b", "c"] if as_text else ["0", "1", "2"])
    assert {tuple(row) for row in splits["train"]["kind"]} <= {(1, 0), (), (2,)}
    again = load_rows(tmp_path, columns={"text": "words"}, kinds=None, max_train_samples=9)
    assert splits["train"]["kind"][:] == again["train"]["kind"][:]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"picture": "media/b.png"}, {}, "train split of .*: the column 'picture' names the file 'media/b.png'"),
        ({"words": 3}, {}, "the column 'words' holds Value.*int64.*kind text needs strings"),
        ({"y": "red"}, {}, "the column 'y' holds Value.*string.*turn categories into numbers"),
        ({"y": [1]}, {}, "the column 'y' holds List.* one number a row"),
        ({"sound": 3.5}, {}, "the column 'sound' holds Value.*float64.*kind audio needs Audio values"),
        ({}, {"columns": {"caption": ["x", "y"]}}, "only features and tables are made of several columns"),
        ({}, {"columns": {"sensors": "words"}}, "the column 'words' holds .*kind features needs numbers"),
        ({}, {"kinds": {"v": "smell"}}, "unknown kinds of modality .*'v': 'smell'"),
        ({}, {"columns": {"sensors": ["x", "q"]}}, "no column 'q'"),
    ],
)
def test_columns_that_do_not_suit_their_modality_are_named(tmp_path, change, options, message):
    write_media(tmp_path / "set")
    write_table(tmp_path / "set" / "train.jsonl", [{**row, **change} for row in ROWS])

    with pytest.raises(TableError, match=message):
        load_rows(tmp_path / "set", **options)


def test_files_that_are_no_tables_are_named(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(TableError, match="notes.txt is no table: use one of .csv"):
        load_rows(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError, match="gone.csv: no such file"):
        load_rows(tmp_path / "gone.csv")
    write_table(tmp_path / "train.csv", ROWS)
    write_table(tmp_path / "test.jsonl", ROWS)
    with pytest.raises(TableError, match=r"files of several kinds \(train.csv, test.jsonl\)"):
        load_rows(tmp_path)


def test_a_folder_of_save_to_disk_loads(tmp_path):
    rows = {"text": [f"word {index}" for index in range(20)], "mood": ["glad", "sad"] * 10}
    whole = datasets.Dataset.from_dict(rows)
    parts = datasets.DatasetDict({"train": whole, "validation": whole.select(range(6))})
    whole.save_to_disk(tmp_path / "one")
    parts.save_to_disk(tmp_path / "several")
    for folder, sizes in (("one", (18, 2)), ("several", (20, 6))):
        splits = load(tmp_path / folder, columns={"text": "text"}, label_column="mood")
        assert (len(splits["train"]), len(splits["validation"])) == sizes
        assert splits["train"].features["mood"].names == ["glad", "sad"]


def test_a_table_with_semicolons_is_recognised(tmp_path):
    lines = ["text;mood", *(f'"so; and so, {index}";{"glad" if index % 2 else "sad"}' for index in range(20))]
    (tmp_path / "moods.csv").write_text("\n".join(lines))
    splits = load(tmp_path / "moods.csv", columns={"text": "text"}, label_column="mood")
    assert sorted(splits["train"]["text"])[0].startswith("so; and so, ")
    assert splits["train"].features["mood"].names == ["glad", "sad"]


def test_a_test_part_is_drawn_alike_for_every_seed_and_said(tmp_path, caplog):
    rows = {"text": [f"word {index}" for index in range(60)], "mood": ["glad", "sad", "sad"] * 20}
    datasets.Dataset.from_dict(rows).to_csv(tmp_path / "one.csv")
    options = {"columns": {"text": "text"}, "label_column": "mood", "test_fraction": 0.2}
    first, second = (load(tmp_path / "one.csv", seed=seed, **options) for seed in (1, 2))
    assert first["test"]["text"][:] == second["test"]["text"][:]
    assert first["validation"]["text"][:] != second["validation"]["text"][:]
    assert np.bincount(first["test"]["mood"][:]).tolist() == [4, 8]
    parts = [set(first[part]["text"]) for part in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 60
    assert "no test split: 12 of the 60 training rows are drawn as one, stratified and by a fixed seed" in caplog.text
    assert "test" not in load(tmp_path / "one.csv", columns={"text": "text"}, label_column="mood")
