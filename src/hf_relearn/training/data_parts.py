"""The parts of a run's data: what is trained on, what is held out to diagnose, and how many samples each holds."""

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
from datasets import ClassLabel

from hf_relearn.files import write_whole_text
from hf_relearn.models.configuration_multimodal import REGRESSION
from hf_relearn.relearning.labels import LABEL_NAMES, hold_out, is_stream
from hf_relearn.relearning.settings import SOURCES
from hf_relearn.relearning.terminal import say
from hf_relearn.training.arguments import RelearnTrainingArguments

logger = logging.getLogger(__name__)

SAMPLES_FILE = "samples.json"  # in the output directory: what `count_samples` gives of a run's splits


def divide(
    args: RelearnTrainingArguments,
    train_dataset: Any,
    eval_dataset: Any,
    names: Sequence[str] = LABEL_NAMES,
    *,
    numbers: bool = False,
) -> tuple[Any, Any]:
    """Divide a run's data into what is trained on and what is diagnosed on, as `diagnosis_source` says.

    Nothing is held out unless a strength needs it or `"holdout"` asks for it.

    Args:
        args: of the run.
        train_dataset: the training set.
        eval_dataset: the evaluation set, several by name, or None.
        names: columns in which to look for labels.
        numbers: whether these are numbers, as of a regression.

    Returns:
        The training part, and the held-out samples or None.

    Raises:
        ValueError: if the evaluation set is to serve, but there is none or several and none is named.
    """
    source = args.diagnosis_source
    several = isinstance(eval_dataset, Mapping)
    if source not in SOURCES and not (several and source in eval_dataset):
        found = f"the evaluation sets are {', '.join(eval_dataset)}" if several else "there are not several"
        raise ValueError(
            f"--diagnosis_source {source} is the name of no evaluation set ({found}): choose auto, eval, holdout or "
            "one of these names"
        )
    if source in ("auto", "eval") and not args.wants_diagnosis:
        return train_dataset, None
    if source not in SOURCES:
        return train_dataset, eval_dataset[source]
    if source in ("auto", "eval") and several:
        if len(eval_dataset) > 1:
            raise ValueError(
                f"there are several evaluation sets ({', '.join(eval_dataset)}): name the one to diagnose on, "
                f"--diagnosis_source {next(iter(eval_dataset))}, or use --diagnosis_source holdout"
            )
        eval_dataset = next(iter(eval_dataset.values()), None)
    if source in ("auto", "eval") and eval_dataset is not None:
        return train_dataset, eval_dataset
    if source == "eval":
        raise ValueError(
            "--diagnosis_source eval needs an evaluation set, and there is none: give one, or use --diagnosis_source "
            "holdout"
        )
    if args.diagnosis_fraction == 0 or (source == "auto" and not args.needs_diagnosis):
        return train_dataset, None
    training, held_out = hold_out(train_dataset, args.diagnosis_fraction, args.seed, names, numbers=numbers)
    logger.warning(
        "%d of %d training samples are held out to diagnose on (--diagnosis_fraction); an evaluation set would do "
        "instead",
        len(held_out),
        len(train_dataset),
    )
    return training, held_out


def count_samples(splits: Mapping[str, Any], columns: Mapping[str, str | Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Count the samples of each split, and those whose cells of a modality are empty. No sample is decoded.

    Args:
        splits: name -> data set; None and streams are passed over.
        columns: modality -> column, or columns of one vector or row.

    Returns:
        Split -> `samples` and, of a `datasets.Dataset` only, `missing`: modality -> number of samples that lack it.
    """
    counts: dict[str, dict[str, Any]] = {}
    for split, dataset in splits.items():
        if dataset is None or is_stream(dataset):
            continue
        known = getattr(dataset, "column_names", None) or ()
        lists = {name: [column] if isinstance(column, str) else list(column) for name, column in columns.items()}
        counts[split] = {"samples": len(dataset)}
        if known:
            counts[split]["missing"] = {
                name: _count_missing(dataset, several) for name, several in lists.items() if set(several) <= set(known)
            }
    return counts


def splits_of_run(train_dataset: Any, diagnosis_dataset: Any, eval_dataset: Any) -> dict[str, Any]:
    """Name the data sets of a Trainer. Samples to diagnose on count by themselves if they are not for evaluation."""
    evaluated = dict(eval_dataset) if isinstance(eval_dataset, Mapping) else {"validation": eval_dataset}
    held_out = None if any(diagnosis_dataset is dataset for dataset in evaluated.values()) else diagnosis_dataset
    return {"train": train_dataset, "held-out": held_out, **evaluated}


def tell_samples(samples: Mapping[str, Mapping[str, Any]], folder: Path, *, numbers: bool = False) -> None:
    """Print what `count_samples` gave, and leave it in the output directory for the report."""
    from hf_relearn.report.markdown import plain  # its import brings matplotlib
    from hf_relearn.report.verdict import describe_samples

    for sentence in describe_samples(samples, numbers=numbers, together=True):
        say(plain(sentence))
    folder.mkdir(parents=True, exist_ok=True)
    write_whole_text(folder / SAMPLES_FILE, json.dumps(samples, indent=2) + "\n")


def _count_missing(dataset: Any, columns: list[str]) -> int:
    if not all(dataset.data.column(name).null_count for name in columns):  # of the whole file, known without reading
        return 0
    count = 0
    for batch in dataset.select_columns(columns).with_format("arrow").iter(batch_size=1000):
        empty = [pyarrow.compute.is_null(batch.column(name)) for name in columns]
        count += pyarrow.compute.sum(functools.reduce(pyarrow.compute.and_, empty)).as_py() or 0
    return count


def label_column_of(dataset: Any) -> str:
    """Return the column with labels of a data set: `label` or `labels`, or else its only column of classes."""
    features: Mapping[str, Any] = getattr(dataset, "features", None) or {}
    classes = [
        name for name, feature in features.items() if isinstance(getattr(feature, "feature", feature), ClassLabel)
    ]
    known = [name for name in LABEL_NAMES if name in features]
    return known[0] if known else classes[0] if len(classes) == 1 else LABEL_NAMES[0]


def has_fractions(values: Any) -> bool:
    """Check whether a pyarrow array of floats holds any that is no whole number."""
    known = values.drop_null()
    return bool(pyarrow.compute.any(pyarrow.compute.not_equal(known, pyarrow.compute.floor(known))).as_py())


def check_number_of_classes(model: Any, dataset: Any, names: Sequence[str]) -> None:
    """Refuse labels beyond the classes of a fusion model, if a data set tells them without being visited.

    Numbers with fractions are no classes; of a regression any number is a label.

    Raises:
        ValueError: names the column and the number of classes that it takes.
    """
    column = next((name for name in names if name in (getattr(dataset, "column_names", None) or ())), None)
    if column is None or is_stream(dataset) or not hasattr(getattr(model, "config", None), "modalities"):
        return
    values = dataset.with_format("arrow", columns=[column])[:][column].combine_chunks()
    while hasattr(values, "flatten") and not pyarrow.types.is_primitive(values.type):
        if not (pyarrow.types.is_list(values.type) or pyarrow.types.is_large_list(values.type)):
            return
        values = values.flatten()
    if model.config.problem_type == REGRESSION:
        if pyarrow.types.is_integer(values.type) or pyarrow.types.is_floating(values.type):
            return
        raise ValueError(f"the label column {column!r} holds {values.type}, but the model predicts a number")
    if pyarrow.types.is_floating(values.type) and has_fractions(values):
        raise ValueError(
            f"the label column {column!r} holds numbers with fractions, but the model has classes: to predict the "
            "number, build it with num_labels=1"
        )
    if len(values) == 0 or not pyarrow.types.is_integer(values.type):
        return
    highest = pyarrow.compute.max(values).as_py()
    if highest is not None and highest >= model.config.num_labels:
        raise ValueError(
            f"the label column {column!r} holds {highest}, but the model has {model.config.num_labels} classes: build "
            f"it with num_labels={highest + 1} (or with id2label)"
        )
