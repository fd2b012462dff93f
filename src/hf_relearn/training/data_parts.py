"""The parts of a run's data: what is trained on, and what is held out to diagnose."""

import logging
from collections.abc import Sequence
from typing import Any

from hf_relearn.relearning.labels import LABEL_NAMES, hold_out
from hf_relearn.training.arguments import RelearnTrainingArguments

logger = logging.getLogger(__name__)


def divide(
    args: RelearnTrainingArguments, train_dataset: Any, eval_dataset: Any, names: Sequence[str] = LABEL_NAMES
) -> tuple[Any, Any]:
    """(training part, diagnosing part or None), as the arguments say; `names` are the columns to look for labels in.

    Raises:
        ValueError: if the evaluation set is to serve but there is none, or several.
    """
    if args.diagnosis_source == "eval":
        if eval_dataset is None or isinstance(eval_dataset, dict):
            found = "none" if eval_dataset is None else f"several ({', '.join(eval_dataset)})"
            raise ValueError(
                f"--diagnosis_source eval needs one evaluation set, and there is {found}: give one, or use "
                "--diagnosis_source holdout"
            )
        return train_dataset, eval_dataset
    if args.diagnosis_fraction == 0:
        return train_dataset, None
    training, diagnosing = hold_out(train_dataset, args.diagnosis_fraction, args.seed, names)
    logger.info("%d of %d training samples are held out as the diagnosing part", len(diagnosing), len(train_dataset))
    return training, diagnosing
