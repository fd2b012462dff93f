"""The callback that diagnoses and re-learns while a Trainer trains."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate.utils.memory import should_reduce_batch_size
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_relearn.method import ModalityDiagnosis, NonFiniteFeaturesError
from hf_relearn.method.alpha import constant_alphas
from hf_relearn.method.relearn import (
    check_optimizer_state,
    relearn_encoders,
    renew_master_weights,
    reset_optimizer_state,
)
from hf_relearn.method.tensors import reshard_
from hf_relearn.records import log_values, make_record
from hf_relearn.relearning.diagnoser import Diagnoser, PartFeatures, Verdict
from hf_relearn.relearning.encoders import chosen_encoders, module_names, warn_of_frozen_encoders
from hf_relearn.relearning.features import FeatureFunction
from hf_relearn.relearning.processes import failing_together
from hf_relearn.relearning.run_state import RunBookkeeping, arguments_of_run, checkpoint_folder
from hf_relearn.relearning.schedule import RelearnSchedule, whole_epoch
from hf_relearn.relearning.settings import RelearnSettings

Encoders = Mapping[str, nn.Module] | Callable[[nn.Module], Mapping[str, nn.Module]]


class RelearnCallback(TrainerCallback):
    """Diagnosing & re-learning for any `Trainer` and any model.

    At the start of the epoch (or step) that follows each interval, the uni-modal features of both parts are
    extracted and diagnosed, and each encoder is moved back towards its initial weights by its strength (arXiv
    2407.09705, section 3). The record stands in `relearn_history.jsonl` in the output directory and in `log_history`.

    Each `train()` without a checkpoint is a run of its own: its initial weights are those before its first step (of a
    Trainer that trains twice, those that the first run ended with), and its record replaces that of the run before.
    If `auto_find_batch_size` begins again with a smaller batch, the encoders go back to the initial weights of the
    first attempt. Fusion, head, optimizer state and random generators stay as the failed attempt left them.

    Args:
        encoders: modality -> encoder module, or a function that gives this mapping for a model.
        feature_function: (model, batch) -> modality -> (batch, d) tensor, the uni-modal features; `batch` is what
            the data collator makes, on the model's device. A pair of features and a (batch,) bool tensor in place of
            the features says which samples have the modality; those that lack it do not count for it.
        diagnosis_dataset: the diagnosing part, held out of training. None is possible with `relearn_alpha` only.
        num_classes: clusters of the K-means; None counts the classes of both parts.
        settings: a `RelearnSettings`; or give its fields as keywords.
        train_dataset, collate_fn: of the training part; None takes those of the Trainer's training data loader. A
            collator with `without_augmentation()` is used without augmentation.
        log: where the values go; None appends them to `log_history`. Trackers get them too if this is the `log`
            method of the Trainer, as `MultimodalRelearnTrainer` does.
        **fields: fields of `RelearnSettings`, such as `relearn_interval=2`.

    Attributes:
        checkpoint_folder: the checkpoint from which a run resumes. None looks in the Trainer's output directory, so
            it has to be set only for a checkpoint elsewhere; `MultimodalRelearnTrainer` sets it.
        on_features: called with the training part's features at each diagnosis; `MultimodalRelearnTrainer` sets it.
        output_dir: the folder of this run. None is the Trainer's output directory, so it has to be set only for the
            trials of a hyper-parameter search, each of which has a folder therein; `MultimodalRelearnTrainer` does.

    Raises:
        TypeError: for fields beside `settings`.
        ValueError: at the start of training, for an unknown modality, a parameter shared by two encoders, missing
            diagnosing samples, labels that are no integers, a resumed run whose initial weights are not there, or
            parameters that FSDP version 1 or DeepSpeed ZeRO-3 divides among processes (FSDP version 2 works), or an
            optimizer whose state is to be reset, but is not kept by parameter (DeepSpeed).
    """

    _run: RunBookkeeping

    def __init__(
        self,
        encoders: Encoders,
        feature_function: FeatureFunction,
        diagnosis_dataset: Any = None,
        *,
        num_classes: int | None = None,
        settings: RelearnSettings | None = None,
        train_dataset: Any = None,
        collate_fn: Callable[[list], Any] | None = None,
        log: Callable[[dict[str, float]], None] | None = None,
        **fields: Any,
    ):
        self.encoders = encoders
        self.feature_function = feature_function
        self.diagnosis_dataset = diagnosis_dataset
        self.num_classes = num_classes
        if settings is not None and fields:
            raise TypeError(f"give settings or {', '.join(fields)}, not both")
        self.settings = settings or RelearnSettings(**fields)
        self.settings.check()
        self.train_dataset = train_dataset
        self.collate_fn = collate_fn
        self.log = log
        self.checkpoint_folder: str | None = None
        self.output_dir: str | None = None
        self.diagnoser: Diagnoser | None = None
        self.on_features: Callable[[PartFeatures], None] | None = None
        self._warned_of_features = False
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
        self._schedule = RelearnSchedule(
            settings.relearn_strategy,
            settings.relearn_interval,
            settings.relearn_max_times,
            num_epochs=state.num_train_epochs,
            num_steps=state.max_steps,
        )
        self._run = RunBookkeeping(args, state, settings, self.checkpoint_folder)
        if settings.relearn_strategy != "no" or settings.diagnosis_interval:
            modules = self.encoders(model) if callable(self.encoders) else self.encoders
            self._encoders = chosen_encoders(modules, settings.relearn_modalities)
            self._names = module_names(model, self._encoders)
            self._alphas = constant_alphas(settings.relearn_alpha, list(self._encoders))
            if self._schedule.planned():
                warn_of_frozen_encoders(self._encoders)
            if message := self._schedule.why_no_point():
                warnings.warn(message, stacklevel=2)
            with failing_together(args.world_size):
                self.diagnoser = self._make_diagnoser(args, train_dataloader)
            if self.diagnoser is not None:
                self.diagnoser.on_features = self.on_features
            if self._schedule.planned():
                reshard_(model)  # or refuse what could not be moved
                if settings.relearn_optimizer_state == "reset":
                    check_optimizer_state(kwargs.get("optimizer"), self._encoders)
                self._run.open_initial_weights(model, self._names.values(), failed)
        self._run.open_records(state)
        over = self._run.resumed_from is not None and state.global_step >= state.max_steps
        if over and settings.diagnosis_interval and not self._run.has_end():
            self._diagnose_only(state, model, "end")  # the run was killed between its last step and this

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: Any
    ) -> None:
        # A run resumed in the middle of an epoch begins that epoch again, at a broken number.
        completed = whole_epoch(state.epoch)
        if not completed:
            return
        by_epoch = self._schedule.strategy == "epoch"
        due = self._schedule.is_due(completed if by_epoch else state.global_step, self._run.points_taken)
        if due and by_epoch:
            self._take_point(state, model, kwargs.get("optimizer"))
        elif not due and self.settings.diagnosis_interval and completed % self.settings.diagnosis_interval == 0:
            self._diagnose_only(state, model, "record")

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: Any
    ) -> None:
        by_steps = self._schedule.strategy == "steps"
        if by_steps and self._schedule.is_due(state.global_step, self._run.points_taken):
            self._take_point(state, model, kwargs.get("optimizer"))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: Any
    ) -> None:
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
        # An evaluation that stops a run early comes after `on_epoch_end`. The run's summary is logged next, while the
        # model is still as trained; at `on_train_end` the best one may have been loaded.
        summary = "train_runtime" in (logs or {})
        if self.settings.diagnosis_interval and summary and not self._run.has_end(state.global_step):
            self._diagnose_only(state, model, "end")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._attempt = None
        self._run.close(state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        args = arguments_of_run(args, self.output_dir)
        folder = checkpoint_folder(args, state)
        if args.should_save and folder.is_dir():
            self.write_run_files(folder)

    def write_run_files(self, checkpoint: Path) -> None:
        """Write into a checkpoint what a resumed run reads: how many records, the settings, which initial weights.

        A stock Trainer gives the occasion only after it has written the rest; `MultimodalRelearnTrainer` calls this
        before, so that no checkpoint that looks whole lacks these files.
        """
        self._run.write_into(checkpoint)

    def _begins_again(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether an attempt of this run with a larger batch has failed; notes the batch size of this one."""
        failed, self._attempt = self._attempt, state.train_batch_size if args.auto_find_batch_size else None
        return failed is not None and self._attempt is not None and self._attempt < failed and not state.global_step

    def _take_point(self, state: TrainerState, model: nn.Module, optimizer: Any) -> None:
        verdict = self._verdict(model)
        if verdict is None and self._alphas is None:
            return
        diagnosed = verdict.modalities if verdict else {}
        alphas = self._alphas or {name: diagnosed[name].alpha for name in self._encoders}
        assert self._run.initial is not None
        reshard_(model)  # the diagnosis made forward passes without backward passes
        moved = relearn_encoders(
            self._encoders, self._names, self._run.initial, alphas, self.settings.relearn_buffers == "interpolate"
        )
        renew_master_weights(optimizer)
        if self.settings.relearn_optimizer_state == "reset":
            reset_optimizer_state(optimizer, [self._encoders[name] for name in alphas if alphas[name] > 0])
        self._keep(state, "point", verdict, diagnosed, alphas, moved)

    def _diagnose_only(self, state: TrainerState, model: nn.Module, kind: str) -> None:
        verdict = self._verdict(model)
        if verdict is not None:
            nothing = dict.fromkeys(self._encoders, 0.0)
            self._keep(state, kind, verdict, verdict.modalities, nothing, nothing)

    def _verdict(self, model: nn.Module) -> Verdict | None:
        """Diagnose, or None where there is nothing to diagnose with, or features that are not finite."""
        if self.diagnoser is None:
            return None
        try:
            return self.diagnoser(model)
        except RuntimeError as error:
            if self._attempt is not None and should_reduce_batch_size(error):
                raise RuntimeError(
                    "a diagnosis ran out of memory, which a smaller training batch would not mend "
                    "(auto_find_batch_size): lower --per_device_eval_batch_size"
                ) from error
            raise
        except NonFiniteFeaturesError as error:
            if not self._warned_of_features:
                warnings.warn(f"no diagnosis is possible, and training goes on without it: {error}", stacklevel=2)
                self._warned_of_features = True
            return None

    def _keep(
        self,
        state: TrainerState,
        kind: str,
        verdict: Verdict | None,
        diagnosed: Mapping[str, ModalityDiagnosis],
        alphas: Mapping[str, float],
        moved: Mapping[str, float],
    ) -> None:
        record = make_record(state.global_step, state.epoch, kind, verdict, diagnosed, alphas, moved, self.diagnoser)
        self._run.add(record)
        values = log_values(record)
        if self.log is not None:
            self.log(values)
        else:
            state.log_history.append({**values, "epoch": state.epoch, "step": state.global_step})

    def _make_diagnoser(self, args: TrainingArguments, train_dataloader: Any) -> Diagnoser | None:
        if self.diagnosis_dataset is None:
            if self._alphas is None and self._schedule.planned():
                raise ValueError(
                    "no diagnosing part: give a diagnosis data set, hold one out (--diagnosis_fraction), take the "
                    "evaluation set (--diagnosis_source eval), or set a constant --relearn_alpha"
                )
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
        )
