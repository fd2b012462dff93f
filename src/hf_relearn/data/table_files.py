"""Read tables from the Hub, a folder or a file, with errors that name the file and the remedy."""

import codecs
import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow
import pyarrow.parquet
from datasets import DatasetDict
from datasets.exceptions import DatasetGenerationError

# Empty cells of a CSV file are missing values; other words, "NA" and "null" among them, are text.
_CSV: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}
_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", _CSV),
    ".tsv": ("csv", {"sep": "\t", **_CSV}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".parquet": ("parquet", {}),
}
# What people call the splits, as far as `datasets` knows it, too.
_OTHER_NAMES = {"train": ("training",), "validation": ("valid", "val", "dev"), "test": ("testing", "eval")}


_PARSING = (
    DatasetGenerationError,
    UnicodeDecodeError,
    json.JSONDecodeError,
    pandas.errors.ParserError,
    pandas.errors.EmptyDataError,
    pyarrow.ArrowInvalid,
)


class TableError(ValueError):
    """A data set that cannot be read, lacks a split or a column, or whose column is of the wrong kind."""


def read_table(
    name_or_path: str, config_name: str | None, splits: Mapping[str, str | None]
) -> tuple[DatasetDict, Path | None]:
    """Read all splits of a data set.

    Args:
        name_or_path: Hub id, local folder or file (see `load_table`).
        config_name: configuration of a data set of the Hub, or of a folder whose README names configurations.
        splits: part -> name of its split.

    Returns:
        The splits under their own names, and the folder that paths in the table are relative to, if it is a local one.

    Raises:
        TableError: for a file of an unknown kind, in another encoding than UTF-8, with a column name twice, or that
            cannot be parsed, and for a split in files of several kinds.
        FileNotFoundError: if the data set cannot be found.
    """
    path = Path(name_or_path)
    with _named_errors(name_or_path):
        return _read(path, name_or_path, config_name, splits)


def _read(
    path: Path, name_or_path: str, config_name: str | None, splits: Mapping[str, str | None]
) -> tuple[DatasetDict, Path | None]:
    if path.is_file():
        return _read_files({splits["train"] or "train": [path]}), path.parent
    if path.suffix in _FORMATS and not path.exists():
        raise FileNotFoundError(f"{name_or_path}: no such file")
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():  # what `save_to_disk` leaves
        saved = datasets.load_from_disk(name_or_path)
        whole = saved if isinstance(saved, DatasetDict) else DatasetDict({splits["train"] or "train": saved})
        return whole, None
    if path.is_dir():
        if config_name is None and (files := _files_of_splits(path, splits)):
            return _read_files(files), path
        return datasets.load_dataset(name_or_path, config_name), path
    return datasets.load_dataset(name_or_path, config_name), None


def _files_of_splits(folder: Path, splits: Mapping[str, str | None]) -> dict[str, list[Path]]:
    """Find tables in a folder beside their media, by split; none if `datasets` knows the layout itself."""
    metadata = [f"metadata{suffix}" for suffix in _FORMATS]
    if (folder / "README.md").is_file() or any([*folder.glob(name), *folder.glob(f"*/{name}")] for name in metadata):
        return {}
    tables = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in _FORMATS)
    files = {}
    for part, split in splits.items():
        names = (split, *_OTHER_NAMES.get(part, ())) if split == part else (split,)
        found = [path for path in tables if any(name and _is_named(path, name) for name in names)]
        if split and found:
            files[split] = found
    if not files and len(tables) == 1:
        files["train"] = tables
    return files


def _is_named(path: Path, split: str) -> bool:
    """`train.csv`, `train-00000-of-00002.parquet` or `train_1.csv` for the split `train`."""
    rest = path.stem.removeprefix(split)
    return path.stem.startswith(split) and (not rest or rest[0] in "-_.")


def _read_files(files: Mapping[str, list[Path]]) -> DatasetDict:
    suffixes = {path.suffix for paths in files.values() for path in paths}
    if len(suffixes) > 1:
        names = ", ".join(path.name for paths in files.values() for path in paths)
        raise TableError(f"the splits lie in files of several kinds ({names}): bring them to one")
    suffix = suffixes.pop()
    if suffix not in _FORMATS:
        path = next(iter(files.values()))[0]
        raise TableError(f"{path} is no table: use one of {', '.join(_FORMATS)}, a folder or a Hub id")
    for paths in files.values():
        for path in paths:
            _check_file(path)
    builder, options = _FORMATS[suffix]
    if suffix == ".csv":
        options = {**options, "sep": separator(next(iter(files.values()))[0])}
    return datasets.load_dataset(
        builder, data_files={split: [str(path) for path in paths] for split, paths in files.items()}, **options
    )


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turn what readers raise into one line that names the data set, the reason and a remedy."""
    try:
        yield
    except TableError:
        raise
    except (*_PARSING, ValueError) as error:
        if "corresponds to no data" in str(error):
            raise TableError(f"{name} has a split without rows") from error
        if not isinstance(error, _PARSING):
            raise
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        text = " ".join(str(reason).split()) or type(reason).__name__
        raise TableError(f"{name} cannot be read ({text[:300]}): {_remedy(text, reason)}") from error


def _remedy(text: str, reason: BaseException) -> str:
    if "EOF inside string" in text:
        return "a quote is opened there and never closed; close it, and double the quotes within a cell"
    if re.search(r"Expected \d+ fields", text):
        return "this line has more cells than the header; quote cells that hold the separator"
    if isinstance(reason, pandas.errors.EmptyDataError):
        return "the file is empty; it needs a header and rows"
    if isinstance(reason, UnicodeDecodeError):
        return "save it as UTF-8"
    if "column" in text.lower() or "schema" in text.lower():
        return "all files of a data set need the same columns, of one type each"
    return "look at that place of the file, and write the file anew if it is cut or damaged"


def _check_file(path: Path) -> None:
    """Refuse a file in another encoding than UTF-8, and one with two columns of one name."""
    if path.suffix == ".parquet":
        with _named_errors(str(path)):
            names = pyarrow.parquet.read_schema(path).names
    else:
        _check_encoding(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix in (".csv", ".tsv"):
                names = next(csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else separator(path)), [])
            else:
                names = _keys(file.readline()) if path.suffix == ".jsonl" else []
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise TableError(f"{path}: the column {twice[0]!r} is there {names.count(twice[0])} times: rename all but one")


def separator(path: Path) -> str:
    """Find what separates the cells of a CSV file, by its header: a comma, or else a semicolon or tab."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
    found = [mark for mark in ",;\t" if len(next(csv.reader([header], delimiter=mark), [])) > 1]
    return found[0] if found else ","


def _keys(line: str) -> list[str]:
    found: list[str] = []
    try:
        json.loads(line, object_pairs_hook=lambda pairs: found.__setitem__(slice(None), [name for name, _ in pairs]))
    except (ValueError, RecursionError):
        return []  # its reader will tell
    return found


def _check_encoding(path: Path) -> None:
    decoder, place = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        while True:
            block = file.read(1 << 20)
            if place == 0 and (block[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or b"\0" in block[:4]):
                raise TableError(f"{path} is in UTF-16, and tables are read as UTF-8: {_recoded(path, 'UTF-16')}")
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                byte = f"the byte {error.object[error.start]:#x} after about {place + error.start:,} bytes"
                raise TableError(
                    f"{path} is not in UTF-8 ({byte}); if it is in Latin-1: {_recoded(path, 'LATIN1')}"
                ) from error
            if not block:
                return
            place += len(block)


def _recoded(path: Path, encoding: str) -> str:
    return f"save it as UTF-8 (iconv -f {encoding} -t UTF-8 {path.name} > NEW{path.suffix})"
