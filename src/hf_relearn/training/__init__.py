"""Floor 4: the Trainer, its callback and arguments. They are imported when used."""

from typing import TYPE_CHECKING

from hf_relearn.lazy import lazy_names

if TYPE_CHECKING:
    from hf_relearn.records import HISTORY_FILE, read_history
    from hf_relearn.relearning.callback import RelearnCallback
    from hf_relearn.relearning.presets import PRESETS
    from hf_relearn.relearning.settings import RelearnSettings
    from hf_relearn.relearning.terminal import TerminalCallback
    from hf_relearn.training.arguments import RelearnTrainingArguments
    from hf_relearn.training.batches import MultimodalCollator
    from hf_relearn.training.checkpoints import last_checkpoint
    from hf_relearn.training.metrics import classification_metrics, load_metric
    from hf_relearn.training.trainer import MultimodalRelearnTrainer

__getattr__ = lazy_names(
    __name__,
    {
        "HISTORY_FILE": "hf_relearn.records",
        "read_history": "hf_relearn.records",
        "RelearnCallback": "hf_relearn.relearning.callback",
        "RelearnSettings": "hf_relearn.relearning.settings",
        "PRESETS": "hf_relearn.relearning.presets",
        "TerminalCallback": "hf_relearn.relearning.terminal",
        "RelearnTrainingArguments": "hf_relearn.training.arguments",
        "MultimodalCollator": "hf_relearn.training.batches",
        "last_checkpoint": "hf_relearn.training.checkpoints",
        "classification_metrics": "hf_relearn.training.metrics",
        "load_metric": "hf_relearn.training.metrics",
        "MultimodalRelearnTrainer": "hf_relearn.training.trainer",
    },
)

__all__ = [
    "HISTORY_FILE",
    "PRESETS",
    "MultimodalCollator",
    "MultimodalRelearnTrainer",
    "RelearnCallback",
    "RelearnSettings",
    "RelearnTrainingArguments",
    "TerminalCallback",
    "classification_metrics",
    "last_checkpoint",
    "load_metric",
    "read_history",
]
