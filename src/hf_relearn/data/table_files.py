"""Where the rows of a data set come from: the Hub, a folder, or a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
from datasets import DatasetDict

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


class TableError(ValueError):
    """A data set that lacks a split or a column, or whose column is of the wrong kind."""


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
        TableError: for a file of an unknown kind, or a split in files of several kinds.
        FileNotFoundError: if the data set cannot be found.
    """
    path = Path(name_or_path)
    if path.is_file():
        return _read_files({splits["train"] or "train": [path]}), path.parent
    if path.suffix in _FORMATS and not path.exists():
        raise FileNotFoundError(f"{name_or_path}: no such file")
    if path.is_dir():
        if config_name is None and (files := _files_of_splits(path, splits)):
            return _read_files(files), path
        return datasets.load_dataset(name_or_path, config_name), path
    return datasets.load_dataset(name_or_path, config_name), None


def _files_of_splits(folder: Path, splits: Mapping[str, str | None]) -> dict[str, list[Path]]:
    """Tables that lie in a folder beside their media, by split; none where `datasets` knows the layout itself."""
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
    builder, options = _FORMATS[suffix]
    return datasets.load_dataset(
        builder, data_files={split: [str(path) for path in paths] for split, paths in files.items()}, **options
    )
