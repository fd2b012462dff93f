"""Write and read a comparison's runs: results and predictions of the last epoch, and of the best on validation."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hf_relearn.experiments.predictions import Predictions, predict, save_predictions
from hf_relearn.files import whole_file
from hf_relearn.quality import quality_metrics
from hf_relearn.report.comparison import RESULT_FILE
from hf_relearn.training import MultimodalRelearnTrainer
from hf_relearn.training.checkpoints import can_reload, reload_weights


def save_result(
    trainer: MultimodalRelearnTrainer,
    splits: Mapping[str, Any],
    predictions: Mapping[str, Predictions],
    facts: Mapping[str, Any],
    results: Mapping[str, Mapping[str, float]],
    resumed_step: int,
) -> None:
    """Write `predictions.npz` and then `result.json`, whose presence says that a run is finished.

    Args:
        trainer: after training, with the last weights, which are saved in its output directory.
        splits: split -> data set.
        predictions, results: by split, with the last weights.
        facts: further entries of `result.json`.
        resumed_step: of the checkpoint that the run went on from, 0 for none.
    """
    folder, state = Path(str(trainer.args.output_dir)), trainer.state
    by_epoch, found = {"last": dict(results)}, {"last": dict(predictions)}
    best = state.best_model_checkpoint
    if best is not None and state.best_global_step == state.global_step:
        by_epoch["best"], found["best"] = by_epoch["last"], found["last"]
    elif best is not None and can_reload(trainer.model):
        reload_weights(trainer.model, best)
        by_epoch["best"], found["best"] = {}, {}
        for name, split in splits.items():
            metrics, found["best"][name] = predict(trainer, split, name)
            # A probe belongs to the last weights, whose training features it was fitted on.
            probed = () if found["best"][name].heads else ("unimodal_",)
            by_epoch["best"][name] = {
                key: value for key, value in quality_metrics(metrics, name).items() if not key.startswith(probed)
            }
        reload_weights(trainer.model, folder)
    if not trainer.args.should_save:
        return
    save_predictions(folder, found)
    evaluated = [entry for entry in state.log_history if entry["step"] == state.best_global_step]
    write_result(
        folder,
        {
            **facts,
            "results": by_epoch,
            "epochs": {"last": state.epoch, "best": evaluated[0]["epoch"] if "best" in by_epoch else None},
            "seconds": _training_seconds(trainer, resumed_step),
            "peak_memory": peak_memory(),
        },
    )


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write `result.json`."""
    with whole_file(folder / RESULT_FILE) as file:
        file.write((json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode())


def read_result(folder: Path) -> dict[str, Any] | None:
    """Read `result.json`; None if the run is not finished.

    Raises:
        ValueError: if the file is broken.
    """
    path = folder / RESULT_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is no result of a run ({error}): delete {folder} and run again") from error


def peak_memory() -> int | None:
    """Return the most bytes that this process has held: on its accelerator, or of main memory if it has none."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _training_seconds(trainer: MultimodalRelearnTrainer, resumed_step: int) -> float | None:
    """Time of training; of a resumed run, what all steps would have taken at the pace of those since."""
    log, steps = trainer.state.log_history, trainer.state.global_step
    runtime = next((entry["train_runtime"] for entry in reversed(log) if "train_runtime" in entry), None)
    return runtime * steps / (steps - resumed_step) if runtime is not None and steps > resumed_step else None
