"""The checkpoints of a run: written whole, found again, their weights read under the names of the model in memory."""

import json
import logging
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from hf_relearn.files import give_default_mode
from hf_relearn.records import read_history
from hf_relearn.relearning.callback import RelearnCallback
from hf_relearn.relearning.run_notes import noted_end, noted_run
from hf_relearn.relearning.schedule import whole_epoch

logger = logging.getLogger(__name__)

# The Trainer writes it after everything else, so a checkpoint with a readable one is whole, whoever wrote it.
LAST_FILE = "trainer_state.json"
_ADAPTER_FILE = "adapter_model.safetensors"
_NAME = re.compile(r"checkpoint-(\d+)$")


def is_whole(checkpoint: str | os.PathLike) -> bool:
    """Check whether a checkpoint was written to its end, and not cut off by a kill."""
    try:
        state = json.loads((Path(checkpoint) / LAST_FILE).read_bytes())
    except (FileNotFoundError, ValueError):  # cut off in the middle, it is no JSON
        return False
    return isinstance(state, dict) and isinstance(state.get("global_step"), int)


def damaged_file(checkpoint: str | os.PathLike) -> str | None:
    """Find a file of a checkpoint that cannot be read, and say what is wrong with it.

    Weights are opened, which compares their header with the size of the file, and not read.
    """
    folder = Path(checkpoint)
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            return f"{path} cannot be opened ({error})"
    for path in sorted([*folder.glob("*.pt"), *folder.glob("*.pth")]):
        if not zipfile.is_zipfile(path):  # as torch.save writes; the directory at its end is cut off first
            return f"{path} is cut off, or no file of torch.save"
    try:
        noted_run(folder)
        read_history(folder)
    except ValueError as error:
        return str(error)
    return None


def step_of(checkpoint: str | os.PathLike) -> int:
    """Return the optimizer step of a whole checkpoint."""
    return json.loads((Path(checkpoint) / LAST_FILE).read_text(encoding="utf-8"))["global_step"]


def begin_checkpoint(checkpoint: str | os.PathLike) -> None:
    """Make a checkpoint's folder; one of an earlier life of the run does not count as whole while it is replaced."""
    Path(checkpoint).mkdir(parents=True, exist_ok=True)
    (Path(checkpoint) / LAST_FILE).unlink(missing_ok=True)


def last_checkpoint(output_dir: str | os.PathLike) -> str:
    """Find the last checkpoint in a folder from which its run can go on.

    Half-written checkpoints, and those of an earlier run in the same folder, are passed over with a warning.

    Args:
        output_dir: of a run, with `checkpoint-<step>` folders, which may come from any Trainer.

    Returns:
        The checkpoint's folder.

    Raises:
        ValueError: if there is none, or none is whole.
    """
    folder = Path(output_dir)
    folders = [path for path in folder.glob("checkpoint-*") if path.is_dir()]
    found = {int(match[1]): path for path in folders if (match := _NAME.match(path.name))}
    run, problems = noted_run(folder), []
    for _, path in sorted(found.items(), reverse=True):
        if not is_whole(path):
            problem = f"it was not written to its end (no readable {LAST_FILE})"
        elif (damage := damaged_file(path)) is not None:
            problem = damage
        elif run is not None and noted_run(path) != run:
            problem = "it belongs to an earlier run in this folder"
        else:
            if (step := noted_end(folder)) is not None:
                logger.warning(
                    "the run in %s came to its end at step %d; resuming goes on from %s", folder, step, path
                )
            return str(path)
        problems.append(f"{path.name}: {problem}")
        logger.warning("%s is passed over: %s", path, problem)
    raise ValueError(
        f"there is no checkpoint in {output_dir} to resume from"
        + (f" ({len(problems)} passed over, the last one {problems[0]})" if problems else "")
        + "; start afresh, or name the folder of the checkpoint that is meant"
    )


def check_whole(checkpoint: str | os.PathLike) -> None:
    """Refuse a checkpoint that is not whole, and warn of one from which a run does not resume exactly.

    Raises:
        ValueError: it was not written to its end, or a file of it is damaged; names the file.
    """
    if not is_whole(checkpoint):
        raise ValueError(
            f"cannot resume from {checkpoint}: it is no checkpoint that was written to its end (the Trainer's last "
            f"file, {LAST_FILE}, is missing or cut off); resume from the one before"
        )
    if (damage := damaged_file(checkpoint)) is not None:
        raise ValueError(
            f"cannot resume from {checkpoint}: {damage}; restore the file from a copy, or take another checkpoint"
        )
    files = {
        "optimizer state": ("optimizer*", "global_step*", "pytorch_model_fsdp*"),  # also as DeepSpeed and FSDP save it
        "random state": ("rng_state*",),
    }
    for what, patterns in files.items():
        if not any(any(Path(checkpoint).glob(pattern)) for pattern in patterns):
            logger.warning(
                "%s holds no %s: the resumed run will not equal the uninterrupted one exactly", checkpoint, what
            )


class MissedEvaluationCallback(TrainerCallback):
    """Evaluate at the start of a resumed run, if its checkpoint was saved before the evaluation of the same step.

    The Trainer saves at a step, and evaluates at the end of the epoch that the step completes; a resumed run begins
    with the next epoch.

    Args:
        evaluate: evaluates, and logs what it finds.
    """

    def __init__(self, evaluate: Callable[[], None]):
        self.evaluate = evaluate

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        completed = whole_epoch(state.epoch)
        if args.eval_strategy != "epoch" or not completed or completed < (args.eval_delay or 0):
            return
        logged = {key for entry in state.log_history if entry["step"] == state.global_step for key in entry}
        if not any(key.startswith("eval_") and key.endswith("runtime") for key in logged):
            self.evaluate()


def can_reload(model: object) -> TypeGuard[PreTrainedModel]:
    """Check whether `reload_weights` can read this model's checkpoints; a `PeftModel` is left to the Trainer."""
    return isinstance(model, PreTrainedModel)


def reload_weights(model: PreTrainedModel, folder: str | os.PathLike) -> None:
    """Copy the weights of a saved model into this one.

    `save_pretrained` writes the Hub's key names, which differ from those in memory for some backbones (ViT, AST);
    loading the raw file, as the Trainer does, then silently leaves most tensors as they are (transformers issue
    43701). `from_pretrained` knows both. Of a model with
    adapters (`model.add_adapter`) a checkpoint holds the adapter alone.

    Raises:
        RuntimeError: if the folder's model has other tensors.
    """
    if getattr(model, "_hf_peft_config_loaded", False):
        _reload_adapter(model, Path(folder))
        return
    extra: dict[str, Any] = getattr(model, "loading_kwargs", dict)()  # a fusion module of the user's own is in no file
    saved = type(model).from_pretrained(folder, dtype=model.dtype, **extra)
    model.load_state_dict(saved.state_dict())


def _reload_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Copy a saved adapter into the active one, in place: `model.load_adapter` would stop its training."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    saved = load_file(folder / _ADAPTER_FILE)
    saved = {name.removeprefix("base_model.model."): tensor for name, tensor in saved.items()}
    adapter = model.active_adapters()[0]
    expected = set(get_peft_model_state_dict(model, adapter_name=adapter))
    if differing := sorted(expected ^ set(saved)):
        raise RuntimeError(
            f"{folder / _ADAPTER_FILE} holds another adapter than the model's {adapter!r}: {differing[0]!r} is in one "
            "of them only; add the adapter with the configuration that the run was started with"
        )
    set_peft_model_state_dict(model, saved, adapter_name=adapter)


class CheckpointTrainer(Trainer):
    """The part of `MultimodalRelearnTrainer` that writes and reads checkpoints."""

    relearn_callback: RelearnCallback

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # Our own files come first: the Trainer ends with the file that marks a checkpoint as whole, and then deletes
        # older checkpoints.
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            begin_checkpoint(folder)
            self.relearn_callback.write_run_files(folder)
        super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        for path in Path(output_dir or str(self.args.output_dir)).glob("*.safetensors"):
            give_default_mode(path)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()  # the file that marks the checkpoint as whole speaks for every process

    # The Trainer loads the raw file of a checkpoint, whose key names may differ from the model's: transformers issue
    # 43701. `_load_best_model` does the same.
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.relearn_callback.checkpoint_folder = resume_from_checkpoint
        target = self.model if model is None else model
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or not can_reload(target):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            reload_weights(target, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or not can_reload(self.model):
            super()._load_best_model()
        else:
            best = self.state.best_model_checkpoint
            assert best is not None  # or this would not be called
            logger.info("Loading the best model, %s", best)
            reload_weights(self.model, best)
