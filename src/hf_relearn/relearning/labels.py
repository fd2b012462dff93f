"""Read the labels of a data set, and hold out samples of a training set."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from accelerate.data_loader import IterableDatasetShard
from torch.utils.data import IterableDataset, Subset

from hf_relearn.method import quantile_strata, stratified_split
from hf_relearn.method.regression import number_vector
from hf_relearn.method.samples import UNLABELLED
from hf_relearn.relearning.features import preserved_random_state

STREAM_SAMPLES = 2048


def is_stream(dataset: Any) -> bool:
    """Check whether a data set can only be iterated: an `IterableDataset` of torch or datasets, or without rows."""
    return isinstance(dataset, IterableDataset) or not (
        hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    )


def first_rows(dataset: Any, bound: int | None, seed: int) -> list[Any]:
    """Read a stream's first samples at once into memory, so that every diagnosis sees the same ones.

    Reading leaves the random generators as they were. A stream that draws from them is read with `seed`, and a
    `datasets` stream in the order of its first epoch, so that a resumed run reads the same samples.

    Args:
        dataset: a stream; every iteration over it begins anew.
        bound: samples at most; None for 2048.
        seed: of all random generators meanwhile.

    Raises:
        ValueError: if the stream is its own iterator, so that what is read here would be lost to training.
    """
    if isinstance(dataset, IterableDatasetShard):
        dataset = dataset.dataset  # the whole stream, of which each process trains on a share
    with preserved_random_state(seed):
        iterator = iter(dataset)
        if iterator is dataset:
            raise ValueError(
                f"{type(dataset).__name__} is its own iterator, so samples read for a diagnosis would be lost to "
                "training: let __iter__ return a new iterator each time"
            )
        return list(islice(iterator, bound or STREAM_SAMPLES))


LABEL_NAMES = ("label", "labels")


def label_names(collate_fn: Callable | None) -> Sequence[str]:
    """Return the columns in which to look for labels: the collator's `label_column` if it has one."""
    column = getattr(collate_fn, "label_column", None)
    return LABEL_NAMES if column is None else (column,)


# Labels of data sets that had to be visited row by row, as long as these exist.
_VISITED: WeakKeyDictionary[Any, dict[tuple[str, ...], tuple[str, np.ndarray]]] = WeakKeyDictionary()


def dataset_labels(dataset: Any, names: Sequence[str] = LABEL_NAMES) -> np.ndarray:
    """Return integer labels of a map-style data set, in order.

    A column of a `datasets.Dataset` is read without decoding anything else. The rows of any other data set are
    visited one by one, once; random numbers that they draw leave no trace.

    Args:
        dataset: `datasets.Dataset`, a torch data set of mappings, or a `Subset` of one.
        names: the label column, the first of these that is there.

    Returns:
        (n,) int64.

    Raises:
        ValueError: if the data set is a stream, is empty, has rows that are not mappings or no label column, or labels
            that are not integers, or are negative (but for -100, a sample without a class).
    """
    name, values = _label_values(dataset, names)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(
            f"the column {name!r} holds {values.dtype} values of shape {values.shape[1:] or '()'}: a diagnosis needs "
            "one integer class per sample; of numbers to predict, build the model with num_labels=1 (--problem_type "
            "regression)"
        )
    if len(wrong := np.flatnonzero((values < 0) & (values != UNLABELLED))):
        raise ValueError(
            f"the column {name!r} holds {values[wrong[0]]} in {len(wrong)} of {len(values)} rows (first in row "
            f"{wrong[0]}), but classes count from 0: leave out rows with hidden labels, or give those without a class "
            f"the label {UNLABELLED}"
        )
    return values.astype(np.int64)


def dataset_targets(dataset: Any, names: Sequence[str] = LABEL_NAMES) -> np.ndarray:
    """Return the numbers that a regression predicts, of a map-style data set, in order; see `dataset_labels`.

    Returns:
        (n,) float64; NaN for a sample without one.

    Raises:
        ValueError: as `dataset_labels`, or for labels that are not finite numbers.
    """
    name, values = _label_values(dataset, names)
    if values.dtype == object:
        values = np.array([np.nan if value is None else value for value in values])
    return number_vector(values, f"the column {name!r}")


def _label_values(dataset: Any, names: Sequence[str]) -> tuple[str, np.ndarray]:
    """Return the name and the values of the label column."""
    values: Any
    if is_stream(dataset):
        raise ValueError(
            f"{type(dataset).__name__} is a stream, of which no part can be held out, since its samples are not known "
            "before training has read them: use a map-style data set, diagnose on the evaluation set "
            "(--diagnosis_source eval), or train without a diagnosis (a constant --relearn_strength or "
            "--relearn_strategy no)"
        )
    if len(dataset) == 0:
        raise ValueError("the data set is empty: it has no labels")
    if isinstance(dataset, Subset) and (
        hasattr(dataset.dataset, "column_names") or tuple(names) in _visited_labels(dataset.dataset)
    ):
        name, every = _label_values(dataset.dataset, names)
        return name, every[np.asarray(dataset.indices)]
    visited = _visited_labels(dataset)
    if tuple(names) in visited:
        return visited[tuple(names)]
    with preserved_random_state():
        columns = getattr(dataset, "column_names", None)
        if columns is None:
            row = dataset[0]
            if not isinstance(row, Mapping):
                raise ValueError(
                    f"a row of {type(dataset).__name__} is a {type(row).__name__}, which does not tell the label: let "
                    f"the data set give mappings with {' or '.join(map(repr, names))}"
                )
            columns = list(row)
        name = next((name for name in names if name in columns), "")
        if not name:
            raise ValueError(
                f"no label column: looked for {', '.join(names)} among {', '.join(columns)}; name it to the collator "
                "(MultimodalCollator(processor, label_column=...)), or rename it to 'label'"
            )
        if hasattr(dataset, "column_names"):
            values = dataset.with_format("numpy", columns=[name])[:][name]
        else:
            values = [dataset[index][name] for index in range(len(dataset))]
    if np.ndim(values[0]) == 1:
        raise ValueError(
            f"the column {name!r} holds several targets per sample (multi-label), but a diagnosis, and a stratified "
            "part of a training set, need one class per sample: train with --relearn_strategy no, or with a constant "
            "--relearn_strength and --diagnosis_source holdout --diagnosis_fraction 0"
        )
    visited[tuple(names)] = name, np.asarray(values)
    return visited[tuple(names)]


def _visited_labels(dataset: Any) -> dict[tuple[str, ...], tuple[str, np.ndarray]]:
    """Find the labels of a data set without columns, by the names that were looked for."""
    if hasattr(dataset, "column_names"):
        return {}
    try:
        return _VISITED.setdefault(dataset, {})
    except TypeError:  # a list, for instance, cannot be referred to weakly
        return {}


def select(dataset: Any, indices: np.ndarray) -> Any:
    """Return some rows of a data set: a memory-mapped view of a `datasets.Dataset`, a `Subset` of any other."""
    if hasattr(dataset, "select"):
        return dataset.select(indices)
    return Subset(dataset, [int(index) for index in indices])


def hold_out(
    dataset: Any, fraction: float, seed: int, names: Sequence[str] = LABEL_NAMES, *, numbers: bool = False
) -> tuple[Any, Any]:
    """Divide a training set into (training part, held-out part), stratified by label and seeded.

    With `numbers` the labels are targets of a regression, which are divided into strata by their quantiles.

    Raises:
        ValueError: as `dataset_labels`, or if the fraction leaves one part empty.
    """
    labels = quantile_strata(dataset_targets(dataset, names)) if numbers else dataset_labels(dataset, names)
    kept, held_out = stratified_split(labels, fraction, seed)
    return select(dataset, kept), select(dataset, held_out)
