"""One run of a Trainer: when its encoders are diagnosed, by how much they move, and what is recorded of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from accelerate.utils.memory import should_reduce_batch_size
from torch import nn
from transformers import TrainerState, TrainingArguments

from hf_relearn.method import InitialWeights, ModalityDiagnosis
from hf_relearn.method.alpha import constant_alphas, gate_alpha
from hf_relearn.method.relearn import (
    check_optimizer_state,
    relearn_encoders,
    renew_master_weights,
    reset_optimizer_state,
)
from hf_relearn.method.tensors import reshard_
from hf_relearn.models.configuration_multimodal import REGRESSION
from hf_relearn.records import Point, finite, log_values, modality_entry
from hf_relearn.relearning.diagnoser import Diagnoser
from hf_relearn.relearning.encoders import chosen_encoders, module_names, warn_of_frozen_encoders
from hf_relearn.relearning.processes import failing_together
from hf_relearn.relearning.run_state import RunBookkeeping
from hf_relearn.relearning.schedule import DEFAULT_POINTS, RelearnSchedule
from hf_relearn.relearning.watch import (
    EpochClock,
    GradientWatch,
    decay_of,
    steps_per_epoch,
    warn_of_constant_strength,
    warn_of_difference_at_start,
)

if TYPE_CHECKING:
    from hf_relearn.relearning.callback import RelearnCallback


class RelearnRun:
    """Hold one run of a `RelearnCallback`, from the start of training: schedule, encoders, diagnoser, files.

    Args:
        owner: says what is diagnosed, and receives each point.
        args: of the Trainer, with the folder of this run as output directory.
        state: of the Trainer, when training begins.
        model, train_dataloader, optimizer: of the Trainer.
        failed: the initial weights of an attempt that did not fit into memory.

    Raises:
        ValueError: as `RelearnCallback` says.
    """

    def __init__(
        self,
        owner: RelearnCallback,
        args: TrainingArguments,
        state: TrainerState,
        model: nn.Module,
        train_dataloader: Any,
        optimizer: Any,
        failed: InitialWeights | None,
    ):
        self.owner = owner
        self.settings = settings = owner.settings
        self.diagnoser: Diagnoser | None = None
        self.alphas: dict[str, float] | None = None
        self.clock, self.gradients = EpochClock(), GradientWatch(args.max_grad_norm or 0.0)
        self.schedule = RelearnSchedule(
            settings.relearn_strategy,
            settings.relearn_interval,
            settings.relearn_max_times,
            num_epochs=state.num_train_epochs,
            num_steps=state.max_steps,
            points=settings.relearn_points or DEFAULT_POINTS,
            steps_per_epoch=steps_per_epoch(train_dataloader, args),
        )
        self.files = RunBookkeeping(args, state, settings, owner.checkpoint_folder)
        if not settings.wants_diagnosis and not settings.relearn_final:
            return
        modules = owner.encoders(model) if callable(owner.encoders) else owner.encoders
        self.encoders = chosen_encoders(modules, settings.relearn_modalities)
        self.names = module_names(model, self.encoders)
        self.alphas = constant_alphas(settings.constant_strength, list(self.encoders))
        if self.schedule.planned():
            warn_of_frozen_encoders(self.encoders)
        if message := self.schedule.why_no_point():
            warnings.warn(message, stacklevel=3)
        if owner.asks_model:
            own: Any = model.config
            owner.num_classes = owner.num_classes or own.num_labels
            owner.targets = "numbers" if own.problem_type == REGRESSION else "classes"
        self.open_diagnoser(args, train_dataloader)
        if self.schedule.planned() or settings.relearn_final:
            reshard_(model)  # or refuse what could not be moved
            if settings.relearn_optimizer_state == "reset":
                check_optimizer_state(optimizer, self.encoders)
            self.files.open_initial_weights(model, self.names.values(), failed)

    def begin(self, state: TrainerState, model: nn.Module) -> None:
        """Open the record; diagnose a run that starts, and one that was killed before its last diagnosis."""
        self.files.open_records(state)
        if self.files.resumed_from is None:
            self.diagnose_only(state, model, "start")
        elif state.global_step >= state.max_steps and self.settings.diagnosis_interval and not self.files.has_end():
            self.diagnose_only(state, model, "end")  # the run was killed between its last step and this

    def is_due(self, count: int) -> bool:
        """Check whether a re-learning step comes after so many epochs or optimizer steps."""
        return self.schedule.is_due(count, self.files.points_taken)

    def move_back(self, model: nn.Module, alphas: Mapping[str, float], optimizer: Any = None) -> dict[str, float]:
        """Move encoders towards their initial weights: modality -> strength gives modality -> relative distance."""
        assert self.files.initial is not None
        moving = {name: alpha for name, alpha in alphas.items() if alpha > 0}
        if not moving:
            return {}
        reshard_(model)  # a diagnosis made forward passes without backward passes
        encoders = {name: self.encoders[name] for name in moving}
        interpolate = self.settings.relearn_buffers == "interpolate"
        distances = relearn_encoders(encoders, self.names, self.files.initial, moving, interpolate)
        renew_master_weights(optimizer)
        if self.settings.relearn_optimizer_state == "reset":
            reset_optimizer_state(optimizer, encoders.values())
        self.owner.evaluated = None
        return distances

    def take_point(self, state: TrainerState, model: nn.Module, optimizer: Any, lr_scheduler: Any) -> None:
        """Diagnose the encoders, move them, and record both."""
        point = self._diagnosed(state, model)
        if point is None and self.alphas is None:
            if self.owner.diagnosis_dataset is None and self.owner.asks_model:
                raise ValueError(
                    "a re-learning step is due, but the Trainer has not evaluated in this run: set "
                    "eval_on_start=True, or give RelearnCallback a diagnosis_dataset"
                )
            return
        point = point or Point(modalities=list(self.encoders))
        alphas = self.alphas if self.alphas is not None else dict(point.diagnosed_alphas)
        if self.alphas is not None:
            share = self.schedule.share(state.global_step)
            warn_of_constant_strength(point, self.alphas, share, decay_of(lr_scheduler))
        distances = self.move_back(model, alphas, optimizer)
        if distances:
            self.gradients.begin()
        self._keep(state, replace(point, kind="point", alphas=alphas, distances=distances))

    def diagnose_only(self, state: TrainerState, model: nn.Module, kind: str) -> None:
        """Diagnose the encoders, and record it as `kind`: `start`, `record` or `end`."""
        point = self._diagnosed(state, model)
        if point is not None:
            if kind == "start":
                warn_of_difference_at_start(point)
            self._keep(state, replace(point, kind=kind))

    def _diagnosed(self, state: TrainerState, model: nn.Module) -> Point | None:
        """Diagnose, or None without held-out samples."""
        if self.diagnoser is None:
            return None
        step, features = self.owner.evaluated or (None, None)
        try:
            point = self.diagnoser(model, features if step == state.global_step else None)
        except RuntimeError as error:
            if self.owner.attempt is not None and should_reduce_batch_size(error):
                raise RuntimeError(
                    "a diagnosis ran out of memory, which a smaller training batch would not mend "
                    "(auto_find_batch_size): lower --per_device_eval_batch_size"
                ) from error
            raise
        if self.schedule.planned():
            reshard_(model)  # forward passes without backward passes leave the root of FSDP2 whole
        diagnoses = {name: point.diagnoses[name] for name in self.encoders if name in point.diagnoses}
        rises = {name: rise for name, each in diagnoses.items() if (rise := self._rise(name, each)) is not None}
        alphas = {name: self._suggested(each, rises.get(name, 0.0)) for name, each in diagnoses.items()}
        return replace(
            point,
            modalities=list(self.encoders),
            rises=rises,
            still_learning={name for name in alphas if alphas[name] < self._suggested(diagnoses[name], 0.0)},
            diagnosed_alphas=alphas,
            share_of_epoch=self.clock.share(point.seconds),
        )

    def _rise(self, name: str, diagnosis: ModalityDiagnosis) -> float | None:
        """Return the rise of the held-out separability since the re-learning step before, or since the start."""
        for record in reversed(self.files.records):
            before = finite(modality_entry(record, name).get("val_separability"))
            if record["kind"] in ("start", "point") and before is not None and diagnosis.val_separability is not None:
                return diagnosis.val_separability - before
        return None

    def _suggested(self, diagnosis: ModalityDiagnosis, rise: float) -> float:
        settings = self.settings
        if settings.gated and diagnosis.memorised is not None and diagnosis.memorised_error is not None:
            return gate_alpha(
                diagnosis.memorised,
                diagnosis.memorised_error,
                rise,
                diagnosis.standard_error or 0.0,
                threshold=settings.relearn_gate_threshold,
                alpha=settings.relearn_gate_alpha,
                num_errors=settings.relearn_gate_errors,
                num_rise_errors=settings.relearn_gate_rise,
            )
        return diagnosis.alpha

    def _keep(self, state: TrainerState, point: Point) -> None:
        point = replace(point, step=state.global_step, epoch=state.epoch)
        record = point.record()
        self.files.add(record)
        values = log_values(record)
        if self.owner.log is not None:
            self.owner.log(values)
        else:
            state.log_history.append({**values, "epoch": state.epoch, "step": state.global_step})
        self.owner.on_point(point)

    def open_diagnoser(self, args: TrainingArguments, train_dataloader: Any) -> None:
        """Make what diagnoses the encoders, if the run is to be diagnosed and its samples are there."""
        with failing_together(args.world_size):
            self.diagnoser = self._make_diagnoser(args, train_dataloader)
        if self.diagnoser is not None:
            self.diagnoser.on_features = self.owner.on_features

    def _make_diagnoser(self, args: TrainingArguments, train_dataloader: Any) -> Diagnoser | None:
        if self.owner.diagnosis_dataset is None:
            if self.alphas is None and self.schedule.planned() and not self.owner.awaits_samples(args):
                raise ValueError(
                    "no held-out samples to diagnose on: give an evaluation set (--diagnosis_source eval) or a "
                    "diagnosis data set, hold a part out (--diagnosis_source holdout), or set a constant "
                    "--relearn_strength"
                )
            return None
        if not self.settings.wants_diagnosis:
            return None
        train_dataset = self.owner.train_dataset if self.owner.train_dataset is not None else train_dataloader.dataset
        return Diagnoser(
            self.owner.feature_function,
            train_dataset,
            self.owner.diagnosis_dataset,
            self.owner.collate_fn or train_dataloader.collate_fn,
            self.settings,
            args,
            num_classes=self.owner.num_classes,
            modalities=list(self.encoders),
            heads=self.owner.heads,
            numbers=self.owner.targets == "numbers",
        )
