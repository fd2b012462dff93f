"""Tables that cannot be read, and labels that are no classes: what the message names."""

import logging
import time

import datasets
import numpy as np
import pytest

from hf_relearn.data.tables import TableError, load_table

SPLITS = {"train": "train", "validation": "validation", "test": "test"}
ROWS = "".join(f"word {index},{'ab'[index % 2]}\n" for index in range(20))


def load(path, **options):
    options = {"columns": {"text": "words"}, "label_column": "kind", "splits": SPLITS, **options}
    return load_table(str(path), **options)


# `datasets` leaves the file open that it could not read
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.csv", ("words,kind\n" + ROWS).encode("utf-16"), "a.csv is in UTF-16.*iconv -f UTF-16"),
        ("a.csv", ("words,kind\n" + ROWS).encode("utf-16-le"), "a.csv is in UTF-16"),
        ("a.jsonl", '{"words": "a", "kind": "b"}\n'.encode("utf-16"), "a.jsonl is in UTF-16"),
        ("a.csv", ("words,kind\ncafé,a\n" + ROWS).encode("latin-1"), "a.csv is not in UTF-8 .the byte 0xe9 .*LATIN1"),
        ("a.csv", ('words,kind\n"open,a\n' + ROWS).encode(), "a.csv cannot be read .*row 1.: a quote is opened"),
        ("a.csv", ("words,kind\n" + ROWS + "a,b,c,d\n").encode(), "a.csv cannot be read .*line 22.*more cells"),
        ("a.csv", b"", "a.csv cannot be read .*the file is empty"),
        ("a.csv", b"words,kind\n", "a.csv has a split without rows"),
        ("a.csv", ("words,words,kind\n" + "a,b,c\n" * 9).encode(), "a.csv: the column 'words' is there 2 times"),
        ("a.tsv", ("words\twords\tkind\n" + "a\tb\tc\n" * 9).encode(), "a.tsv: the column 'words' is there 2"),
        ("a.jsonl", b'{"words": "a", "words": "b", "kind": "c"}\n', "a.jsonl: the column 'words' is there 2 times"),
        ("a.jsonl", b'{"words": "a", "kind": "b"}\n{"words": "a"', "a.jsonl cannot be read .*JSON parse error"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl cannot be read .*depth"),
        ("a.parquet", b"PAR1junkPAR1", "a.parquet cannot be read .*cut or damaged"),
        ("a.csv", b"words,kind\na,b\n", "a.csv: the column 'kind' has one row of 'b', so a validation split"),
        ("a.csv", ("words,kind\n" + ROWS + "x,zebra\n").encode(), "one row of 'zebra', .*add rows"),
        (
            "a.csv",
            ("words,kind\n" + ROWS[:36]).encode(),
            "cannot be drawn from the 4 rows of the train split of .*a.csv",
        ),
        (
            "a.csv",
            ("words,kind\n" + "a,True\nb,False\n" * 9).encode(),
            "column 'kind' of .*bool.*names of two classes",
        ),
        ("a.csv", ("words,kind\n" + "a,-1\nb,0\n" * 9).encode(), "'kind' holds -1 in 9 rows.*hidden labels"),
        ("a.csv", ("words,kind\n" + "a,-7\nb,0\n" * 9).encode(), "'kind' holds -7 in 9 rows"),
    ],
)
def test_what_cannot_be_read_is_named_with_a_remedy(tmp_path, file, content, message):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(TableError, match=message) as caught:
        load(tmp_path / file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_column": "mood"}, "no column 'mood'; it has words, kind: .* holds the labels by --label_column$"),
        ({"columns": {"text": "said"}}, "no column 'said'; .* the modality 'text' by --columns text=COLUMN$"),
        ({"columns": {"text": "said"}, "flags": {"text": "--text_column"}}, "modality 'text' by --text_column$"),
    ],
)
def test_a_column_that_is_missing_is_named_with_its_flag(tmp_path, options, message):
    (tmp_path / "a.csv").write_text("words,kind\n" + ROWS)
    with pytest.raises(TableError, match=message):
        load(tmp_path / "a.csv", **options)


def test_columns_twice_in_a_parquet_file_are_named(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table([["a"], ["b"], ["c"]], names=["words", "words", "kind"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(TableError, match="a.parquet: the column 'words' is there 2 times"):
        load(tmp_path / "a.parquet")


def write(folder, part, labels, names=None):
    feature = datasets.ClassLabel(names=names) if names else None
    features = datasets.Features({"words": datasets.Value("string"), "kind": feature}) if feature else None
    folder.mkdir(exist_ok=True)
    rows = {"words": ["a"] * len(labels), "kind": labels}
    if feature:  # which the class itself would not take, but a file of the Hub may hold
        import pyarrow

        table = pyarrow.table(rows).cast(features.arrow_schema)
        dataset = datasets.Dataset(table.replace_schema_metadata(features.arrow_schema.metadata))
    else:
        dataset = datasets.Dataset.from_dict(rows)
    dataset.to_parquet(folder / f"{part}.parquet")


@pytest.mark.parametrize(("label", "count"), [(-1, 6), (5, 1)])
def test_numbers_beyond_the_classes_are_named_with_their_split(tmp_path, label, count):
    write(tmp_path / "set", "train", [0, 1] * 10, ["cat", "dog"])
    write(tmp_path / "set", "test", [label] * count, ["cat", "dog"])
    with pytest.raises(TableError, match=f"the test split of .*'kind' holds {label} in {count} rows, but its 2"):
        load(tmp_path / "set")


def test_whole_numbers_are_sorted_as_numbers_and_rows_without_a_class_stay_so(tmp_path):
    write(tmp_path / "set", "train", [10, 9, 100, -100] * 10)
    train = load(tmp_path / "set", validation_fraction=0.5)["train"]
    assert train.features["kind"].names == ["9", "10", "100"]
    assert sorted(train["kind"]) == [-100] * 5 + [0] * 5 + [1] * 5 + [2] * 5
    write(tmp_path / "other", "train", ["10", "9"] * 10)
    assert load(tmp_path / "other")["train"].features["kind"].names == ["9", "10"]


def test_classes_that_differ_by_little_are_told_of_once(tmp_path, caplog):
    write(tmp_path / "set", "train", ["007", "7", "caf\u00e9", "cafe\u0301", " cat", "cat", "dog"] * 10)
    with caplog.at_level(logging.WARNING):
        splits = load(tmp_path / "set", validation_fraction=0.5)
    (line,) = [text for text in caplog.messages if "differ by little" in text]
    for pair in ("'007' and '7'", "'cafe\\u0301' and 'café'", "' cat' and 'cat'"):
        assert pair in line
    assert "dog" not in line and len(splits["train"].features["kind"].names) == 7


def test_time_grows_with_the_number_of_columns_and_not_with_its_square(tmp_path):
    size = 1000
    numbers = {f"x{index}": np.arange(20) for index in range(size)}
    datasets.Dataset.from_dict({**numbers, "kind": ["a", "b"] * 10}).to_parquet(tmp_path / "train.parquet")
    datasets.load_dataset("parquet", data_files=str(tmp_path / "train.parquet"))  # from here on it is cached
    start = time.process_time()
    splits = load(tmp_path, columns={"features": list(numbers)}, kinds=None)
    assert time.process_time() - start < 15  # about 1; the square took a minute
    assert len(splits["train"]) == 18
