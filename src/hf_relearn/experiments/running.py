"""Train one model of a recipe, from its flags to its report."""

import copy
import logging
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub.utils import enable_progress_bars
from transformers import TrainingArguments, set_seed
from transformers.utils.logging import disable_progress_bar

from hf_relearn.cards import CardInfo
from hf_relearn.cards.facts import changed_from_defaults
from hf_relearn.data.corruption import corrupt_splits, parse_corruptions
from hf_relearn.experiments.modalities import Modality, columns_of, count_missing
from hf_relearn.experiments.model_arguments import InputArguments, ModelArguments, merge_options, read_pairs
from hf_relearn.experiments.predictions import predict
from hf_relearn.experiments.results import quality_metrics, save_result
from hf_relearn.models import MultimodalConfig, MultimodalForClassification, MultimodalProcessor
from hf_relearn.relearning.terminal import LineHandler, say
from hf_relearn.report import write_report
from hf_relearn.report.markdown import metric_label, number, plain, shown_metrics
from hf_relearn.report.verdict import missing_modalities, read_verdict
from hf_relearn.training import (
    MultimodalCollator,
    MultimodalRelearnTrainer,
    RelearnSettings,
    RelearnTrainingArguments,
    last_checkpoint,
    read_history,
)
from hf_relearn.training.checkpoints import is_whole, step_of
from hf_relearn.training.parameter_groups import warn_of_slow_random_encoders


def show_progress(args: TrainingArguments) -> None:
    """Print the library's own lines on the main process; warnings only on the others."""
    level = logging.INFO if args.process_index == 0 else logging.WARNING
    logging.basicConfig(format="%(message)s", handlers=[LineHandler()])
    logging.captureWarnings(True)
    disable_progress_bar()  # transformers shows one for each weights file that it writes
    enable_progress_bars()  # of downloads
    logging.getLogger("hf_relearn").setLevel(level)
    logging.getLogger("__main__").setLevel(level)


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experiment:
    """Describe a recipe's data and model.

    Args:
        title: heading of the report.
        modalities: modality -> its column and backbone, in the order of fusion.
        label_column: column of a `ClassLabel`, or of a list of them if a sample may have several classes.
        train, evaluation, test: the splits; evaluation and test may be None.
        model, inputs: the flags of the model and of its inputs.
        notes: what a reader of the report has to know.
        card: what the model card has to be told; without notes of its own it has those of the report.
    """

    title: str
    modalities: Mapping[str, Modality]
    label_column: str
    train: datasets.Dataset
    evaluation: datasets.Dataset | None
    test: datasets.Dataset | None
    model: ModelArguments
    inputs: InputArguments
    notes: tuple[str, ...] = ()
    card: CardInfo = field(default_factory=CardInfo)

    def of_modalities(self, args: RelearnTrainingArguments) -> tuple["Experiment", RelearnTrainingArguments]:
        """Return the experiment and arguments with those modalities alone that `--use_modalities` names.

        Flags that name another modality are left out; a single modality needs no fusion.

        Raises:
            ValueError: for a name that is not a modality.
        """
        wanted = self.model.use_modalities
        if wanted is None:
            return self, args
        for name in wanted:
            if name not in self.modalities:
                raise ValueError(f"--use_modalities names {name!r}; the modalities are {', '.join(self.modalities)}")
        others = [name for name in self.modalities if name not in wanted]

        def kept(values: list[str] | None) -> list[str] | None:
            return [
                value for value in values or () if not any(re.match(rf"{name}\b", value) for name in others)
            ] or None

        model = replace(self.model, pooling=kept(self.model.pooling), encoders_from=kept(self.model.encoders_from))
        if len(wanted) == 1:
            model = replace(model, fusion="concat", fusion_options=None)
        args = copy.copy(args)
        for flag in ("learning_rates", "freeze", "relearn_modalities"):
            setattr(args, flag, kept(getattr(args, flag)))
        if args.relearn_alpha is not None:
            args.relearn_alpha = ",".join(kept(args.relearn_alpha.split(",")) or ()) or None
        modalities = {name: modality for name, modality in self.modalities.items() if name in wanted}
        return replace(self, modalities=modalities, model=model), args

    @property
    def held_out(self) -> dict[str, datasets.Dataset]:
        """The splits that are evaluated at the end: `validation` and `test`, if they are there."""
        splits = {"validation": self.evaluation, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def several_labels(self) -> bool:
        """Whether a sample may have several classes."""
        return not isinstance(self.train.features[self.label_column], datasets.ClassLabel)

    @property
    def class_names(self) -> list[str]:
        feature = self.train.features[self.label_column]
        return (feature.feature if self.several_labels else feature).names

    def count_samples(self) -> dict[str, dict[str, Any]]:
        """Count each split's samples, and under `missing` those that lack a modality."""
        splits = {"train": self.train, "validation": self.evaluation, "test": self.test}
        return {
            split: {
                "samples": len(dataset),
                "missing": {
                    name: count_missing(dataset, modality.column) for name, modality in self.modalities.items()
                },
            }
            for split, dataset in splits.items()
            if dataset is not None
        }

    def corrupted(self, corruptions: Sequence[str] | None, args: TrainingArguments) -> "Experiment":
        """Return the experiment on spoilt data, of which its notes tell; `corrupt_splits` says how.

        Args:
            corruptions: as `--corrupt` takes them.
            args: the seed is used, and the main process prepares the data first.

        Raises:
            ValueError: for what cannot be done to these data.
        """
        parsed = parse_corruptions(corruptions, list(self.modalities))
        if not parsed:
            return self
        splits = {"train": self.train, "evaluation": self.evaluation, "test": self.test}
        with args.main_process_first(desc="spoiling the data"):
            spoilt = corrupt_splits(
                {name: split for name, split in splits.items() if split is not None},
                parsed,
                columns=columns_of(self.modalities),
                kinds={name: modality.kind for name, modality in self.modalities.items()},
                label_column=self.label_column,
                seed=args.seed,
            )
        notes = [f"Spoilt for an experiment: {corruption}." for corruption in parsed]
        card = replace(self.card, notes=[*self.card.notes, *notes]) if self.card.notes else self.card
        return replace(self, **{**splits, **spoilt}, notes=(*self.notes, *notes), card=card)

    def backbones(self) -> dict[str, Any]:
        """Modality -> what `from_backbones` takes."""
        return {name: modality.build_backbone(name, self.train) for name, modality in self.modalities.items()}

    def build_model(self) -> MultimodalForClassification:
        """Build a new model by torch's generator. Each part starts the same, whatever the other parts are.

        Raises:
            ValueError: if an encoder is to start from that of a saved model that is another one.
        """
        kwargs = self.model.build_kwargs(list(self.modalities))
        options = {name: modality.model_options(self.inputs) for name, modality in self.modalities.items()}
        kwargs["modality_options"] = merge_options(options, kwargs["modality_options"])
        if self.several_labels:
            kwargs["problem_type"] = "multi_label_classification"
        model = MultimodalForClassification.from_backbones(
            self.backbones(), id2label=dict(enumerate(self.class_names)), **kwargs
        )
        for name, folder in read_pairs("encoders_from", self.model.encoders_from, self.modalities).items():
            _load_encoder(model, name, folder)
        return model

    def build_processor(self, model: MultimodalForClassification) -> MultimodalProcessor:
        """Return the processor that goes with the model."""
        config = model.config
        assert isinstance(config, MultimodalConfig)
        options = {
            name: modality.processor_options(name, config.modalities[name], self.inputs, self.train)
            for name, modality in self.modalities.items()
        }
        return MultimodalProcessor.from_model(config, self.backbones(), options)


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
) -> RunResult:
    """Train a model, evaluate it, save it with its processor, and write report and model card into its folder.

    With `--push_to_hub` the model is pushed then; `trainer.push_failure` of the result says if that failed.

    Args:
        experiment: data and model.
        args: training arguments; `resume_from_checkpoint` is a folder, or `last` for the last checkpoint there.
        extra_settings: further lines for the report's table of settings.
        with_predictions: whether to leave `predictions.npz`, and at the very end `result.json`, in the folder.

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
    checkpoint = _checkpoint(args)
    samples = experiment.count_samples()
    if args.process_index == 0:
        for sentence in missing_modalities(samples):
            say(plain(sentence))
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
            num_labels=len(experiment.class_names),
        ),
        train_dataset=experiment.train,
        eval_dataset=experiment.evaluation,
        processing_class=processor,
    )
    trainer.card_info = replace(
        experiment.card,
        notes=experiment.card.notes or experiment.notes,
        settings={
            **changed_from_defaults(experiment.model),
            **changed_from_defaults(experiment.inputs),
            **(extra_settings or {}),
        },
    )
    resumed_step = step_of(checkpoint) if checkpoint and is_whole(checkpoint) else 0  # it may be gone later
    trainer.train(resume_from_checkpoint=checkpoint)
    results, predictions = {}, {}
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
            features={
                name: (parts[part].with_gaps(), parts[part].labels)
                for name, part in (("train", "training"), ("held-out", "diagnosing"))
            }
            if parts
            else None,
            class_names=experiment.class_names,
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
        say("\n".join(["", plain(verdict), "", *_results_lines(results), "", f"report  {path}"]))
        say(f"next    {_next_command(experiment, output_dir)}")
    return result


def _results_lines(results: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the main metrics as rows and the splits as columns."""
    measured = shown_metrics(name for metrics in results.values() for name in metrics)
    of_modalities = ("unimodal_", "only_", "without_")
    names = [name for name in measured if name in _MAIN_METRICS or name.startswith(of_modalities)] or measured
    labels = [plain(metric_label(name)).removesuffix(": accuracy") for name in names]
    widths = [max(map(len, labels), default=0), *(max(len(split), 8) for split in results)]
    rows = [
        [label, *(number(metrics.get(name)) for metrics in results.values())]
        for name, label in zip(names, labels, strict=True)
    ]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in [["", *results], *rows]
    ]


_MAIN_METRICS = ("accuracy", "f1_macro", "f1_micro")  # the report has all
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


def _checkpoint(args: RelearnTrainingArguments) -> str | None:
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


def _load_encoder(model: MultimodalForClassification, name: str, folder: str) -> None:
    saved = MultimodalForClassification.from_pretrained(folder, dtype=model.dtype)
    if name not in saved.encoders:
        raise ValueError(f"--encoders_from {name}={folder}: that model has {', '.join(saved.encoders)}")
    try:
        model.encoders[name].load_state_dict(saved.encoders[name].state_dict())
    except RuntimeError as error:
        raise ValueError(f"--encoders_from {name}={folder}: that model's {name} has another backbone") from error
