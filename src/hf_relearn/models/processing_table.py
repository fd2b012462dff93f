"""Prepare rows of a table, numbers and categories with empty cells, as a backbone's inputs."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .configuration_backbones import TableConfig
from .processing_augmentation import Augmentation
from .processing_sources import RawValueError

_TAIL = 0.01  # numbers are clipped to the quantiles of this share and of the rest
_MOST_CATEGORIES = 1000
_SURELY_CATEGORIES = 50  # so few different values are categories, however few rows there are
_UNKNOWN, _EMPTY = 0, 1  # numbers of categories; those of the training part follow


class TableInput:
    """Rows of a table: a mapping from column to cell, which may be empty (None, NaN, or a blank string).

    An empty number becomes the training part's median, and a flag says so; an empty category is a category of its
    own. Numbers are clipped to the training part's quantiles of 1 % and 99 % and standardised by its mean and
    deviation. Categories that the training part does not have, or has once, are one category. `fit` finds all this.

    Args:
        numbers: of each column with numbers, `column`, `median`, `mean`, `std`, `low` and `high`.
        categories: of each column with categories, `column` and `values`, the categories as text.

    Raises:
        ValueError: for no column, one that is there twice, or settings that are not numbers.
    """

    type: ClassVar[str] = "table"

    def __init__(self, numbers: Sequence[Mapping[str, Any]] = (), categories: Sequence[Mapping[str, Any]] = ()):
        try:
            self.numbers: list[dict[str, Any]] = [
                {"column": str(each["column"]), **{key: float(each[key]) for key in _STATISTICS}} for each in numbers
            ]
            self.categories: list[dict[str, Any]] = [
                {"column": str(each["column"]), "values": [str(value) for value in each["values"]]}
                for each in categories
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the settings of a table are those that TableInput.fit gives ({error!r})") from error
        columns = self.columns
        if not columns or len(set(columns)) < len(columns):
            raise ValueError(f"a table has the columns {columns}, but each of at least one stands there once")
        for each in self.numbers:
            if not all(np.isfinite(each[key]) for key in _STATISTICS) or each["std"] <= 0:
                raise ValueError(f"the column {each['column']!r} has statistics that are not finite, or no deviation")
        self._ids = [
            {value: number for number, value in enumerate(each["values"], start=_EMPTY + 1)}
            for each in self.categories
        ]
        self.settings = {"numbers": self.numbers, "categories": self.categories}

    @property
    def columns(self) -> list[str]:
        """The columns with numbers, and then those with categories."""
        return [each["column"] for each in (*self.numbers, *self.categories)]

    @classmethod
    def fit(cls, rows: Any, columns: Sequence[str], categories: Sequence[str] = ()) -> "TableInput":
        """Find the kind of each column, and what to fill in, to scale by and to embed.

        A column is one of numbers if all its filled cells are, and of categories otherwise.

        Args:
            rows: the training part: `rows[column]` gives the cells of a column (a data set, a data frame, lists).
            columns: which to take.
            categories: those with numbers that are categories, such as postcodes.

        Raises:
            ValueError: for a column that is not there, is empty in all rows, or has too many different values for
                categories; the message names it and says what to do.
        """
        found: dict[str, list[dict[str, Any]]] = {"numbers": [], "categories": []}
        if unknown := [column for column in categories if column not in columns]:
            raise ValueError(f"categories names {unknown[0]!r}, but the columns are {', '.join(columns)}")
        for column in columns:
            try:
                cells = [_cell(value) for value in rows[column][:]]  # at once: rows of a data set are slow one by one
            except KeyError as error:
                raise ValueError(f"the training part has no column {column!r}") from error
            filled = [value for value in cells if value is not None]
            if not filled:
                raise ValueError(f"the column {column!r} is empty in all {len(cells)} training rows: leave it out")
            if column not in categories and all(_is_number(value) for value in filled):
                found["numbers"].append({"column": column, **_statistics(filled)})
            else:
                found["categories"].append({"column": column, "values": _values(column, filled)})
        return cls(**found)

    def backbone_config(self, **kwargs: Any) -> TableConfig:
        """Return the configuration of a new backbone for these columns; `kwargs` are further fields of it."""
        sizes = [len(each["values"]) + _EMPTY + 1 for each in self.categories]
        return TableConfig(num_numbers=len(self.numbers), cardinalities=sizes, columns=self.columns, **kwargs)

    @staticmethod
    def row_of(row: Mapping[str, Any], column: str | Sequence[str]) -> Any:
        """Pick the modality's cells out of a row of a data set: columns, or one that holds a mapping of them."""
        if isinstance(column, str):
            cell = row[column]
            return cell if isinstance(cell, Mapping) else {column: cell}
        return {each: row[each] for each in column}

    def is_empty(self, row: Any) -> bool:
        """Check whether all cells of a row are empty: the sample lacks the modality."""
        return isinstance(row, Mapping) and all(_cell(value) is None for value in row.values())

    def example(self, number: int = 0) -> dict[str, Any]:
        """Make up a row: medians and the first categories; of odd numbers some cells are empty."""
        row = {each["column"]: each["median"] + number * each["std"] for each in self.numbers}
        row |= {
            each["column"]: (each["values"] or [""])[number % max(1, len(each["values"]))] for each in self.categories
        }
        return {column: None if number % 2 and place % 2 else row[column] for place, column in enumerate(self.columns)}

    def __call__(self, values: Sequence[Any], augmentation: Augmentation | None = None) -> dict[str, Tensor]:
        """Return `number_values`, (batch, 2 x numbers) float32: scaled numbers, then flags of the empty ones; and
        `category_ids`, (batch, categories) int64. Each is left out without such columns. Nothing is augmented.

        Raises:
            RawValueError: for a value that is no row, has an unknown column, or holds something else than a number
                in a column with numbers.
        """
        for place, row in enumerate(values):
            if not isinstance(row, Mapping):
                raise RawValueError(
                    f"row {place} of the batch holds {type(row).__name__} ({str(row)[:40]}), but a row of a table is "
                    f"a mapping from its columns ({', '.join(self.columns)}) to cells"
                )
            if unknown := [str(column) for column in row if column not in self.columns]:
                raise RawValueError(
                    f"row {place} of the batch has the column {unknown[0]!r}, but the columns are "
                    f"{', '.join(self.columns)}"
                )
        tensors = {}
        if self.numbers:
            scaled, empty = zip(*(_scaled(each, values) for each in self.numbers), strict=True)
            tensors["number_values"] = torch.from_numpy(np.stack([*scaled, *empty], axis=1).astype(np.float32))
        if self.categories:
            ids = [
                [
                    _number_of(_cell(row.get(each["column"])), known)
                    for each, known in zip(self.categories, self._ids, strict=True)
                ]
                for row in values
            ]
            tensors["category_ids"] = torch.tensor(ids, dtype=torch.int64)
        return tensors


def read_row(name: str, text: str) -> dict[str, Any]:
    """Return the row that a text holds: a JSON object, or `COLUMN=VALUE,COLUMN=VALUE`.

    Raises:
        ValueError: for anything else; the message names the modality.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        cells = [cell.partition("=") for cell in next(csv.reader([text], skipinitialspace=True), [])]
        found = {column.strip(): value.strip() for column, equals, value in cells if equals}
        if len(found) < len(cells):
            found = None
    if not isinstance(found, dict):
        raise ValueError(
            f"modality {name!r}: {text[:60]!r} is no row of a table: give COLUMN=VALUE,COLUMN=VALUE or a JSON object"
        )
    return found


_STATISTICS = ("median", "mean", "std", "low", "high")


def _cell(value: Any) -> Any:
    """Return what a cell holds, None if it is empty."""
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, str) and not value.strip():
        return None
    return None if _is_number(value) and value != value else value  # NaN


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_))


def _statistics(filled: Iterable[Any]) -> dict[str, float]:
    """Find what to fill in, to clip to, and to scale by. Infinite numbers do not count, and are clipped later."""
    numbers = np.asarray(list(filled), dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        numbers = np.zeros(1)
    low, high = np.quantile(numbers, [_TAIL, 1 - _TAIL])
    if low == high:  # nearly all are one number
        low, high = numbers.min(), numbers.max()
    clipped = numbers.clip(low, high)
    mean, std = clipped.mean(), clipped.std()
    constant = std <= 1e-6 * abs(mean)  # what rounding leaves of 0
    found = {"median": np.median(numbers), "mean": mean, "std": 1.0 if constant or std == 0 else std, "low": low}
    return {key: float(value) for key, value in {**found, "high": high}.items()}


def _values(column: str, filled: Sequence[Any]) -> list[str]:
    """Return the categories that training rows have at least twice, the most frequent first."""
    counts = Counter(_category(value) for value in filled)
    if len(counts) > _MOST_CATEGORIES or (len(counts) > _SURELY_CATEGORIES and 2 * len(counts) > len(filled)):
        raise ValueError(
            f"the column {column!r} has {len(counts)} different values in {len(filled)} filled training rows (such as "
            f"{str(filled[0])[:40]!r}), which are too many for categories: leave it out, group its values, make it "
            "numbers, or make it a text modality of its own"
        )
    return sorted((value for value, count in counts.items() if count > 1), key=lambda value: (-counts[value], value))


def _category(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    if _is_number(value) and value == value // 1:
        return str(int(value))  # a column of whole numbers with empty cells holds floats
    text = str(value).strip()
    return text.lower() if text.lower() in ("true", "false") else text


def _number_of(value: Any, known: Mapping[str, int]) -> int:
    return _EMPTY if value is None else known.get(_category(value), _UNKNOWN)


def _scaled(fitted: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return a column's numbers, imputed, clipped and standardised, and flags of the empty ones, each (rows,)."""
    column = fitted["column"]
    cells = [_cell(row.get(column)) for row in rows]
    numbers = np.empty(len(rows))
    for place, value in enumerate(cells):
        try:
            numbers[place] = fitted["median"] if value is None else float(value)
        except (TypeError, ValueError):
            numbers[place] = np.nan
        if np.isnan(numbers[place]):
            raise RawValueError(
                f"row {place} of the batch holds {str(value)[:40]!r} in the column {column!r}, whose training rows "
                "are numbers: give a number, or leave the cell empty"
            )
    scaled = (numbers.clip(fitted["low"], fitted["high"]) - fitted["mean"]) / fitted["std"]
    return scaled, np.asarray([value is None for value in cells])
