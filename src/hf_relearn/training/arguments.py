"""The settings of diagnosing & re-learning, and the training arguments that carry them."""

from dataclasses import dataclass, field, fields

import torch
from transformers import TrainingArguments

from hf_relearn.relearning.settings import RelearnSettings
from hf_relearn.training.settings import ParameterSettings, TargetSettings


@dataclass
class RelearnTrainingArguments(RelearnSettings, ParameterSettings, TargetSettings, TrainingArguments):
    """`TrainingArguments` with the fields of `RelearnSettings`, `ParameterSettings` and `TargetSettings`.

    Raw columns have to reach the collator, so `remove_unused_columns` is False here.
    """

    remove_unused_columns: bool = field(
        default=False,
        metadata={"help": "Remove columns that the model's forward does not take. The collator needs them."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not torch.accelerator.is_available():
            self.dataloader_pin_memory = False  # there is nothing to pin for, and torch warns at every data loader
        self.check()
        self.check_parameters()
        self.check_targets()

    def relearn_settings(self) -> RelearnSettings:
        """The settings alone, as `RelearnCallback` takes them."""
        return RelearnSettings(**{item.name: getattr(self, item.name) for item in fields(RelearnSettings)})
