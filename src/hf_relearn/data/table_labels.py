"""A label column as classes or numbers: what is neither is refused, names that differ by little are told of."""

import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, List, Value

from hf_relearn.data.table_files import TableError

logger = logging.getLogger(__name__)

UNLABELLED = -100


def with_class_labels(splits: DatasetDict, column: str, name: str) -> DatasetDict:
    """Make the label column of all splits a `ClassLabel`, or a list of it, with the classes of all splits.

    Whole numbers are sorted as numbers, other classes as texts. The label -100 stays as it is: it is not a class.

    Args:
        splits: with the column `column`.
        column: classes as `ClassLabel`, whole numbers or strings, or lists of these.
        name: of the data set, for messages.

    Raises:
        TableError: for numbers below 0 or beyond the classes, booleans, fractions and empty values.
    """
    feature = splits["train"].features[column]
    several = isinstance(feature, List)
    item: Any = feature.feature if several else feature
    if isinstance(item, ClassLabel):
        for part, split in splits.items():
            _check_numbers(_counts(split, column, several), len(item.names), f"the {part} split of {name}", column)
        return splits
    if not isinstance(item, Value) or "float" in item.dtype or item.dtype == "bool":
        hint = ": turn true and false into the names of two classes" if getattr(item, "dtype", "") == "bool" else ""
        if not several and "float" in getattr(item, "dtype", ""):
            hint = "; to predict the number, add --problem_type regression"
        raise TableError(
            f"the label column {column!r} of {name} holds {feature}: it needs one class per sample, or a list of them"
            f"{hint}"
        )
    counts = {part: _counts(split, column, several) for part, split in splits.items()}
    for part, found in counts.items():
        if None in found:
            raise TableError(
                f"the {part} split of {name}: the label column {column!r} has empty values in {found[None]} rows: "
                "fill them in or drop these rows"
            )
        if "int" in item.dtype:
            _check_numbers(found, None, f"the {part} split of {name}", column)
    values = sorted_classes({value for found in counts.values() for value in found if value != UNLABELLED})
    _warn_of_lookalikes([str(value) for value in values], f"the label column {column!r} of {name}")
    numbers = {value: index for index, value in enumerate(values)} | {UNLABELLED: UNLABELLED}
    classes = ClassLabel(names=[str(value) for value in values])
    target = List(classes) if several else classes
    return DatasetDict({part: _numbered(split, column, numbers, target) for part, split in splits.items()})


def with_numbers(splits: DatasetDict, column: str, name: str) -> DatasetDict:
    """Make the label column of all splits a number, as a regression predicts it; an empty cell is an unknown one.

    Args:
        splits: with the column `column`.
        column: integers or floats.
        name: of the data set, for messages.

    Raises:
        TableError: for classes, lists and other things, infinite numbers, or a split without any number.
    """
    for part, split in splits.items():
        feature = split.features[column]
        if not isinstance(feature, Value) or not feature.dtype.startswith(("int", "uint", "float", "decimal")):
            raise TableError(
                f"the {part} split of {name}: the label column {column!r} holds {feature}, but a regression predicts "
                "one number per sample: for classes leave out --problem_type regression"
            )
    numbers = DatasetDict({part: split.cast_column(column, Value("float64")) for part, split in splits.items()})
    for part, split in numbers.items():
        values = np.array([np.nan if value is None else value for value in split[column]], dtype=np.float64)
        if np.isinf(values).any() or np.isnan(values).all():
            found = "infinite numbers" if np.isinf(values).any() else "no number at all"
            raise TableError(f"the {part} split of {name}: the label column {column!r} holds {found}")
    return numbers


def with_classes_of(split: Dataset, column: str, names: Sequence[str], origin: str) -> Dataset:
    """Give a split of `load_table` the class numbers of a model, by the names of the classes.

    Numbers as names, of which the model has none, are class numbers already.

    Args:
        split: with a `ClassLabel`, or a list of it, in the column.
        column: the label column.
        names: the model's classes, in order.
        origin: the data set, for messages.

    Raises:
        TableError: for a class that the model does not have.
    """
    feature: Any = split.features[column]
    several = isinstance(feature, List)
    own = (feature.feature if several else feature).names
    places = {name: index for index, name in enumerate(names)}
    if not places.keys() & set(own) and all(name.isascii() and name.isdigit() for name in own):
        places = {str(index): index for index in range(len(names))}
    if unknown := [name for name in own if name not in places]:
        raise TableError(
            f"{origin}: the label column {column!r} has the class {unknown[0]!r}, which the model does not have; its "
            f"classes are {', '.join(names[:10])}"
        )
    numbers = {index: places[name] for index, name in enumerate(own)} | {UNLABELLED: UNLABELLED}
    classes = ClassLabel(names=list(names))
    return _numbered(split, column, numbers, List(classes) if several else classes)


def sorted_classes(values: Iterable[Any]) -> list[Any]:
    """Sort classes: as numbers if all of them are whole numbers, else as texts."""
    values = list(values)
    whole = all(
        isinstance(value, int) or (isinstance(value, str) and value.isascii() and value.isdigit()) for value in values
    )
    return sorted(values, key=lambda value: (int(value), str(value)) if whole else (0, str(value)))


def _counts(split: Dataset, column: str, several: bool) -> Counter:
    values = split[column]
    if several:
        return Counter(each for value in values for each in ([None] if value is None else value))
    return Counter(values)


def _check_numbers(found: Counter, num_classes: int | None, origin: str, column: str) -> None:
    for value, count in sorted((item for item in found.items() if item[0] is not None), key=lambda item: item[0]):
        if value == UNLABELLED or (value >= 0 and (num_classes is None or value < num_classes)):
            continue
        known = "classes are 0 or above"
        if num_classes is not None:
            known = f"its {num_classes} classes are 0 to {num_classes - 1}"
        hidden = "; -1 stands for hidden labels" if value == -1 else ""
        raise TableError(
            f"{origin}: the label column {column!r} holds {value} in {count} rows, but {known}{hidden}: leave out "
            "these rows or this split, or mark rows without a class by -100"
        )
    if num_classes is not None and None in found:
        raise TableError(f"{origin}: the label column {column!r} has empty values in {found[None]} rows: drop them")


def _numbered(split: Dataset, column: str, numbers: dict[Any, int], target: Any) -> Dataset:
    values = [
        [numbers[each] for each in value] if isinstance(value, list) else numbers[value] for value in split[column]
    ]
    return split.remove_columns(column).add_column(column, values, feature=target)


def _warn_of_lookalikes(names: list[str], origin: str) -> None:
    alike = defaultdict(list)
    for name in names:
        plain = unicodedata.normalize("NFKC", name).strip().casefold()
        alike[str(int(plain)) if plain.isascii() and plain.isdigit() else plain].append(name)
    groups = [" and ".join(map(_quoted, group)) for group in alike.values() if len(group) > 1]
    if groups:
        logger.warning("%s has classes that differ by little, and are kept apart: %s", origin, "; ".join(groups))


def _quoted(name: str) -> str:
    """Return a name in quotes; letters that look alike in two encodings are spelt by their numbers."""
    return repr(name) if unicodedata.is_normalized("NFC", name) else ascii(name)
