"""Diagnose and re-learn while a Trainer trains."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils.memory import should_reduce_batch_size
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_relearn.method import ModalityDiagnosis
from hf_relearn.method.alpha import constant_alphas, gate_alpha
from hf_relearn.method.relearn import (
    check_optimizer_state,
    relearn_encoders,
    renew_master_weights,
    reset_optimizer_state,
)
from hf_relearn.method.tensors import reshard_
from hf_relearn.records import Point, log_values
from hf_relearn.relearning.diagnoser import Diagnoser, PartFeatures
from hf_relearn.relearning.encoders import (
    chosen_encoders,
    module_names,
    own_encoders,
    own_heads,
    warn_of_frozen_encoders,
)
from hf_relearn.relearning.features import FeatureFunction, multimodal_features
from hf_relearn.relearning.processes import failing_together
from hf_relearn.relearning.run_state import RunBookkeeping, arguments_of_run, checkpoint_folder
from hf_relearn.relearning.schedule import DEFAULT_POINTS, RelearnSchedule, whole_epoch
from hf_relearn.relearning.settings import RelearnSettings
from hf_relearn.relearning.watch import (
    EpochClock,
    GradientWatch,
    decay_of,
    steps_per_epoch,
    warn_of_constant_strength,
    warn_of_difference_at_start,
)

Encoders = Mapping[str, nn.Module] | Callable[[nn.Module], Mapping[str, nn.Module]]


class RelearnCallback(TrainerCallback):
    """Diagnose and re-learn in any `Trainer`, with any model.

    At each re-learning step, before the batch that follows, the uni-modal features of both parts are extracted and
    diagnosed, and each encoder is moved back towards its initial weights by its strength (arXiv 2407.09705, section
    3). The record stands in `relearn_history.jsonl` in the output directory and in `log_history`. It begins with a
    diagnosis before the first step.

    Each `train()` without a checkpoint is a run of its own: its initial weights are those before its first step (of a
    Trainer that trains twice, those that the first run ended with), and its record replaces that of the run before.
    If `auto_find_batch_size` begins again with a smaller batch, the encoders go back to the initial weights of the
    first attempt. Fusion, head, optimizer state and random generators stay as the failed attempt left them.

    Args:
        encoders: modality -> encoder module, or a function that gives this mapping for a model. None takes encoders,
            features, heads and the number of classes from the model, a `MultimodalForClassification`.
        feature_function: (model, batch) -> modality -> (batch, d) tensor, the uni-modal features; `batch` is what
            the data collator makes, on the model's device. A pair of features and a (batch,) bool tensor in place of
            the features says which samples have the modality; those that lack it do not count for it.
        diagnosis_dataset: samples held out of training. None is possible with a constant strength. Without `encoders`
            it is the data set of the first evaluation, which `eval_on_start=True` puts before training.
        num_classes: clusters of the K-means; None counts the classes of both parts.
        settings: a `RelearnSettings`; or give its fields as keywords.
        train_dataset, collate_fn: of the training part; None takes those of the Trainer's training data loader. A
            collator with `without_augmentation()` is used without augmentation.
        heads: model -> modality -> linear head on its features, whose accuracies the record then holds.
        log: where the values go; None appends them to `log_history`. Trackers get them too if this is the `log`
            method of the Trainer, as `MultimodalRelearnTrainer` does.
        **fields: fields of `RelearnSettings`, such as `relearn_interval=2`.

    Attributes:
        checkpoint_folder: the checkpoint from which a run resumes. None looks in the Trainer's output directory, so
            it has to be set only for a checkpoint elsewhere; `MultimodalRelearnTrainer` sets it.
        on_features: called with the training part's features at each diagnosis; `MultimodalRelearnTrainer` sets it.
        output_dir: the folder of this run. None is the Trainer's output directory, so it has to be set only for the
            trials of a hyper-parameter search, each of which has a folder therein; `MultimodalRelearnTrainer` does.
        evaluated: optimizer step and features of all held-out samples, if an evaluation has seen them with the weights
            of that step; a diagnosis at this step then need not extract them again.

    Raises:
        TypeError: for fields beside `settings`, or for one of `encoders` and `feature_function` without the other.
        ValueError: at the start of training, for an unknown modality, a parameter shared by two encoders, missing
            held-out samples, labels that are not integers, a resumed run whose initial weights are not there, or
            parameters that FSDP version 1 or DeepSpeed ZeRO-3 divides among processes (FSDP version 2 works), or an
            optimizer whose state is to be reset, but is not kept by parameter (DeepSpeed).
    """

    _run: RunBookkeeping

    def __init__(
        self,
        encoders: Encoders | None = None,
        feature_function: FeatureFunction | None = None,
        diagnosis_dataset: Any = None,
        *,
        num_classes: int | None = None,
        settings: RelearnSettings | None = None,
        train_dataset: Any = None,
        collate_fn: Callable[[list], Any] | None = None,
        heads: Callable[[nn.Module], Mapping[str, nn.Module]] | None = None,
        log: Callable[[dict[str, float]], None] | None = None,
        **fields: Any,
    ):
        if (encoders is None) != (feature_function is None):
            raise TypeError("give both encoders and feature_function, or neither for a MultimodalForClassification")
        self._asks_model = encoders is None  # and the Trainer
        self.encoders = own_encoders if encoders is None else encoders
        self.feature_function = feature_function or multimodal_features
        self.diagnosis_dataset = diagnosis_dataset
        self.num_classes = num_classes
        if settings is not None and fields:
            raise TypeError(f"give settings or {', '.join(fields)}, not both")
        self.settings = settings or RelearnSettings(**fields)
        self.settings.check()
        self.train_dataset = train_dataset
        self.collate_fn = collate_fn
        self.heads = heads or (own_heads if self._asks_model else None)
        self.log = log
        self.checkpoint_folder: str | None = None
        self.output_dir: str | None = None
        self.diagnoser: Diagnoser | None = None
        self.evaluated: tuple[int, PartFeatures] | None = None
        self._clock = EpochClock()
        self._gradients = GradientWatch()
        self.on_features: Callable[[PartFeatures], None] | None = None
        self._training = False
        self._attempt: int | None = None  # batch size of an attempt of auto_find_batch_size that has not ended

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        args = arguments_of_run(args, self.output_dir)
        failed = self._run.initial if self._begins_again(args, state) else None
        settings = self.settings
        self.evaluated = None
        self._clock, self._gradients = EpochClock(), GradientWatch(args.max_grad_norm or 0.0)
        self._schedule = RelearnSchedule(
            settings.relearn_strategy,
            settings.relearn_interval,
            settings.relearn_max_times,
            num_epochs=state.num_train_epochs,
            num_steps=state.max_steps,
            points=settings.relearn_points or DEFAULT_POINTS,
            steps_per_epoch=steps_per_epoch(train_dataloader, args),
        )
        self._run = RunBookkeeping(args, state, settings, self.checkpoint_folder)
        if settings.wants_diagnosis or settings.relearn_final:
            modules = self.encoders(model) if callable(self.encoders) else self.encoders
            self._encoders = chosen_encoders(modules, settings.relearn_modalities)
            self._names = module_names(model, self._encoders)
            self._alphas = constant_alphas(settings.constant_strength, list(self._encoders))
            if self._schedule.planned():
                warn_of_frozen_encoders(self._encoders)
            if message := self._schedule.why_no_point():
                warnings.warn(message, stacklevel=2)
            if self._asks_model:
                own: Any = model.config
                self.num_classes = self.num_classes or own.num_labels
            self._open_diagnoser(args, train_dataloader)
            if self._schedule.planned() or settings.relearn_final:
                reshard_(model)  # or refuse what could not be moved
                if settings.relearn_optimizer_state == "reset":
                    check_optimizer_state(kwargs.get("optimizer"), self._encoders)
                self._run.open_initial_weights(model, self._names.values(), failed)
        self._training = True
        self._run.open_records(state)
        resumed = self._run.resumed_from is not None
        if not resumed:
            self._diagnose_only(state, model, "start")
        elif state.global_step >= state.max_steps and settings.diagnosis_interval and not self._run.has_end():
            self._diagnose_only(state, model, "end")  # the run was killed between its last step and this

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: Any
    ) -> None:
        # A run resumed in the middle of an epoch begins that epoch again, at a broken number.
        completed = whole_epoch(state.epoch)
        if completed:
            by_epoch = self._schedule.by_epoch
            due = self._schedule.is_due(completed if by_epoch else state.global_step, self._run.points_taken)
            if due and by_epoch:
                self._take_point(state, model, kwargs.get("optimizer"), kwargs.get("lr_scheduler"))
            elif not due and self.settings.diagnosis_interval and completed % self.settings.diagnosis_interval == 0:
                self._diagnose_only(state, model, "record")
        self._clock.begin_epoch(whole=completed is not None)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: Any
    ) -> None:
        due = self._schedule.is_due(state.global_step, self._run.points_taken)
        if due and not self._schedule.by_epoch:
            self._take_point(state, model, kwargs.get("optimizer"), kwargs.get("lr_scheduler"))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: Any
    ) -> None:
        self._clock.end_epoch()
        over = state.global_step >= state.max_steps or control.should_training_stop
        if over and self.settings.diagnosis_interval:
            self._diagnose_only(state, model, "end")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "grad_norm" in logs:
            self._gradients.observe(logs["grad_norm"])
        # An evaluation that stops a run early comes after `on_epoch_end`. The run's summary is logged next, while the
        # model is still as trained; at `on_train_end` the best one may have been loaded.
        summary = "train_runtime" in (logs or {})
        if self.settings.diagnosis_interval and summary and not self._run.has_end(state.global_step):
            self._diagnose_only(state, model, "end")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        train_dataloader: Any = None,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        # A Trainer shows its evaluation set not before the first evaluation.
        if not self._awaits_samples(args) or not self._training or eval_dataloader is None:
            return
        self.diagnosis_dataset = eval_dataloader.dataset
        self._open_diagnoser(arguments_of_run(args, self.output_dir), train_dataloader)
        if state.global_step == 0:
            self._diagnose_only(state, model, "start")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._attempt, self._training = None, False
        self._run.close(state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        args = arguments_of_run(args, self.output_dir)
        folder = checkpoint_folder(args, state)
        if args.should_save and folder.is_dir():
            self.write_run_files(folder)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The run's records so far, oldest first, as `read_history` describes them."""
        return self._run.records

    def on_point(self, point: Point) -> None:
        """Receive each diagnosis of the run, after encoders were moved; for subclasses to override."""

    def write_run_files(self, checkpoint: Path) -> None:
        """Write into a checkpoint what a resumed run reads: how many records, the settings, which initial weights.

        A stock Trainer gives the occasion only after it has written the rest; `MultimodalRelearnTrainer` calls this
        before, so that no checkpoint that looks whole lacks these files.
        """
        self._run.write_into(checkpoint)

    def _begins_again(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Check whether an attempt of this run with a larger batch has failed; notes the batch size of this one."""
        failed, self._attempt = self._attempt, state.train_batch_size if args.auto_find_batch_size else None
        return failed is not None and self._attempt is not None and self._attempt < failed and not state.global_step

    def observe_gradient_norm(self, norm: Any) -> None:
        """Look at the norm of the gradients of an optimizer step before it is clipped."""
        self._gradients.observe(norm)

    def move_back(self, model: nn.Module, alphas: Mapping[str, float], optimizer: Any = None) -> dict[str, float]:
        """Move encoders towards their initial weights: modality -> strength gives modality -> relative distance."""
        assert self._run.initial is not None
        moving = {name: alpha for name, alpha in alphas.items() if alpha > 0}
        if not moving:
            return {}
        reshard_(model)  # a diagnosis made forward passes without backward passes
        encoders = {name: self._encoders[name] for name in moving}
        interpolate = self.settings.relearn_buffers == "interpolate"
        distances = relearn_encoders(encoders, self._names, self._run.initial, moving, interpolate)
        renew_master_weights(optimizer)
        if self.settings.relearn_optimizer_state == "reset":
            reset_optimizer_state(optimizer, encoders.values())
        self.evaluated = None
        return distances

    def _take_point(self, state: TrainerState, model: nn.Module, optimizer: Any, lr_scheduler: Any) -> None:
        point = self._diagnosed(state, model)
        if point is None and self._alphas is None:
            if self.diagnosis_dataset is None and self._asks_model:
                raise ValueError(
                    "a re-learning step is due, but the Trainer has not evaluated in this run: set "
                    "eval_on_start=True, or give RelearnCallback a diagnosis_dataset"
                )
            return
        point = point or Point(modalities=list(self._encoders))
        alphas = self._alphas if self._alphas is not None else dict(point.diagnosed_alphas)
        if self._alphas is not None:
            share = self._schedule.share(state.global_step)
            warn_of_constant_strength(point, self._alphas, share, decay_of(lr_scheduler))
        distances = self.move_back(model, alphas, optimizer)
        if distances:
            self._gradients.begin()
        self._keep(state, replace(point, kind="point", alphas=alphas, distances=distances))

    def _diagnose_only(self, state: TrainerState, model: nn.Module, kind: str) -> None:
        point = self._diagnosed(state, model)
        if point is not None:
            if kind == "start":
                warn_of_difference_at_start(point)
            self._keep(state, replace(point, kind=kind))

    def _diagnosed(self, state: TrainerState, model: nn.Module) -> Point | None:
        """Diagnose, or None without held-out samples."""
        if self.diagnoser is None:
            return None
        step, features = self.evaluated or (None, None)
        try:
            point = self.diagnoser(model, features if step == state.global_step else None)
        except RuntimeError as error:
            if self._attempt is not None and should_reduce_batch_size(error):
                raise RuntimeError(
                    "a diagnosis ran out of memory, which a smaller training batch would not mend "
                    "(auto_find_batch_size): lower --per_device_eval_batch_size"
                ) from error
            raise
        if self._schedule.planned():
            reshard_(model)  # forward passes without backward passes leave the root of FSDP2 whole
        suggested = {name: self._suggested(point.diagnoses.get(name)) for name in self._encoders}
        return replace(
            point,
            modalities=list(self._encoders),
            diagnosed_alphas={name: alpha for name, alpha in suggested.items() if alpha is not None},
            share_of_epoch=self._clock.share(point.seconds),
        )

    def _suggested(self, diagnosis: ModalityDiagnosis | None) -> float | None:
        if diagnosis is None:
            return None
        settings = self.settings
        if settings.gated and diagnosis.memorised is not None and diagnosis.memorised_error is not None:
            return gate_alpha(
                diagnosis.memorised,
                diagnosis.memorised_error,
                threshold=settings.relearn_gate_threshold,
                alpha=settings.relearn_gate_alpha,
                num_errors=settings.relearn_gate_errors,
            )
        return diagnosis.alpha

    def _keep(self, state: TrainerState, point: Point) -> None:
        point = replace(point, step=state.global_step, epoch=state.epoch)
        record = point.record()
        self._run.add(record)
        values = log_values(record)
        if self.log is not None:
            self.log(values)
        else:
            state.log_history.append({**values, "epoch": state.epoch, "step": state.global_step})
        self.on_point(point)

    def _awaits_samples(self, args: TrainingArguments) -> bool:
        """Whether the held-out samples are those of an evaluation that is still to come."""
        evaluates = args.eval_strategy != "no" or args.eval_on_start
        return self._asks_model and self.diagnosis_dataset is None and evaluates

    def _open_diagnoser(self, args: TrainingArguments, train_dataloader: Any) -> None:
        with failing_together(args.world_size):
            self.diagnoser = self._make_diagnoser(args, train_dataloader)
        if self.diagnoser is not None:
            self.diagnoser.on_features = self.on_features

    def _make_diagnoser(self, args: TrainingArguments, train_dataloader: Any) -> Diagnoser | None:
        if self.diagnosis_dataset is None:
            if self._alphas is None and self._schedule.planned() and not self._awaits_samples(args):
                raise ValueError(
                    "no held-out samples to diagnose on: give an evaluation set (--diagnosis_source eval) or a "
                    "diagnosis data set, hold a part out (--diagnosis_source holdout), or set a constant "
                    "--relearn_strength"
                )
            return None
        if not self.settings.wants_diagnosis:
            return None
        train_dataset = self.train_dataset if self.train_dataset is not None else train_dataloader.dataset
        return Diagnoser(
            self.feature_function,
            train_dataset,
            self.diagnosis_dataset,
            self.collate_fn or train_dataloader.collate_fn,
            self.settings,
            args,
            num_classes=self.num_classes,
            modalities=list(self._encoders),
            heads=self.heads,
        )
