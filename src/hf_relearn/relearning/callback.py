"""Diagnose and re-learn while a Trainer trains."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_relearn.records import Point
from hf_relearn.relearning.diagnoser import Diagnoser, PartFeatures
from hf_relearn.relearning.encoders import own_encoders, own_heads
from hf_relearn.relearning.features import FeatureFunction, multimodal_features
from hf_relearn.relearning.run import RelearnRun
from hf_relearn.relearning.run_notes import arguments_of_run, checkpoint_folder
from hf_relearn.relearning.schedule import whole_epoch
from hf_relearn.relearning.settings import RelearnSettings

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
        targets: `"classes"`, or `"numbers"` if the labels are numbers to predict; a model of ours tells by itself.
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

    _run: RelearnRun

    def __init__(
        self,
        encoders: Encoders | None = None,
        feature_function: FeatureFunction | None = None,
        diagnosis_dataset: Any = None,
        *,
        num_classes: int | None = None,
        targets: Literal["classes", "numbers"] = "classes",
        settings: RelearnSettings | None = None,
        train_dataset: Any = None,
        collate_fn: Callable[[list], Any] | None = None,
        heads: Callable[[nn.Module], Mapping[str, nn.Module]] | None = None,
        log: Callable[[dict[str, float]], None] | None = None,
        **fields: Any,
    ):
        if (encoders is None) != (feature_function is None):
            raise TypeError("give both encoders and feature_function, or neither for a MultimodalForClassification")
        self.asks_model = encoders is None  # and the Trainer
        self.encoders = own_encoders if encoders is None else encoders
        self.feature_function = feature_function or multimodal_features
        self.diagnosis_dataset = diagnosis_dataset
        self.num_classes = num_classes
        self.targets = targets
        if settings is not None and fields:
            raise TypeError(f"give settings or {', '.join(fields)}, not both")
        self.settings = settings or RelearnSettings(**fields)
        self.settings.check()
        self.train_dataset = train_dataset
        self.collate_fn = collate_fn
        self.heads = heads or (own_heads if self.asks_model else None)
        self.log = log
        self.checkpoint_folder: str | None = None
        self.output_dir: str | None = None
        self.evaluated: tuple[int, PartFeatures] | None = None
        self.on_features: Callable[[PartFeatures], None] | None = None
        self._training = False
        self.attempt: int | None = None  # batch size of an attempt of auto_find_batch_size that has not ended

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
        failed = self._run.files.initial if self._begins_again(args, state) else None
        self.evaluated = None
        self._run = RelearnRun(self, args, state, model, train_dataloader, kwargs.get("optimizer"), failed)
        self._training = True
        self._run.begin(state, model)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: Any
    ) -> None:
        # A run resumed in the middle of an epoch begins that epoch again, at a broken number.
        completed = whole_epoch(state.epoch)
        if completed:
            by_epoch = self._run.schedule.by_epoch
            due = self._run.is_due(completed if by_epoch else state.global_step)
            if due and by_epoch:
                self._run.take_point(state, model, kwargs.get("optimizer"), kwargs.get("lr_scheduler"))
            elif not due and self.settings.diagnosis_interval and completed % self.settings.diagnosis_interval == 0:
                self._run.diagnose_only(state, model, "record")
        self._run.clock.begin_epoch(whole=completed is not None)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: Any
    ) -> None:
        if not self._run.schedule.by_epoch and self._run.is_due(state.global_step):
            self._run.take_point(state, model, kwargs.get("optimizer"), kwargs.get("lr_scheduler"))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: Any
    ) -> None:
        self._run.clock.end_epoch()
        over = state.global_step >= state.max_steps or control.should_training_stop
        if over and self.settings.diagnosis_interval:
            self._run.diagnose_only(state, model, "end")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "grad_norm" in logs and self._training:
            self._run.gradients.observe(logs["grad_norm"])
        # An evaluation that stops a run early comes after `on_epoch_end`. The run's summary is logged next, while the
        # model is still as trained; at `on_train_end` the best one may have been loaded.
        summary = "train_runtime" in (logs or {})
        if self.settings.diagnosis_interval and summary and not self._run.files.has_end(state.global_step):
            self._run.diagnose_only(state, model, "end")

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
        if not self.awaits_samples(args) or not self._training or eval_dataloader is None:
            return
        self.diagnosis_dataset = eval_dataloader.dataset
        self._run.open_diagnoser(arguments_of_run(args, self.output_dir), train_dataloader)
        if state.global_step == 0:
            self._run.diagnose_only(state, model, "start")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.attempt, self._training = None, False
        self._run.files.close(state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        args = arguments_of_run(args, self.output_dir)
        folder = checkpoint_folder(args, state)
        if args.should_save and folder.is_dir():
            self.write_run_files(folder)

    @property
    def diagnoser(self) -> Diagnoser | None:
        """The run's diagnoser, once training has begun; None without held-out samples."""
        return self._run.diagnoser

    @property
    def records(self) -> list[dict[str, Any]]:
        """The run's records so far, oldest first, as `read_history` describes them."""
        return self._run.files.records

    def on_point(self, point: Point) -> None:
        """Receive each diagnosis of the run, after encoders were moved; for subclasses to override."""

    def write_run_files(self, checkpoint: Path) -> None:
        """Write into a checkpoint what a resumed run reads: how many records, the settings, which initial weights.

        A stock Trainer gives the occasion only after it has written the rest; `MultimodalRelearnTrainer` calls this
        before, so that no checkpoint that looks whole lacks these files.
        """
        self._run.files.write_into(checkpoint)

    def _begins_again(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Check whether an attempt of this run with a larger batch has failed; notes the batch size of this one."""
        failed, self.attempt = self.attempt, state.train_batch_size if args.auto_find_batch_size else None
        return failed is not None and self.attempt is not None and self.attempt < failed and not state.global_step

    def observe_gradient_norm(self, norm: Any) -> None:
        """Look at the norm of the gradients of an optimizer step before it is clipped."""
        if self._training:
            self._run.gradients.observe(norm)

    def move_back(self, model: nn.Module, alphas: Mapping[str, float], optimizer: Any = None) -> dict[str, float]:
        """Move encoders towards their initial weights: modality -> strength gives modality -> relative distance."""
        return self._run.move_back(model, alphas, optimizer)

    def awaits_samples(self, args: TrainingArguments) -> bool:
        """Tell whether the held-out samples are those of an evaluation that is still to come."""
        evaluates = args.eval_strategy != "no" or args.eval_on_start
        return self.asks_model and self.diagnosis_dataset is None and evaluates
