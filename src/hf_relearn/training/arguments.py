"""The settings of diagnosing & re-learning, and the training arguments that carry them."""

import logging
import os
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainingArguments

from hf_relearn.quality import LOWER_IS_BETTER
from hf_relearn.relearning.presets import preset_settings
from hf_relearn.relearning.settings import RelearnSettings
from hf_relearn.training.settings import BalancingSettings, ParameterSettings, TargetSettings

logger = logging.getLogger(__name__)


@dataclass
class RelearnTrainingArguments(
    RelearnSettings, BalancingSettings, ParameterSettings, TargetSettings, TrainingArguments
):
    """`TrainingArguments` with the fields of the four classes of settings before it.

    Raw columns have to reach the collator, so `remove_unused_columns` is False here; and gradients are not clipped
    unless `max_grad_norm` is given.
    """

    remove_unused_columns: bool = field(
        default=False,
        metadata={"help": "Remove columns that the model's forward does not take. The collator needs them."},
    )
    max_grad_norm: float = field(
        default=0.0,
        metadata={
            "help": "Norm to which gradients are clipped; 0 does not clip. Gradients are largest just after a "
            "re-learning step, and clipping them there undoes its gain."
        },
    )

    train_sampling_strategy: str = field(
        default="random",
        metadata={
            "help": "How training samples are drawn: 'random', 'balanced' (each class as often as the others, rare "
            "ones several times an epoch), 'sequential', 'group_by_length' or 'batch_rebalance'.",
            "choices": ["random", "balanced", "sequential", "group_by_length", "batch_rebalance"],
        },
    )

    @classmethod
    def from_preset(cls, preset: str, output_dir: str | None = None, **kwargs: Any) -> "RelearnTrainingArguments":
        """Make training arguments by the name of a preset.

        Build the model with `from_backbones(..., preset=...)` of the same name, which sets its uni-modal heads.

        Args:
            preset: `"balanced"`, `"paper"` or `"heads"`.
            output_dir: as in `TrainingArguments`.
            **kwargs: further fields; they win over the preset.

        Raises:
            ValueError: for an unknown preset.
        """
        return cls(output_dir=output_dir, **{**preset_settings(preset, kwargs.get("relearn_interval")), **kwargs})

    def __post_init__(self) -> None:
        _start_cpu_processes(self)
        if self.greater_is_better is None and (self.metric_for_best_model or "").endswith(LOWER_IS_BETTER):
            self.greater_is_better = False  # transformers takes every metric but a loss for a measure of success
        super().__post_init__()
        if not torch.accelerator.is_available():
            self.dataloader_pin_memory = False  # there is nothing to pin for, and torch warns at every data loader
        self.check()
        self.build_balancing()  # refuses what does not fit
        self.check_parameters()
        self.check_targets()

    def relearn_settings(self) -> RelearnSettings:
        """Return the settings alone, as `RelearnCallback` takes them."""
        return RelearnSettings(**{item.name: getattr(self, item.name) for item in fields(RelearnSettings)})


def _start_cpu_processes(args: TrainingArguments) -> None:
    """Start the process group of a run on CPUs with the limit `ddp_timeout`, which transformers leaves out there."""
    on_cpu = args.use_cpu or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")
    if not on_cpu or not torch.distributed.is_available() or torch.distributed.is_initialized():
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        PartialState(cpu=True, backend=args.ddp_backend, timeout=timedelta(seconds=args.ddp_timeout))
    elif "ACCELERATE_USE_CPU" in os.environ:
        logger.warning(
            "accelerate launch starts one process on CPUs, whatever its --num_processes says: several are started by "
            "torchrun --nproc_per_node 2"
        )
