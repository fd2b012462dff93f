"""Samples of a data set as examples on a model's page."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset

from hf_relearn.method import quantile_strata

MOST_EXAMPLES = 8
_SUFFIXES = {"audio": ".wav", "vision": ".png", "video": ".mp4"}


def examples_of(
    rows: Dataset, columns: Mapping[str, str | list[str]], kinds: Mapping[str, str], label_column: str, folder: Path
) -> tuple[list[list[Any]], list[str]]:
    """Take the first sample of each class, or of each stratum of the numbers, as the page's components take it.

    Args:
        rows: of `load_table`, with undecoded media and a `ClassLabel` or a number.
        columns: modality -> its column.
        kinds: modality -> its kind.
        label_column: column with classes or numbers.
        folder: where media are copied to.

    Returns:
        The values of each sample, and the name of its class, or its number.
    """
    given = rows[label_column]
    if isinstance(rows.features[label_column], ClassLabel):
        labels, names = given, rows.features[label_column].names
    else:
        labels = quantile_strata(np.array([np.nan if value is None else value for value in given]), MOST_EXAMPLES)
        names = None
    first: dict[int, int] = {}
    for place, label in enumerate(labels):
        if label is not None and label >= 0:
            first.setdefault(label, place)
    chosen = [first[label] for label in sorted(first)][:MOST_EXAMPLES]
    values = [
        [_as_component(rows[place], columns[name], kind, folder / f"{place}-{name}") for name, kind in kinds.items()]
        for place in chosen
    ]
    return values, [f"{given[place]:g}" if names is None else names[given[place]] for place in chosen]


def _as_component(row: Mapping[str, Any], column: str | list[str], kind: str, stem: Path) -> Any:
    """Return a row's value as a component takes it; None if it is missing."""
    if kind == "table":
        cells = [column] if isinstance(column, str) else column
        return ", ".join(f"{cell}={row[cell]}" for cell in cells if row[cell] is not None)
    if kind == "features":
        value = row[column] if isinstance(column, str) else [row[cell] for cell in column]
        return None if value is None else str(value)
    assert isinstance(column, str)
    value = row[column]
    if value is None or kind == "text":
        return value
    if isinstance(value, list):
        return [_as_file(item, kind, stem.with_name(f"{stem.name}-{place}")) for place, item in enumerate(value)]
    return _as_file(value, kind, stem)


def _as_file(value: Any, kind: str, stem: Path) -> str:
    """Copy a sound, picture or video to a file that the page may serve."""
    path, content = (value.get("path"), value.get("bytes")) if isinstance(value, Mapping) else (value, None)
    target = stem.with_name(stem.name + (os.path.splitext(path or "")[1] or _SUFFIXES[kind]))
    target.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        target.write_bytes(content)
    elif path is not None:
        shutil.copyfile(path, target)
    return str(target)
