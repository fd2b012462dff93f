"""Any data set with columns of media, text or numbers and a label column, ready for the collator."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Image, List, Value, Video

from hf_relearn.method import stratified_indices

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


MEDIA: dict[str, type] = {"audio": Audio, "image": Image, "vision": Image, "video": Video}
KINDS = (*MEDIA, "text", "features")
_LISTS = (datasets.List, datasets.LargeList)


def prepare_column(
    dataset: Dataset, column: str | Sequence[str], kind: str, origin: str, folder: Path | None
) -> Dataset:
    """Check the column (or, for features, columns) of one modality, and leave the decoding of media to the processor:
    `datasets` would need further libraries for it.

    Args:
        dataset: one split.
        column: a column, or several that are the dimensions of one vector.
        kind: one of `KINDS`.
        origin: what to call the split in a message.
        folder: what relative paths are relative to; None leaves them as they are.

    Raises:
        TableError: if the column holds something else, or names a file that is not there.
    """
    if not isinstance(column, str):
        if kind != "features":
            raise TableError(f"{origin}: only features are made of several columns ({', '.join(column)}), not {kind}")
        for each in column:
            if not _is_number(dataset.features[each]):
                _refuse(dataset, each, kind, origin, "one number a row; turn categories into numbers first")
        return dataset
    feature = dataset.features[column]
    if kind == "text":
        if not _is_text(feature):
            _refuse(dataset, column, kind, origin, "strings")
        return dataset
    if kind == "features":
        if not _is_number(_innermost(feature)):
            _refuse(dataset, column, kind, origin, "numbers or lists of numbers; turn categories into numbers first")
        return dataset
    return _undecoded(dataset, column, kind, origin, folder)


def _undecoded(dataset: Dataset, column: str, kind: str, origin: str, folder: Path | None) -> Dataset:
    feature = dataset.features[column]
    is_list = isinstance(feature, _LISTS)
    item = feature.feature if is_list else feature
    known: Any = MEDIA[kind]
    if is_list and kind == "video":
        known = Image  # frames
    encoded = _is_text(item) or (isinstance(item, Value) and "binary" in item.dtype)
    as_mapping = isinstance(item, dict) and {"bytes", "path"} & set(item)
    if not (encoded or as_mapping or isinstance(item, known)) or (is_list and kind == "audio"):
        _refuse(dataset, column, kind, origin, f"{known.__name__} values, paths, or bytes")
    if _is_text(item) and item.dtype != "string":  # which `datasets` does not cast to media
        dataset = dataset.cast_column(column, datasets.List(Value("string")) if is_list else Value("string"))
    if folder is not None and _is_text(item):
        dataset = _located(dataset, column, origin, folder)
    target = known(decode=False)
    return dataset.cast_column(column, datasets.List(target) if is_list else target)


def _located(dataset: Dataset, column: str, origin: str, folder: Path) -> Dataset:
    """Make relative paths absolute, and see that every file is there."""

    def locate(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, list):
            return [locate(each) for each in value]
        path = os.path.join(folder.absolute(), value)
        if not os.path.isfile(path):
            raise TableError(f"{origin}: the column {column!r} names the file {value!r}, but there is no {path}")
        return path

    paths = [locate(value) for value in dataset[column]]
    text = Value("string")  # a large string, as some readers give it, cannot be cast to a medium
    feature = datasets.List(text) if isinstance(dataset.features[column], _LISTS) else text
    return dataset.remove_columns(column).add_column(column, paths, feature=feature)


def _refuse(dataset: Dataset, column: str, kind: str, origin: str, needed: str) -> None:
    raise TableError(
        f"{origin}: the column {column!r} holds {dataset.features[column]}, but a modality of the kind {kind} needs "
        f"{needed}"
    )


def _innermost(feature: Any) -> Any:
    while isinstance(feature, _LISTS):
        feature = feature.feature
    if isinstance(feature, datasets.Array2D):
        return Value(feature.dtype)
    return feature


def _is_text(feature: Any) -> bool:
    return isinstance(feature, Value) and "string" in feature.dtype


def _is_number(feature: Any) -> bool:
    if not isinstance(feature, Value) or isinstance(feature, ClassLabel):
        return False
    return feature.dtype.startswith(("int", "uint", "float", "bool"))


__all__ = ["TableError", "load_table"]


def load_table(
    name_or_path: str,
    config_name: str | None = None,
    *,
    columns: Mapping[str, str | Sequence[str]],
    label_column: str,
    splits: Mapping[str, str | None],
    kinds: Mapping[str, str] | None = None,
    validation_fraction: float = 0.1,
    max_train_samples: int | None = None,
    seed: int = 0,
) -> DatasetDict:
    """Load a data set and bring its columns into the form that the processor reads.

    Args:
        name_or_path: Hub id; or a local folder: of Parquet files, of media with a metadata file (as `imagefolder`
            reads them), or of tables (`train.csv`, `test.csv`, ...; also .tsv, .json, .jsonl, .parquet) beside their
            media; or one such file, which is the training split. Paths in a local table are relative to its folder. An
            empty cell is a missing value: a sample without that modality.
        config_name: configuration of the data set.
        columns: modality -> column, or a list of columns with numbers that make one vector.
        label_column: column with class labels: `ClassLabel`, integers or strings; or lists of them, where a sample
            has several classes or none.
        splits: `train`, `validation`, `test` -> name of the split there. A missing validation split is drawn from
            the training split, seeded, and stratified where a sample has one class; a missing test split stays
            missing.
        kinds: modality -> `audio`, `image` (or `vision`), `video`, `text` or `features`; a modality that is not named
            here is of the kind that it is called.
        validation_fraction: share of the training split that is drawn then.
        max_train_samples: size of a (stratified) part of the training split to use; None for all of it.
        seed: of these draws.

    Returns:
        Splits `train`, `validation` and, if there is one, `test`; media undecoded, labels as `ClassLabel` or
        `List(ClassLabel)` with the classes of all splits.

    Raises:
        TableError: if a split or column is missing, a column holds other things than its modality needs, or a label
            column other things than classes. The message names the data set and the column.
        FileNotFoundError: if the data set cannot be found.
    """
    name = _name(name_or_path)
    kind_of = {modality: (kinds or {}).get(modality, modality) for modality in columns}
    if unknown := {modality: kind for modality, kind in kind_of.items() if kind not in KINDS}:
        raise TableError(f"unknown kinds of modality {unknown}: use {', '.join(KINDS)}")
    loaded, folder = read_table(name_or_path, config_name, splits)
    chosen = DatasetDict()
    for part, split in splits.items():
        if split in loaded:
            chosen[part] = loaded[split]
        elif part == "train":
            raise TableError(f"{name} has no split {split!r}; it has {', '.join(loaded)}")
    for part, dataset in chosen.items():
        origin = f"the {part} split of {name}"
        given = [[column] if isinstance(column, str) else column for column in columns.values()]
        for column in (*(each for several in given for each in several), label_column):
            if column not in dataset.column_names:
                raise TableError(f"{origin} has no column {column!r}; it has {', '.join(dataset.column_names)}")
        for modality, modality_columns in columns.items():
            dataset = prepare_column(dataset, modality_columns, kind_of[modality], origin, folder)
        chosen[part] = dataset
    chosen = _with_class_labels(chosen, label_column, name)
    one_class = isinstance(chosen["train"].features[label_column], ClassLabel)
    if "validation" not in chosen:
        stratum = {"stratify_by_column": label_column} if one_class else {}
        drawn = chosen["train"].train_test_split(test_size=validation_fraction, seed=seed, **stratum)
        chosen = DatasetDict({**chosen, "train": drawn["train"], "validation": drawn["test"]})
    if max_train_samples is not None and max_train_samples < len(chosen["train"]):
        train = chosen["train"]
        indices = (
            stratified_indices(train[label_column][:], max_train_samples, seed)
            if one_class
            else np.sort(np.random.default_rng(seed).choice(len(train), max_train_samples, replace=False))
        )
        chosen["train"] = train.select(indices)
    return chosen


def _with_class_labels(splits: DatasetDict, column: str, name: str) -> DatasetDict:
    feature = splits["train"].features[column]
    several = isinstance(feature, List)
    item: Any = feature.feature if several else feature
    if isinstance(item, ClassLabel):
        return splits
    if not isinstance(item, Value) or "float" in item.dtype:
        raise TableError(
            f"the label column {column!r} of {name} holds {feature}: it needs one class per sample, or a list of them"
        )
    found: set[Any] = set()
    for split in splits.values():
        for value in split[column] if several else split.unique(column):
            found.update(value if several and value is not None else [value])
    if None in found:
        raise TableError(f"the label column {column!r} of {name} has empty values: fill them in or drop these rows")
    classes = ClassLabel(names=[str(value) for value in sorted(found, key=str)])
    text, target = (List(Value("string")), List(classes)) if several else (Value("string"), classes)
    return DatasetDict(
        {part: split.cast_column(column, text).cast_column(column, target) for part, split in splits.items()}
    )


def _name(name_or_path: str) -> str:
    return f"the folder {name_or_path}" if Path(name_or_path).is_dir() else name_or_path
