"""The parts of a run's data: what is trained on, and what is held out to diagnose."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from hf_relearn.relearning.labels import LABEL_NAMES, hold_out
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
