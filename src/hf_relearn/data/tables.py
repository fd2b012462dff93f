"""Any data set with an audio, an image and a label column, from the Hub, a folder or files, ready for the collator."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Image, Value

from hf_relearn.method import stratified_indices


class TableError(ValueError):
    """A data set that lacks a split or a column, or whose column is of the wrong kind."""


def load_table(
    name_or_path: str,
    config_name: str | None = None,
    *,
    columns: Mapping[str, str],
    label_column: str,
    splits: Mapping[str, str | None],
    validation_fraction: float = 0.1,
    max_train_samples: int | None = None,
    seed: int = 0,
) -> DatasetDict:
    """Load a data set and bring its columns into the form that the processor reads.

    Args:
        name_or_path: Hub id, or a local folder of Parquet, CSV, JSON or media files.
        config_name: configuration of the data set.
        columns: modality kind (`audio` or `image`) -> column.
        label_column: column with class labels: `ClassLabel`, integers or strings.
        splits: `train`, `validation`, `test` -> name of the split there. A missing validation split is drawn from
            the training split, stratified and seeded; a missing test split stays missing.
        validation_fraction: share of the training split that is drawn then.
        max_train_samples: size of a stratified part of the training split to use; None for all of it.
        seed: of these draws.

    Returns:
        Splits `train`, `validation` and, if there is one, `test`; media undecoded, labels as `ClassLabel`.

    Raises:
        TableError: if a split or column is missing, or a label column holds other things than classes.
        FileNotFoundError: if the data set cannot be found.
    """
    loaded = datasets.load_dataset(name_or_path, config_name)
    chosen = DatasetDict()
    for part, split in splits.items():
        if split in loaded:
            chosen[part] = loaded[split]
        elif part == "train":
            raise TableError(f"{_name(name_or_path)} has no split {split!r}; it has {', '.join(loaded)}")
    for part, dataset in chosen.items():
        for column in (*columns.values(), label_column):
            if column not in dataset.column_names:
                raise TableError(
                    f"the {part} split of {_name(name_or_path)} has no column {column!r}; it has "
                    f"{', '.join(dataset.column_names)}"
                )
        chosen[part] = _undecoded(dataset, columns)
    chosen = _with_class_labels(chosen, label_column, _name(name_or_path))
    if "validation" not in chosen:
        drawn = chosen["train"].train_test_split(
            test_size=validation_fraction, seed=seed, stratify_by_column=label_column
        )
        chosen = DatasetDict({**chosen, "train": drawn["train"], "validation": drawn["test"]})
    if max_train_samples is not None and max_train_samples < len(chosen["train"]):
        labels = chosen["train"][label_column][:]
        chosen["train"] = chosen["train"].select(stratified_indices(labels, max_train_samples, seed))
    return chosen


def _undecoded(dataset: Dataset, columns: Mapping[str, str]) -> Dataset:
    """Leave decoding to the processor: `datasets` would need further libraries for it."""
    features = {"audio": Audio(decode=False), "image": Image(decode=False)}
    for kind, column in columns.items():
        feature = features[kind]
        if isinstance(dataset.features[column], (datasets.List, Sequence)):
            feature = datasets.List(feature)
        dataset = dataset.cast_column(column, feature)
    return dataset


def _with_class_labels(splits: DatasetDict, column: str, name: str) -> DatasetDict:
    feature = splits["train"].features[column]
    if isinstance(feature, ClassLabel):
        return splits
    if not isinstance(feature, Value) or "float" in feature.dtype:
        raise TableError(f"the label column {column!r} of {name} holds {feature}: it needs one class per sample")
    values = sorted({value for split in splits.values() for value in split.unique(column)}, key=str)
    if None in values:
        raise TableError(f"the label column {column!r} of {name} has empty values: fill them in or drop these rows")
    names = [str(value) for value in values]
    return DatasetDict(
        {
            part: split.cast_column(column, Value("string")).cast_column(column, ClassLabel(names=names))
            for part, split in splits.items()
        }
    )


def _name(name_or_path: str) -> str:
    return f"the folder {name_or_path}" if Path(name_or_path).exists() else name_or_path
