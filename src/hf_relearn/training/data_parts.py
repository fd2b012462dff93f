"""The parts of a run's data: what is trained on, and what is held out to diagnose."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow
import pyarrow.compute
from datasets import ClassLabel

from hf_relearn.relearning.labels import LABEL_NAMES, hold_out, is_stream
from hf_relearn.relearning.settings import SOURCES
from hf_relearn.training.arguments import RelearnTrainingArguments

logger = logging.getLogger(__name__)


def divide(
    args: RelearnTrainingArguments, train_dataset: Any, eval_dataset: Any, names: Sequence[str] = LABEL_NAMES
) -> tuple[Any, Any]:
    """Divide a run's data into what is trained on and what is diagnosed on, as `diagnosis_source` says.

    Nothing is held out unless a strength needs it or `"holdout"` asks for it.

    Args:
        args: of the run.
        train_dataset: the training set.
        eval_dataset: the evaluation set, several by name, or None.
        names: columns in which to look for labels.

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
    training, held_out = hold_out(train_dataset, args.diagnosis_fraction, args.seed, names)
    logger.warning(
        "%d of %d training samples are held out to diagnose on (--diagnosis_fraction); an evaluation set would do "
        "instead",
        len(held_out),
        len(train_dataset),
    )
    return training, held_out


def label_column_of(dataset: Any) -> str:
    """Return the column with labels of a data set: `label` or `labels`, or else its only column of classes."""
    features: Mapping[str, Any] = getattr(dataset, "features", None) or {}
    classes = [
        name for name, feature in features.items() if isinstance(getattr(feature, "feature", feature), ClassLabel)
    ]
    known = [name for name in LABEL_NAMES if name in features]
    return known[0] if known else classes[0] if len(classes) == 1 else LABEL_NAMES[0]


def check_number_of_classes(model: Any, dataset: Any, names: Sequence[str]) -> None:
    """Refuse labels beyond the classes of a fusion model, if a data set tells them without being visited.

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
    if len(values) == 0 or not pyarrow.types.is_integer(values.type):
        return
    highest = pyarrow.compute.max(values).as_py()
    if highest is not None and highest >= model.config.num_labels:
        raise ValueError(
            f"the label column {column!r} holds {highest}, but the model has {model.config.num_labels} classes: build "
            f"it with num_labels={highest + 1} (or with id2label)"
        )
