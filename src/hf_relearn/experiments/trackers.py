"""Send the verdict and figures of a report to the trackers of `--report_to`, beside the numbers of the Trainer."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import MLflowCallback, TensorBoardCallback, TrackioCallback, WandbCallback

from hf_relearn.errors import one_line

logger = logging.getLogger(__name__)


class TrackedRun(TrainerCallback):
    """Let what comes after training (results on test, the report) reach the run that the trackers know.

    transformers ends the run of trackio and MLflow when training ends, and what is logged later begins another one.
    """

    def __init__(self) -> None:
        self._mlflow_run: str | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        if "trackio" in (args.report_to or []):
            import trackio

            run = trackio.context_vars.current_run.get()
            args.run_name = args.run_name or (run and run.name)  # it goes on under the same name
        if "mlflow" in (args.report_to or []):
            import mlflow

            run = mlflow.active_run()
            self._mlflow_run = run and run.info.run_id

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._mlflow_run is not None:
            import mlflow

            if mlflow.active_run() is None:
                mlflow.start_run(run_id=self._mlflow_run)


def send_report(trainer: Trainer, report: Path, verdict: str) -> None:
    """Send a report's verdict and figures to each tracker of the run that takes them, and end the run there.

    A tracker that fails is one warning.

    Args:
        trainer: with a `TrackedRun` among its callbacks since before it trained.
        report: `report.md`; its figures are beside it.
        verdict: Markdown.
    """
    text = report.read_text(encoding="utf-8")
    found = sorted((report.parent / "figures").glob("*.png"))
    figures = {f"report/{path.stem}": path for path in found if f"(figures/{path.name})" in text}
    for callback in trainer.callback_handler.callbacks:
        for kind, send in _SENDERS.items():
            if isinstance(callback, kind):
                try:
                    send(trainer, callback, figures, verdict)
                except Exception as error:  # of a service, when the model is trained already
                    name = kind.__name__.removesuffix("Callback").lower()
                    logger.warning("--report_to %s: it did not take the report: %s", name, one_line(error))


def _to_tensorboard(trainer: Trainer, callback: Any, figures: Mapping[str, Path], verdict: str) -> None:
    from torch.utils.tensorboard import SummaryWriter

    step = trainer.state.global_step
    with SummaryWriter(callback.logging_dir) as writer:
        writer.add_text("report/verdict", verdict, step)
        for name, path in figures.items():
            with Image.open(path) as picture:
                writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")


def _to_trackio(trainer: Trainer, callback: Any, figures: Mapping[str, Path], verdict: str) -> None:
    import trackio

    if trackio.context_vars.current_run.get() is None:
        callback.setup(trainer.args, trainer.state, trainer.model)
    trackio.log({"report/verdict": trackio.Markdown(verdict)})
    trackio.log({name: trackio.Image(path) for name, path in figures.items()})
    callback.on_train_end(trainer.args, trainer.state, trainer.control, model=trainer.model)


def _to_wandb(trainer: Trainer, callback: Any, figures: Mapping[str, Path], verdict: str) -> None:
    import wandb

    if wandb.run is None:
        raise RuntimeError("its run has ended")
    wandb.run.summary["report/verdict"] = verdict
    wandb.log({name: wandb.Image(str(path)) for name, path in figures.items()})


def _to_mlflow(trainer: Trainer, callback: Any, figures: Mapping[str, Path], verdict: str) -> None:
    import mlflow

    mlflow.log_text(verdict, "report/verdict.md")
    for path in figures.values():
        mlflow.log_artifact(str(path), "report")
    mlflow.end_run()


_SENDERS: dict[type, Callable[[Trainer, Any, Mapping[str, Path], str], None]] = {
    TensorBoardCallback: _to_tensorboard,
    TrackioCallback: _to_trackio,
    WandbCallback: _to_wandb,
    MLflowCallback: _to_mlflow,
}
