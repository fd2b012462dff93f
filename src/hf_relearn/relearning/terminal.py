"""Print one line per epoch, beside progress bars that stay whole."""

import logging
import re
import sys
import textwrap
import time
from collections.abc import Mapping
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import has_length

from hf_relearn.quality import quality_metrics
from hf_relearn.records import finite

WIDTH = 100  # columns of a line at most
_QUIET_SECONDS = 60  # without a bar, a training loss is printed after so long a silence
_COMMANDS = ("hf ", "hf-relearn ", "python ", "accelerate ", "next ")
_UNIMODAL = re.compile(r"unimodal_(.+)_(?:accuracy|r2)")


def say(text: str, *, error: bool = False) -> None:
    """Print text in lines of at most `WIDTH` columns, without breaking progress bars.

    Args:
        text: lines longer than this are wrapped.
        error: to standard error instead of standard output.
    """
    for line in text.splitlines() or [""]:
        wrapped = textwrap.wrap(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False) or [""]
        # A line that fits stays as it is: `wrap` would squeeze the blanks of a table. So does a command to copy.
        whole = len(line) <= WIDTH or line.lstrip().startswith(_COMMANDS)
        tqdm.write(line if whole else "\n".join(wrapped), file=sys.stderr if error else sys.stdout)


class LineHandler(logging.Handler):
    """Log handler whose lines break no progress bar; a Python warning becomes one line."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
            if record.name == "py.warnings" and (found := _WARNING.match(message)):
                message = f"warning: {found[1]}"
            say(message, error=True)
        except Exception:
            self.handleError(record)


_WARNING = re.compile(r"(?s).*?:\d+: \w+: (.*?)(\n  .*)?\n?$")


class TerminalCallback(ProgressCallback):
    """Print one line per epoch: training loss, fused accuracy, and the accuracy of each modality by itself.

    It takes the place of `ProgressCallback` and `PrinterCallback`, which print each log as a dictionary:
    `MultimodalRelearnTrainer` has it by itself, in a stock Trainer say `trainer.remove_callback(ProgressCallback)` and
    `trainer.add_callback(TerminalCallback())`. All values are in `log_history` and go to trackers as before. Progress
    bars are shown on a terminal only, and not with `disable_tqdm`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.training_bar: Any = None
        self.prediction_bar: Any = None
        self._training = False
        self._loss: float | None = None
        self._untold = False
        self._seconds: float | None = None
        self._spoke = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._training, self._untold, self._loss, self._seconds = True, False, None, None
        self._spoke = time.monotonic()
        self.current_step = state.global_step
        if state.is_world_process_zero and not args.disable_tqdm:
            self.training_bar = tqdm(
                total=state.max_steps, initial=state.global_step, dynamic_ncols=True, disable=None, leave=False
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.training_bar is not None:
            super().on_step_end(args, state, control, **kwargs)

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or args.disable_tqdm or not has_length(eval_dataloader):
            return
        if self.prediction_bar is None:
            self.prediction_bar = tqdm(total=len(eval_dataloader), dynamic_ncols=True, disable=None, leave=False)
        self.prediction_bar.update(1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        self._seconds = finite(logs.get("train_runtime")) or self._seconds
        loss = finite(logs.get("loss"))
        if loss is None:
            return
        self._loss, self._untold = loss, True
        if self.training_bar is not None:
            self.training_bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
        seen = self.training_bar is not None and not self.training_bar.disable
        if not seen and time.monotonic() - self._spoke > _QUIET_SECONDS:
            self._tell_loss(args, state)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().on_evaluate(args, state, control, **kwargs)
        if not state.is_world_process_zero or not metrics:
            return
        name, values = _named(metrics)
        if self._training:
            where = _when(args, state) + ("" if name == "eval" else f"  {name.removeprefix('eval_')}")
            loss = "" if self._loss is None else f"  loss {self._loss:.4g}"
        else:
            where, loss = name, f"  loss {values['loss']:.4g}" if "loss" in values else ""
        self._tell(f"{where}{loss}{_quality(values, args.metric_for_best_model)}")

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._untold and state.is_world_process_zero:  # an epoch without evaluation
            self._tell_loss(args, state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._untold and state.is_world_process_zero:
            self._tell_loss(args, state)
        self._training = False
        if self.training_bar is not None:
            super().on_train_end(args, state, control, **kwargs)
        if state.is_world_process_zero:
            took = "" if self._seconds is None else f" in {_duration(self._seconds)}"
            say(f"trained {state.epoch or 0:.4g} epochs, {state.global_step:,} steps{took}")

    def _tell_loss(self, args: TrainingArguments, state: TrainerState) -> None:
        self._tell(f"{_when(args, state)}  loss {self._loss:.4g}")

    def _tell(self, line: str) -> None:
        say(line)
        self._untold, self._spoke = False, time.monotonic()


def _named(metrics: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """Return the prefix of an evaluation's metrics, and its numbers without it and without those of speed."""
    prefix = next((key.removesuffix("_runtime") for key in metrics if key.endswith("_runtime")), "eval")
    return prefix, quality_metrics(metrics, prefix)


def _quality(values: Mapping[str, float], best: str | None) -> str:
    """Return the fused model's main metric, and each modality by itself."""
    alone = {match[1]: value for key, value in values.items() if (match := _UNIMODAL.fullmatch(key))}
    rest = [key for key in values if key != "loss" and not key.startswith(("unimodal_", "only_", "without_"))]
    wanted = [(best or "").removeprefix("eval_"), "accuracy", "r2", *rest, "loss"]
    main = next((key for key in wanted if key in rest or (key == "loss" and key in values)), None)
    said = {"loss": "validation loss", "r2": "R²"}.get(main or "", main)
    text = "" if main is None else f"  {said} {values[main]:.3f}"
    if alone:
        text += "  alone: " + ", ".join(f"{name} {value:.3f}" for name, value in alone.items())
    return text


def _when(args: TrainingArguments, state: TrainerState) -> str:
    total = f"{state.num_train_epochs:g}" if args.max_steps <= 0 else f"{state.max_steps}"
    if args.max_steps > 0:
        return f"step {state.global_step:>{len(total)}}/{total}"
    return f"epoch {round(state.epoch or 0.0, 2):>{len(total)}g}/{total}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
