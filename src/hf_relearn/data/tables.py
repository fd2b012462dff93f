"""Any data set with columns of media, text or numbers and a label column, ready for the collator."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, DatasetDict, List, Value

from hf_relearn.data.table_columns import KINDS, prepare_column
from hf_relearn.data.table_files import TableError, read_table
from hf_relearn.method import stratified_indices

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
