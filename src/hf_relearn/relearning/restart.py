"""Starting over from where training began, when `auto_find_batch_size` has found that a batch does not fit.

The Trainer then begins its loop again with a smaller batch, but with the weights, the optimizer state and the random
generators as the failed attempt left them.
"""

import logging
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from hf_relearn.method import InitialWeights
from hf_relearn.relearning.features import random_state, restore_random_state
from hf_relearn.relearning.run_state import output_folder

logger = logging.getLogger(__name__)


class StartingPoint:
    """The weights, random generators and gradient scale with which an attempt to train began.

    The trained parameters and the buffers are written to `_restart-<process>` in the output directory, of a sharded
    model each process' own rows, so no second copy of the model is in memory.

    Args:
        folder: the output directory of the run.
        process_index: of this process.
        model: before its first step.
        batch_size: of the attempt.
        optimizer: as accelerate wraps it, with the gradient scaler of float16 training if there is one.
    """

    def __init__(self, folder: Path, process_index: int, model: nn.Module, batch_size: int, optimizer: Any):
        self.batch_size = batch_size
        self._folder = folder / f"_restart-{process_index}"
        shutil.rmtree(self._folder, ignore_errors=True)  # of a run that was killed
        self._weights = InitialWeights.save(_changing_tensors(model), self._folder)
        self._random_state = random_state()
        scaler = getattr(optimizer, "scaler", None)
        self._scale: dict[str, Any] = scaler.state_dict() if scaler is not None else {}

    def restore(self, model: nn.Module, optimizer: Any, *, resumed: bool) -> None:
        """Put the model back, and the generators too.

        The optimizer forgets its state, except in a resumed run, in which the Trainer has just read it from the
        checkpoint; it also reads the generators from there, later.
        """
        with torch.no_grad():
            for name, tensor in _changing_tensors(model).items():
                tensor.copy_(self._weights[name])
        if not resumed:
            getattr(optimizer, "optimizer", optimizer).state.clear()  # accelerate wraps the optimizer
            restore_random_state(self._random_state)
        if self._scale:
            with suppress(AssertionError):  # which says that nothing was scaled so far
                # Forgets how far the failed step came; gradients taken for unscaled would not be unscaled again.
                optimizer.scaler.update(self._scale["scale"])
            optimizer.scaler.load_state_dict(self._scale)

    def remove(self) -> None:
        """Delete what lies on disk."""
        shutil.rmtree(self._folder, ignore_errors=True)


def start_attempt(
    failed: StartingPoint | None,
    args: TrainingArguments,
    model: nn.Module,
    optimizer: Any,
    batch_size: int,
    *,
    resumed: bool,
) -> StartingPoint:
    """Go back to the start of a failed attempt, if there was one, and note where this one starts.

    Args:
        failed: where the latest attempt of this Trainer started. One with a batch no larger than this one's was not
            an attempt of the same run, but another `train()` that raised.
        args: with the folder of the run as output directory.
        model, optimizer, batch_size, resumed: as `StartingPoint` has them.
    """
    if failed is not None and batch_size < failed.batch_size:
        logger.warning(
            "a batch of %d did not fit: training starts over, with the weights before its first step, with %d",
            failed.batch_size,
            batch_size,
        )
        failed.restore(model, optimizer, resumed=resumed)
    return StartingPoint(output_folder(args), args.process_index, model, batch_size, optimizer)


def _changing_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes: trained parameters and buffers; of sharded ones this process' rows."""
    named = [(name, parameter.detach()) for name, parameter in model.named_parameters() if parameter.requires_grad]
    named += [(name, buffer) for name, buffer in model.named_buffers() if not buffer.is_complex()]
    return {name: tensor.to_local() if hasattr(tensor, "to_local") else tensor for name, tensor in named}
