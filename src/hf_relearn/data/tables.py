"""Any data set with columns of media, text or numbers and a label column, ready for the collator."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Image, Value, Video

from hf_relearn.data.table_files import TableError, read_table
from hf_relearn.data.table_labels import with_class_labels, with_numbers
from hf_relearn.data.table_media import UNREADABLE, handle_unreadable
from hf_relearn.method import quantile_strata, stratified_indices, stratified_split

logger = logging.getLogger(__name__)

MEDIA: dict[str, type] = {"audio": Audio, "image": Image, "vision": Image, "video": Video}
KINDS = (*MEDIA, "text", "features", "table")
_LISTS = (datasets.List, datasets.LargeList)


def prepare_column(
    dataset: Dataset,
    column: str | Sequence[str],
    kind: str,
    origin: str,
    folder: Path | None,
    must_exist: bool = True,
) -> Dataset:
    """Check the column (or, for features, columns) of one modality, and leave the decoding of media to the processor:
    `datasets` would need further libraries for it.

    Args:
        dataset: one split.
        column: a column, or several that are the dimensions of one vector or the cells of a row.
        kind: one of `KINDS`.
        origin: what to call the split in a message.
        folder: what relative paths are relative to; None leaves them as they are.
        must_exist: whether a file that is not there is an error already.

    Raises:
        TableError: if the column holds something else, or names a file that is not there.
    """
    if kind == "table":
        for each in [column] if isinstance(column, str) else column:
            dataset = _cells(dataset, each, origin)
        return dataset
    if not isinstance(column, str):
        if kind != "features":
            raise TableError(
                f"{origin}: only features and tables are made of several columns ({', '.join(column)}), not {kind}"
            )
        features = dataset.features  # a copy of all of them, at each access
        for each in column:
            if not _is_number(features[each]):
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
    return _undecoded(dataset, column, kind, origin, folder, must_exist)


def _undecoded(
    dataset: Dataset, column: str, kind: str, origin: str, folder: Path | None, must_exist: bool
) -> Dataset:
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
        dataset = _located(dataset, column, origin, folder, must_exist)
    target = known(decode=False)
    return dataset.cast_column(column, datasets.List(target) if is_list else target)


def _cells(dataset: Dataset, column: str, origin: str) -> Dataset:
    """Check a column of a table modality, and give classes their names, which raw rows hold, too."""
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel):
        names = [None if number is None or number < 0 else feature.int2str(number) for number in dataset[column]]
        return dataset.remove_columns(column).add_column(column, names, feature=Value("string"))
    if not (_is_number(feature) or _is_text(feature) or (isinstance(feature, Value) and feature.dtype == "null")):
        _refuse(dataset, column, "table", origin, "numbers or words; turn dates into numbers, or leave it out")
    return dataset


def _located(dataset: Dataset, column: str, origin: str, folder: Path, must_exist: bool) -> Dataset:
    """Make relative paths absolute, and see that every file is there."""

    def locate(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, list):
            return [locate(each) for each in value]
        path = os.path.join(folder.absolute(), value)
        if must_exist and not os.path.isfile(path):
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
    test_fraction: float = 0.0,
    max_train_samples: int | None = None,
    seed: int = 0,
    unreadable: str | None = None,
    max_unreadable_share: float = 0.01,
    problem_type: str = "classification",
    flags: Mapping[str, str] | None = None,
) -> DatasetDict:
    """Load a data set and bring its columns into the form that the processor reads.

    Args:
        name_or_path: Hub id; or a local folder: of Parquet files, of media with a metadata file (as `imagefolder`
            reads them), or of tables (`train.csv`, `test.csv`, ...; also .tsv, .json, .jsonl, .parquet) beside their
            media; or one such file, which is the training split; or what `save_to_disk` left. Paths in a local table
            are relative to its folder. An empty cell is a missing value: a sample without that modality.
        config_name: configuration of the data set.
        columns: modality -> column, or a list of columns: with numbers that make one vector, or with numbers and
            categories that are a row.
        label_column: column with class labels: `ClassLabel`, integers or strings; or lists of them, if a sample
            has several classes or none.
        splits: `train`, `validation`, `test` -> name of the split there. A missing validation split is drawn from
            the training split, seeded, and stratified if a sample has one class; a missing test split stays
            missing, unless `test_fraction` draws it.
        kinds: modality -> `audio`, `image` (or `vision`), `video`, `text`, `features` or `table`; a modality that
            is not named here is of the kind that it is called.
        validation_fraction: share of the training split that is drawn then.
        test_fraction: share of the training split that is drawn as a test split first, if there is none. The draw does
            not depend on `seed`, so that runs with several seeds are tested on the same samples.
        max_train_samples: size of a (stratified) part of the training split to use; None for all of it.
        seed: of these draws.
        unreadable: decode every sound, image and video beforehand, and treat those that cannot be read as an
            `"error"`, leave out their rows (`"skip"`), or take their values for missing ones (`"missing"`). None does
            not look.
        max_unreadable_share: share of a split's rows, 0 to 1, that may be skipped or have missing values so.
        problem_type: `"classification"`, or `"regression"` for labels that are numbers; an empty cell is then an
            unknown number, and parts are drawn by quantiles.
        flags: modality -> flag that names its column, for messages; unset, `--columns`.

    Returns:
        Splits `train`, `validation` and, if there is one, `test`; media undecoded, labels as `ClassLabel` or
        `List(ClassLabel)` with the classes of all splits, or as float64.

    Raises:
        TableError: if a table cannot be read, a split or column is missing, a column holds other things than its
            modality needs or a label column other things than classes, a split cannot be drawn, or files cannot be
            read. The message names the data set and the column.
        FileNotFoundError: if the data set cannot be found.
    """
    name = _name(name_or_path)
    kind_of = {modality: (kinds or {}).get(modality, modality) for modality in columns}
    if unknown := {modality: kind for modality, kind in kind_of.items() if kind not in KINDS}:
        raise TableError(f"unknown kinds of modality {unknown}: use {', '.join(KINDS)}")
    if unreadable is not None and unreadable not in UNREADABLE:
        raise ValueError(f"unreadable is {unreadable!r}: use one of {', '.join(UNREADABLE)}")
    loaded, folder = read_table(name_or_path, config_name, splits)
    chosen = DatasetDict()
    for part, split in splits.items():
        if split in loaded:
            chosen[part] = loaded[split]
        elif part == "train":
            raise TableError(f"{name} has no split {split!r}; it has {', '.join(loaded)}")
    for part, dataset in chosen.items():
        origin = f"the {part} split of {name}"
        if not len(dataset):
            raise TableError(f"{origin} has no rows")
        holds = {label_column: "the labels by --label_column"}
        for modality, several in columns.items():
            flag = (flags or {}).get(modality) or f"--columns {modality}=COLUMN"
            each = [several] if isinstance(several, str) else several
            holds |= {column: f"the modality {modality!r} by {flag}" for column in each}
        there = dict.fromkeys(dataset.column_names)
        for column, what in holds.items():
            if column not in there:
                found = f"{origin} has no column {column!r}; it has {', '.join(there)}"
                raise TableError(f"{found}: name the column that holds {what}")
        must_exist = unreadable in (None, "error")
        for modality, modality_columns in columns.items():
            dataset = prepare_column(dataset, modality_columns, kind_of[modality], origin, folder, must_exist)
        chosen[part] = dataset
    with_labels = with_numbers if problem_type == "regression" else with_class_labels
    chosen = with_labels(chosen, label_column, name)
    for part, fraction, part_seed in (("test", test_fraction, 0), ("validation", validation_fraction, seed)):
        if part not in chosen and (part == "validation" or fraction > 0):
            chosen = _with_drawn_part(chosen, part, fraction, part_seed, label_column, name)
    if max_train_samples is not None and max_train_samples < len(chosen["train"]):
        train = chosen["train"]
        strata = _strata(train, label_column)
        indices = (
            np.sort(np.random.default_rng(seed).choice(len(train), max_train_samples, replace=False))
            if strata is None
            else stratified_indices(strata, max_train_samples, seed)
        )
        chosen["train"] = train.select(indices)
    if unreadable is not None:
        media = {column: kind_of[modality] for modality, column in columns.items() if kind_of[modality] in MEDIA}
        chosen = handle_unreadable(chosen, media, name, unreadable, max_unreadable_share)  # type: ignore[arg-type]
    return chosen


def _with_drawn_part(
    splits: DatasetDict, part: str, fraction: float, seed: int, label_column: str, name: str
) -> DatasetDict:
    """Draw a part from the training split, stratified if a sample has one class or number."""
    train, stratum = splits["train"], {}
    strata = _strata(train, label_column)
    if isinstance(train.features[label_column], ClassLabel):
        stratum = {"stratify_by_column": label_column}
        _refuse_lone_classes(train, label_column, name, part)
    try:
        if stratum or strata is None:
            drawn = train.train_test_split(test_size=fraction, seed=seed, **stratum)
        else:
            kept, held_out = stratified_split(strata, fraction, seed)
            drawn = DatasetDict(train=train.select(kept), test=train.select(held_out))
    except ValueError as error:
        raise TableError(
            f"a {part} split cannot be drawn from the {len(train)} rows of the train split of {name} ({error}): name "
            f"a {part} split, raise {part}_fraction (now {fraction}), or add rows"
        ) from error
    if part == "test":
        logger.warning(
            "%s has no test split: %d of the %d training rows are drawn as one, %sby a fixed seed",
            *(name, len(drawn["test"]), len(train), "" if strata is None else "stratified and "),
        )
    return DatasetDict({**splits, "train": drawn["train"], part: drawn["test"]})


def _strata(train: Dataset, label_column: str) -> np.ndarray | None:
    """Return integers whose shares a draw keeps: classes, or quantiles of numbers; None for lists of classes."""
    feature = train.features[label_column]
    if isinstance(feature, ClassLabel):
        return np.asarray(train[label_column][:])
    if isinstance(feature, Value):
        values = [np.nan if value is None else value for value in train[label_column]]
        return quantile_strata(np.asarray(values, dtype=np.float64))
    return None


def _refuse_lone_classes(train: Dataset, column: str, name: str, part: str) -> None:
    """Refuse a class that cannot be in both the training split and the part drawn from it."""
    numbers, counts = np.unique(train[column][:], return_counts=True)
    if lone := [train.features[column].int2str(int(number)) for number in numbers[(counts == 1) & (numbers >= 0)]]:
        raise TableError(
            f"the train split of {name}: the column {column!r} has one row of {', '.join(map(repr, lone[:5]))}, so a "
            f"{part} split with every class cannot be drawn: name a {part} split, add rows, or leave these out"
        )


def _name(name_or_path: str) -> str:
    return f"the folder {name_or_path}" if Path(name_or_path).is_dir() else name_or_path
