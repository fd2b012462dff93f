"""Train one model of a recipe, from its flags to its report."""

import copy
import logging
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.utils import enable_progress_bars
from transformers import TrainingArguments, set_seed
from transformers.utils.logging import disable_progress_bar

from hf_relearn.cards.facts import changed_from_defaults
from hf_relearn.experiments.experiment import Experiment
from hf_relearn.experiments.modalities import columns_of
from hf_relearn.experiments.model_arguments import read_pairs
from hf_relearn.experiments.predictions import Predictions, predict
from hf_relearn.experiments.results import save_result
from hf_relearn.experiments.trackers import TrackedRun, send_report
from hf_relearn.method import quantile_strata
from hf_relearn.quality import quality_metrics
from hf_relearn.relearning.terminal import LineHandler, say
from hf_relearn.report import write_report
from hf_relearn.report.by_class import ClassResults, class_results
from hf_relearn.report.markdown import main_metrics, metric_label, number, plain, shown_metrics
from hf_relearn.report.verdict import read_verdict
from hf_relearn.text_table import text_table
from hf_relearn.training import (
    MultimodalCollator,
    MultimodalRelearnTrainer,
    RelearnSettings,
    RelearnTrainingArguments,
    last_checkpoint,
    read_history,
)
from hf_relearn.training.checkpoints import is_whole, step_of
from hf_relearn.training.metrics import ComputeMetrics, classification_metrics, with_own_metrics
from hf_relearn.training.parameter_groups import warn_of_slow_random_encoders

logger = logging.getLogger(__name__)


def show_progress(args: TrainingArguments) -> None:
    """Print the library's own lines on the main process; warnings only on the others."""
    level = logging.INFO if args.process_index == 0 else logging.WARNING
    logging.basicConfig(format="%(message)s", handlers=[LineHandler()])
    logging.captureWarnings(True)
    disable_progress_bar()  # transformers shows one for each weights file that it writes
    enable_progress_bars()  # of downloads
    logging.getLogger("hf_relearn").setLevel(level)
    logging.getLogger("__main__").setLevel(level)


@dataclass(frozen=True)
class RunResult:
    """Hold the results of a trained model."""

    trainer: MultimodalRelearnTrainer
    results: dict[str, dict[str, float]]
    records: list[dict[str, Any]]
    train_size: int
    seconds: float

    @property
    def diagnoses(self) -> list[dict[str, Any]]:
        """Return the records of diagnoses and re-learning steps, without those of changed settings."""
        return [record for record in self.records if record["kind"] != "settings"]


def run_experiment(
    experiment: Experiment,
    args: RelearnTrainingArguments,
    *,
    extra_settings: Mapping[str, Any] | None = None,
    with_predictions: bool = False,
    compute_metrics: ComputeMetrics | None = None,
) -> RunResult:
    """Train a model, evaluate it, save it with its processor, and write report and model card into its folder.

    With `--push_to_hub` the model is pushed then; `trainer.push_failure` of the result says if that failed.

    Args:
        experiment: data and model.
        args: training arguments; `resume_from_checkpoint` is a folder, or `last` for the last checkpoint there.
        extra_settings: further lines for the report's table of settings.
        with_predictions: whether to leave `predictions.npz`, and at the very end `result.json`, in the folder.
        compute_metrics: further metrics, as the Trainer's argument computes them; they stand in report, card and
            `result.json` beside accuracy and F1, under their own names.

    Raises:
        ValueError: before anything is trained, if the output directory holds checkpoints of an earlier run and none
            is to be resumed, or none is there to resume from.
    """
    start = time.perf_counter()
    experiment, args = experiment.of_modalities(args)
    if experiment.several_labels and args.needs_diagnosis:
        logger.info("Samples have several classes, which cannot be diagnosed: --relearn_strategy no")
        args = copy.copy(args)
        args.relearn_strategy = "no"
    output_dir = str(args.output_dir)
    checkpoint = checkpoint_to_resume(args)
    samples = experiment.count_samples()
    set_seed(args.seed)
    model = experiment.build_model()
    processor = experiment.build_processor(model)
    if checkpoint is None:
        started = read_pairs("encoders_from", experiment.model.encoders_from)
        warn_of_slow_random_encoders(model, args, [name for name in model.encoders if name not in started])
    trainer = MultimodalRelearnTrainer(
        model,
        args,
        MultimodalCollator(
            processor,
            columns_of(experiment.modalities),
            experiment.label_column,
            augmentation=experiment.inputs.augmentation(),
            num_labels=None if experiment.numbers else len(experiment.class_names),
        ),
        train_dataset=experiment.train,
        eval_dataset=experiment.evaluation,
        processing_class=processor,
    )
    if compute_metrics is not None:
        trainer.compute_metrics = with_own_metrics(trainer.compute_metrics or classification_metrics, compute_metrics)
    trainer.samples = samples
    trainer.card_info = replace(
        experiment.card,
        notes=experiment.card.notes or experiment.notes,
        settings={
            **changed_from_defaults(experiment.model),
            **changed_from_defaults(experiment.inputs),
            **(extra_settings or {}),
        },
    )
    trainer.add_callback(TrackedRun())
    resumed_step = step_of(checkpoint) if checkpoint and is_whole(checkpoint) else 0  # it may be gone later
    trainer.train(resume_from_checkpoint=checkpoint)
    results: dict[str, dict[str, float]] = {}
    predictions: dict[str, Predictions] = {}
    for name, split in experiment.held_out.items():
        metrics, predictions[name] = predict(trainer, split, name)
        trainer.save_metrics(name, metrics)
        results[name] = quality_metrics(metrics, name)
    trainer.save_model(output_dir, _internal_call=True)  # the push comes when card and figures are there
    parts = trainer.part_features() if trainer.diagnosis_dataset is not None else None
    result = RunResult(
        trainer,
        results,
        read_history(output_dir),
        train_size=len(trainer.train_dataset),  # type: ignore[arg-type]  # a table of rows
        seconds=time.perf_counter() - start,
    )
    if args.should_save:
        trainer.save_state()
        settings = {**chosen_settings(experiment, args), **(extra_settings or {})}
        path = write_report(
            output_dir,
            title=experiment.title,
            records=result.diagnoses,
            log_history=trainer.state.log_history,
            results=results,
            settings=settings,
            samples=samples,
            by_class=_by_class(predictions, experiment.class_names),
            features={
                name: (parts[part].with_gaps(), _shown_labels(parts[part].labels, experiment.numbers))
                for name, part in (("train", "training"), ("held-out", "diagnosing"))
            }
            if parts
            else None,
            class_names=[f"{third} third" for third in ("lowest", "middle", "highest")]
            if experiment.numbers
            else experiment.class_names,
            notes=[*experiment.notes, *_changes_of_settings(result.records)],
        )
        verdict = read_verdict(
            result.diagnoses,
            trainer.state.log_history,
            results,
            list(experiment.modalities),
            samples=samples,
            settings=settings,
        )
        send_report(trainer, path, verdict)
    trainer.card_info = replace(trainer.card_info, results=results)
    if args.push_to_hub:
        trainer.try_push("End of training")  # which writes the card, too
    else:
        trainer.create_model_card()
    if with_predictions:
        facts = {"title": experiment.title, "notes": list(experiment.notes), "seed": args.seed}
        facts |= {"train_size": result.train_size}
        save_result(trainer, experiment.held_out, predictions, facts, results, resumed_step)
    if args.should_save:
        say("\n".join(["", plain(verdict), "", _results_lines(results), "", f"report  {path}"]))
        say(f"next    {_next_command(experiment, output_dir)}")
    return result


def _shown_labels(labels: np.ndarray, numbers: bool) -> np.ndarray:
    """Return the labels by which a figure colours samples: classes, or thirds of the numbers of a part."""
    return quantile_strata(labels, 3) if numbers else labels


def _by_class(predictions: Mapping[str, Predictions], names: Sequence[str]) -> ClassResults | None:
    """Return the results of each class on the last split, which is the test set if there is one."""
    if not predictions or len(names) < 2:
        return None
    split, found = list(predictions.items())[-1]
    return class_results(split, found.labels, found.logits, names)


def _results_lines(results: Mapping[str, Mapping[str, float]]) -> str:
    """Return a table of the main metrics as rows and the splits as columns."""
    measured = shown_metrics(name for metrics in results.values() for name in metrics)
    of_modalities = ("unimodal_", "only_", "without_")
    main = main_metrics(measured)  # the report has all
    names = [name for name in measured if name in main or name.startswith(of_modalities)] or measured
    rows = [
        [
            plain(metric_label(name)).removesuffix(": accuracy").removesuffix(": R²"),
            *(number(found.get(name)) for found in results.values()),
        ]
        for name in names
    ]
    return text_table(["", *results], rows)


_EXAMPLES = {"audio": "clip.wav", "vision": "picture.jpg", "video": "clip.mp4", "text": '"some words"'}


def _next_command(experiment: Experiment, output_dir: str) -> str:
    """Return a command that uses the model of a run."""
    examples = [f"{name}={_EXAMPLES.get(modality.kind)}" for name, modality in experiment.modalities.items()]
    if any(modality.kind not in _EXAMPLES for modality in experiment.modalities.values()):
        examples = ["--file samples.csv"]
    return f"hf-relearn predict {shlex.quote(output_dir)} {' '.join(examples)}"


def chosen_settings(experiment: Experiment, args: RelearnTrainingArguments) -> dict[str, Any]:
    """Choose the settings for the report: the model's, the method's, and the main ones of training."""
    training = (
        "num_train_epochs",
        "max_steps",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "learning_rate",
        "learning_rates",
        "freeze",
        "class_weights",
        "balancing",
        "balancing_options",
        "lr_scheduler_type",
        "optim",
        "optim_args",
        "weight_decay",
        "seed",
        "world_size",
        "bf16",
        "fp16",
    )
    settings = {name: getattr(args, name) for name in training}
    settings.update({item.name: getattr(args, item.name) for item in fields(RelearnSettings)})
    for modality, plan in experiment.modalities.items():
        settings[f"{modality}_model"] = plan.backbone
    for flags in (experiment.model, experiment.inputs):
        settings.update({item.name: getattr(flags, item.name) for item in fields(flags)})
    return {name: getattr(value, "value", value) for name, value in settings.items() if value is not None}


def _changes_of_settings(records: list[dict[str, Any]]) -> list[str]:
    return [
        f"Resumed at step {record['step']} with another `{name}`: {change['to']} instead of {change['from']}."
        for record in records
        if record["kind"] == "settings"
        for name, change in record["changed"].items()
    ]


def checkpoint_to_resume(args: RelearnTrainingArguments) -> str | None:
    """Return the checkpoint to resume from, or None to start afresh in a folder without another run's checkpoints."""
    if not args.resume_from_checkpoint and any(Path(str(args.output_dir)).glob("checkpoint-*")):
        raise ValueError(
            f"--output_dir {args.output_dir} holds checkpoints of an earlier run: add --resume_from_checkpoint last "
            "to go on with it, or --overwrite to begin anew"
        )
    if args.resume_from_checkpoint != "last":
        return args.resume_from_checkpoint or None
    try:
        return last_checkpoint(str(args.output_dir))
    except ValueError as error:
        raise ValueError(f"--resume_from_checkpoint last: {error}") from None
