"""Train with diagnosis and re-learning: hold out samples, add the callback, measure each modality by itself."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PrinterCallback, ProgressCallback

from hf_relearn.cards.trainer_card import ModelCardCallback, write_model_card
from hf_relearn.models import MultimodalProcessor
from hf_relearn.relearning.callback import RelearnCallback
from hf_relearn.relearning.diagnoser import Diagnoser, PartFeatures
from hf_relearn.relearning.features import (
    EvaluatedFeatures,
    multimodal_features,
    preserved_random_state,
    shows_held_out_samples,
)
from hf_relearn.relearning.labels import label_names
from hf_relearn.relearning.processes import failing_together
from hf_relearn.relearning.run_state import lock_run
from hf_relearn.relearning.settings import RelearnSettings
from hf_relearn.relearning.terminal import TerminalCallback
from hf_relearn.training.arguments import RelearnTrainingArguments
from hf_relearn.training.batches import MultimodalCollator
from hf_relearn.training.checkpoints import (
    CheckpointTrainer,
    MissedEvaluationCallback,
    check_whole,
    last_checkpoint,
)
from hf_relearn.training.data_loaders import DataLoadingTrainer, EpochCallback
from hf_relearn.training.data_parts import (
    check_number_of_classes,
    count_samples,
    divide,
    label_column_of,
    splits_of_run,
    tell_samples,
)
from hf_relearn.training.final import choose_final_strength
from hf_relearn.training.metrics import classification_metrics, regression_metrics, search_objective
from hf_relearn.training.modality_accuracy import ModalityEvaluation, makes_ablations
from hf_relearn.training.parameter_groups import divide_parameter_groups, freeze_parameters, trained_learning_rates
from hf_relearn.training.pushing import PushingTrainer
from hf_relearn.training.targets import (
    MULTI_LABEL,
    collator_for,
    is_fusion_model,
    is_regression,
    refuse_multi_label_diagnosis,
    set_loss,
)

if TYPE_CHECKING:  # its import brings matplotlib
    from hf_relearn.cards import CardInfo


class MultimodalRelearnTrainer(CheckpointTrainer, DataLoadingTrainer, PushingTrainer):
    """Train a `MultimodalForClassification`, diagnosed and re-learnt on the way.

    Beyond `Trainer`'s own arguments:

    Args:
        args: `RelearnTrainingArguments`; it says when and how.
        data_collator: None makes a `MultimodalCollator` of the processor, for the labels in `label`, or else in the
            only column of classes. A collator with `without_augmentation()`
            augments training batches only.
        diagnosis_dataset: the held-out samples of a diagnosis. None takes them from where `args.diagnosis_source`
            says.
        compute_metrics: unset, accuracy, macro and weighted F1; of a regression MAE, R², Pearson's correlation and,
            for targets of both signs, the accuracy of the sign.

    Evaluation also reports `unimodal_<modality>_accuracy`: that of the uni-modal head. Of a model without heads it is
    that of a linear probe on the features of a diagnosis, if one was made of the very same weights (as at the end of
    a run with `diagnosis_interval`). Of a fusion of several modalities it reports
    `only_<modality>_accuracy` and `without_<modality>_accuracy`: that of the fused prediction with one modality alone
    and with one left out. No encoder runs again for any of them, and samples that lack a modality do not count for it.
    `ImbalanceMeasures` says what it measures besides: each modality's Shapley value, calibration, and more.

    `hyperparameter_search` works with a `model_init`: each trial has its own initial weights, record and checkpoints
    in its own folder, and the fields of `RelearnSettings` can be searched over, but for those that divide the data.

    Attributes:
        card_info: a `CardInfo` of what the model card has to be told (licence, language, notes); None for nothing.
        samples: split -> `samples`, their number, and under `missing` modality -> how many of them lack it. It is
            printed when training starts, and left in the output directory for the report.

    Raises:
        ValueError: if held-out samples are needed but missing, or are asked for from a stream; for settings
            of parameters or classes that do not fit the model.
    """

    args: RelearnTrainingArguments

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None = None,
        args: RelearnTrainingArguments | None = None,
        data_collator: Callable[[list], Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: MultimodalProcessor | None = None,
        *,
        diagnosis_dataset: Any = None,
        compute_metrics: Callable | None = classification_metrics,
        **kwargs: Any,
    ):
        if args is None:
            args = RelearnTrainingArguments()
        if data_collator is None and processing_class is not None:
            data_collator = MultimodalCollator(processing_class, label_column=label_column_of(train_dataset))
        data_collator = collator_for(model, data_collator)
        several_classes = getattr(getattr(model, "config", None), "problem_type", None) == MULTI_LABEL
        if several_classes and args.diagnosis_source == "auto" and not args.needs_diagnosis:
            pass  # samples with several classes cannot be diagnosed
        elif diagnosis_dataset is None and train_dataset is not None:
            columns = label_names(data_collator)
            numbers = is_regression(model)
            train_dataset, diagnosis_dataset = divide(args, train_dataset, eval_dataset, columns, numbers=numbers)
        self.diagnosis_dataset = diagnosis_dataset
        self.card_info: CardInfo | None = None
        self.samples = count_samples(
            splits_of_run(train_dataset, diagnosis_dataset, eval_dataset),
            data_collator.columns_of_modalities if isinstance(data_collator, MultimodalCollator) else {},
        )
        self._training_part = train_dataset
        if args.relearn_final and eval_dataset is None:
            raise ValueError("--relearn_final chooses a strength on the evaluation set, and there is none: give one")
        if args.learning_rates and any(kwargs.get("optimizers", ())):
            raise ValueError(
                "--learning_rates sets up the Trainer's optimizer: give rates in the optimizer of your own"
            )
        self._label_columns = label_names(data_collator)
        check_number_of_classes(model, train_dataset, self._label_columns)
        if model is not None:
            self._prepare_model(model, args)
        super().__init__(
            model,
            args,
            data_collator,
            train_dataset,
            eval_dataset,
            processing_class,
            compute_metrics=compute_metrics,
            **kwargs,
        )
        if is_regression(self.model) and compute_metrics is classification_metrics:
            config: Any = getattr(self.model, "config", None)
            self.compute_metrics = partial(regression_metrics, signed=config.signed_targets)
        replaced = PrinterCallback if args.disable_tqdm else ProgressCallback
        printer = next((each for each in reversed(self.callback_handler.callbacks) if type(each) is replaced), None)
        if printer is not None:  # a notebook has a table of its own
            self.remove_callback(printer)
            self.add_callback(TerminalCallback())
        if isinstance(data_collator, MultimodalCollator):
            data_collator.tell_processor()
        if is_fusion_model(self.model):
            self.label_smoother = None  # the model smoothes by itself
        self.unimodal = ModalityEvaluation(self.args)
        self.relearn_callback = RelearnCallback(
            encoders=lambda model: self.accelerator.unwrap_model(model).encoders,
            feature_function=multimodal_features,
            diagnosis_dataset=diagnosis_dataset,
            num_classes=getattr(getattr(self.model, "config", None), "num_labels", None),
            targets="numbers" if is_regression(self.model) else "classes",
            settings=args.relearn_settings(),
            train_dataset=self._training_part,
            collate_fn=self.data_collator,
            heads=lambda model: getattr(self.accelerator.unwrap_model(model), "unimodal_heads", {}),
            log=self._log_diagnosis,
        )
        self._evaluated: EvaluatedFeatures | None = None
        self._attempts = 0  # of auto_find_batch_size
        self._samples_told = False
        self.relearn_callback.on_features = self.unimodal.use_training_features
        self.add_callback(self.relearn_callback)
        if (balancing := args.build_balancing()) is not None:
            self.add_callback(balancing)
        self.add_callback(EpochCallback())
        self.add_callback(MissedEvaluationCallback(self._evaluate_again))
        self.add_callback(ModelCardCallback(self.create_model_card))

    def _log_diagnosis(self, values: dict[str, float]) -> None:
        # `log` takes back the request for the loss of the epoch that has just ended.
        should_log = self.control.should_log
        self.log(values)
        self.control.should_log = should_log

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the model card; `write_model_card` says what it takes."""
        write_model_card(self, *args, **kwargs)

    def part_features(self) -> dict[str, PartFeatures]:
        """Return uni-modal features of both parts with the present weights, keyed `"training"` and `"diagnosing"`.

        Raises:
            ValueError: if the trainer does not have held-out samples.
        """
        if self.diagnosis_dataset is None:
            raise ValueError("the trainer has no diagnosing part whose features could be shown")
        diagnoser = Diagnoser(
            multimodal_features,
            self._training_part,
            self.diagnosis_dataset,
            self.data_collator,
            self.args.relearn_settings(),
            self.args,
            numbers=is_regression(self.model),
        )
        assert self.model is not None
        return diagnoser.features(self.model)

    def hyperparameter_search(
        self, hp_space: Any = None, compute_objective: Any = None, *args: Any, direction: Any = None, **kwargs: Any
    ) -> Any:
        """Search as `Trainer.hyperparameter_search` does, for the best `metric_for_best_model`, or else accuracy.

        Args:
            hp_space, compute_objective, *args, **kwargs: of `Trainer.hyperparameter_search`.
            direction: None is what the metric asks for, or `"minimize"` with a `compute_objective`.
        """
        if compute_objective is None:
            measured, numbers = self.compute_metrics is not None, is_regression(self.model)
            compute_objective, towards = search_objective(self.args, measured=measured, numbers=numbers)
            direction = direction or towards
        return super().hyperparameter_search(
            hp_space, compute_objective, *args, direction=direction or "minimize", **kwargs
        )

    def call_model_init(self, trial: Any = None) -> nn.Module:
        model = super().call_model_init(trial)
        self._prepare_model(model, self.args)
        return model

    def _prepare_model(self, model: nn.Module, args: RelearnTrainingArguments) -> None:
        """Freeze what is to be frozen, give the loss its settings, and refuse what cannot be trained so."""
        freeze_parameters(model, args.freeze)
        trained_learning_rates(model, args.learning_rates)
        set_loss(model, args.class_weights, args, self._training_part, self._label_columns)
        refuse_multi_label_diagnosis(model, args.needs_diagnosis)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the Trainer's optimizer, with the learning rates of `args.learning_rates`."""
        new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if new and self.args.learning_rates:
            target: Any = self.model if model is None else model
            divide_parameter_groups(optimizer, target, self.args.learning_rates)
        return optimizer

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        labels = inputs.get("labels")
        if self.unimodal.evaluating and not model.training and makes_ablations(self.model):
            inputs = {**inputs, "output_ablations": True}
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        self.unimodal.observe(outputs, labels, training=model.training, accelerator=self.accelerator)
        if self._evaluated is not None and not model.training:
            self._evaluated.observe(outputs, self.accelerator)
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> Any:
        prefix = kwargs.get("metric_key_prefix", "eval")
        self.unimodal.begin()
        if self.is_in_train and shows_held_out_samples(dataloader, self.diagnosis_dataset, self.args):
            self._evaluated = EvaluatedFeatures()
        # Seeded as a diagnosis is, and without a trace in the random generators of training.
        with preserved_random_state(self.args.seed):
            output = super().evaluation_loop(dataloader, *args, **kwargs)
        if self._evaluated is not None:
            self.relearn_callback.evaluated = (self.state.global_step, self._evaluated.finish())
            self._evaluated = None
        found = {f"{prefix}_{name}": value for name, value in self.unimodal.finish().items()}
        return output._replace(metrics={**(output.metrics or {}), **found})

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)
        self.relearn_callback.observe_gradient_norm(norm)
        return norm

    def _evaluate_again(self) -> None:
        """Evaluate as at the end of an epoch, with all that the Trainer does with the metrics."""
        self._determine_best_metric(metrics=self._evaluate(None, None), trial=None)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as `Trainer.train` does.

        Args:
            resume_from_checkpoint: a checkpoint's folder, or True for the last one in the output directory that was
                written to its end.
            *args, **kwargs: of `Trainer.train`.

        Raises:
            ValueError: if there is no whole checkpoint to resume from, or the run's initial weights are not there.
            RuntimeError: if another run is training in the output directory.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(str(self.args.output_dir))
        if resume_from_checkpoint:
            check_whole(resume_from_checkpoint)
        self._attempts = 0
        lock = lock_run(self.args, alone=True)
        try:
            with failing_together(self.args.world_size):
                if self.is_world_process_zero() and not self._samples_told:
                    self._samples_told = True
                    tell_samples(self.samples, Path(str(self.args.output_dir)), numbers=is_regression(self.model))
            output = super().train(resume_from_checkpoint, *args, **kwargs)
            if self.args.relearn_final:
                choose_final_strength(self)
            return output
        finally:
            if lock is not None:
                lock.release()

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        # Once for each `train()`, trial of a hyper-parameter search, and attempt of `auto_find_batch_size`.
        trial = kwargs.get("trial")
        self.relearn_callback.output_dir = self._get_output_dir(trial)
        if trial is not None:
            self.relearn_callback.settings = self._settings_of_trial()
        resumed = kwargs.get("resume_from_checkpoint")
        if self._attempts and resumed is not None:
            self._load_from_checkpoint(resumed)  # the Trainer does so before the first attempt only
        self._attempts += 1
        return super()._inner_training_loop(*args, **kwargs)

    def _settings_of_trial(self) -> RelearnSettings:
        settings, divided_by = self.args.relearn_settings(), self.relearn_callback.settings
        settings.check()
        for name in ("diagnosis_source", "diagnosis_fraction"):
            if getattr(settings, name) != getattr(divided_by, name):
                raise ValueError(
                    f"{name} cannot be searched over: the trainer divided the data by {getattr(divided_by, name)!r} "
                    "before the first trial, and all trials share this division"
                )
        return settings

    def _load_best_model(self) -> None:
        self.unimodal.use_training_features(None)
        super()._load_best_model()
