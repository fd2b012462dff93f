"""The arms of a comparison: baselines and the re-learnt model, from the same seed."""

import copy
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets

from hf_relearn.experiments.arguments import RunArguments
from hf_relearn.experiments.running import Experiment, RunResult, run_experiment
from hf_relearn.hub.upload import PUSH_FAILED_EXIT_CODE
from hf_relearn.report import write_comparison
from hf_relearn.training import RelearnTrainingArguments
from hf_relearn.training.trainer import divide

logger = logging.getLogger(__name__)

_NO_RELEARNING = {"relearn_strategy": "no"}


@dataclass(frozen=True)
class Arm:
    """One model of a comparison: its data and model, its diagnosing part, and what its arguments change."""

    description: str
    experiment: Experiment
    diagnosis: datasets.Dataset | None
    changes: Mapping[str, Any] = field(default_factory=dict)


def plan_arms(experiment: Experiment, args: RelearnTrainingArguments) -> dict[str, Arm]:
    """The arms of a comparison, by name, the joint model first.

    The joint model on training and diagnosing part is what a user would do with the diagnosing samples otherwise.
    Where the evaluation set diagnoses, that arm trains on it too, so it has no validation curve.
    """
    training, diagnosing = divide(args, experiment.train, experiment.evaluation, (experiment.label_column,))
    experiment = replace(experiment, train=training)
    joint = replace(experiment, model=replace(experiment.model, unimodal_loss_weight=0.0))
    arms = {"joint": Arm("joint training on the training part", joint, diagnosing, _NO_RELEARNING)}
    if diagnosing is not None:
        changes = {**_NO_RELEARNING, "diagnosis_source": "holdout", "diagnosis_interval": 0}
        evaluation = experiment.evaluation
        if args.diagnosis_source == "eval":
            changes |= {"eval_strategy": "no", "load_best_model_at_end": False}
            evaluation = None
        both = replace(joint, train=datasets.concatenate_datasets([training, diagnosing]), evaluation=evaluation)
        arms["joint, all data"] = Arm("joint training on training and diagnosing part", both, None, changes)
    if experiment.model.unimodal_loss_weight > 0:
        arms["heads alone"] = Arm(
            "uni-modal heads without re-learning, on the training part", experiment, diagnosing, _NO_RELEARNING
        )
    arms["re-learnt"] = Arm("diagnosing & re-learning, on the training part", experiment, diagnosing)
    return arms


def compare_arms(experiment: Experiment, args: RelearnTrainingArguments) -> dict[str, RunResult]:
    """Train every arm from the same seed, each in its own folder below the output directory, and compare them there.

    Raises:
        ValueError: if there is no test set, which alone is fair to all arms.
    """
    if experiment.test is None:
        raise ValueError("--compare needs a test split: the diagnosing part takes part in the comparison itself")
    root = Path(str(args.output_dir))
    arms = plan_arms(experiment, args)
    results: dict[str, RunResult] = {}
    for name, arm in arms.items():
        logger.info("Arm %r: %s", name, arm.description)
        changes = dict(arm.changes)
        if arm.diagnosis is None:
            changes["diagnosis_fraction"] = 0.0  # the parts are divided already
        # The model of the comparison is the re-learnt one; the others stay here.
        changes["push_to_hub"] = args.push_to_hub and name == "re-learnt"
        changes["hub_model_id"] = args.hub_model_id or root.absolute().name
        folder = root / name.replace(", ", "_").replace(" ", "_").replace("-", "_")
        if not any(folder.glob("checkpoint-*")):
            changes["resume_from_checkpoint"] = None  # a comparison that goes on may not have come to this arm
        arm_args = change_arguments(args, output_dir=str(folder), **changes)
        results[name] = run_experiment(arm.experiment, arm_args, diagnosis=arm.diagnosis)
    if args.should_save:
        columns = {
            name: {
                "description": arms[name].description,
                "results": result.results,
                "log_history": result.trainer.state.log_history,
                "records": result.diagnoses,
                "train_size": result.train_size,
                "seconds": result.seconds,
            }
            for name, result in results.items()
        }
        path = write_comparison(root, columns, title=f"{experiment.title}: comparison", notes=experiment.notes)
        logger.info("The comparison is in %s", path)
    return results


def run_or_compare(experiment: Experiment, run: RunArguments, args: RelearnTrainingArguments) -> None:
    """Train one model to its report, or with `--compare` all arms to their comparison.

    Raises:
        SystemExit: with `PUSH_FAILED_EXIT_CODE` if the model could not be pushed, when everything else is done.
    """
    experiment = experiment.corrupted(run.corrupt, args)
    if run.compare:
        result = compare_arms(experiment, args)["re-learnt"]
    else:
        result = run_experiment(experiment, args, extra_settings={"preset": run.preset})
    if result.trainer.push_failure is not None:
        sys.exit(PUSH_FAILED_EXIT_CODE)


def change_arguments(args: RelearnTrainingArguments, **changes: Any) -> RelearnTrainingArguments:
    """A copy with other values, checked as new ones are; what was derived from the old values stays."""
    changed = copy.copy(args)
    for name, value in changes.items():
        setattr(changed, name, value)
    changed.check()
    return changed
