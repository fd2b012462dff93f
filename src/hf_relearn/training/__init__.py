"""Floor 4: the Trainer, its callback and arguments."""

from hf_relearn.records import HISTORY_FILE, read_history
from hf_relearn.relearning.callback import RelearnCallback
from hf_relearn.relearning.settings import RelearnSettings
from hf_relearn.relearning.terminal import TerminalCallback
from hf_relearn.training.arguments import PRESETS, RelearnTrainingArguments
from hf_relearn.training.batches import MultimodalCollator
from hf_relearn.training.checkpoints import last_checkpoint
from hf_relearn.training.metrics import classification_metrics, load_metric
from hf_relearn.training.trainer import MultimodalRelearnTrainer

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
