"""Bringing columns of a table into the form that the processor reads, by the kind of modality that they hold."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets import Audio, ClassLabel, Dataset, Image, Value, Video

from hf_relearn.data.table_files import TableError

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
