"""What the client process of these tests does; each function is run there, by name."""

import logging
import time
from pathlib import Path

import numpy as np
import torch
from tiny import TensorRows, make_trainer, tiny_model
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoProcessor,
    TrainerCallback,
    default_data_collator,
)

from hf_relearn import MultimodalForClassification, MultimodalProcessor
from hf_relearn.hub.staging import stage
from hf_relearn.hub.upload import PushError, push_folder


class Messages(logging.Handler):
    """Collects what is logged while it is open."""

    def __init__(self):
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def __enter__(self) -> "Messages":
        logging.getLogger("hf_relearn").addHandler(self)
        return self

    def __exit__(self, *exception: object) -> None:
        logging.getLogger("hf_relearn").removeHandler(self)


def save_tiny(folder: str) -> None:
    """A model with its processor, in a folder."""
    model = tiny_model()
    model.save_pretrained(folder)
    MultimodalProcessor.from_model(model.config).save_pretrained(folder)


def stage_tiny(folder: str) -> list[str]:
    save_tiny(folder + "-saved")
    return stage(folder + "-saved", folder)


def push(folder: str, repo_id: str, **options) -> dict:
    """Push a staged folder; what came of it, and how long it took."""
    start = time.perf_counter()
    with Messages() as messages:
        try:
            done = {"oid": push_folder(folder, repo_id, **options).oid}
        except PushError as error:
            done = {"error": str(error), "command": error.command}
    return {**done, "logged": messages.texts, "seconds": time.perf_counter() - start}


class FailingCard(TrainerCallback):
    """What a card that cannot be written does."""

    def __init__(self, message: str):
        self.message = message

    def on_push_begin(self, *args, **kwargs) -> None:
        raise RuntimeError(self.message)


def train(output_dir: str, card_error: str | None = None, **arguments) -> dict:
    """Train a tiny model from a backbone that lies in a local folder, and push it."""
    backbone = Path(output_dir).parent / "secret_backbone"
    tiny_model().encoders["vision"].backbone.save_pretrained(backbone)
    model = MultimodalForClassification.from_backbones(
        {"audio": tiny_model().config.modalities["audio"].backbone_config, "vision": str(backbone)},
        id2label={0: "/m/0dgw9r", 1: "b", 2: "c"},
    )
    options = {
        "data_collator": default_data_collator,
        "processing_class": MultimodalProcessor.from_model(model.config),
    }
    if card_error:
        options["callbacks"] = [FailingCard(card_error)]
    settings = {"push_to_hub": True, "num_train_epochs": 2, **arguments}
    with Messages() as messages:
        trainer = make_trainer(output_dir, model, TensorRows(12), options, **settings)
        trainer.train()
        trainer.save_model()
    failure = trainer.push_failure
    return {
        "logits": logits(trainer.model),
        "failure": str(failure) if failure else None,
        "command": failure.command if failure else None,
        "logged": messages.texts,
    }


def logits(model) -> list:
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "audio_input_values": torch.randn(2, 16, 16, generator=generator),
        "vision_pixel_values": torch.randn(2, 3, 16, 16, generator=generator),
    }
    with torch.no_grad():
        return model.eval()(**inputs).logits.tolist()


def pull(repo_id: str) -> list:
    """Logits of a repository's model."""
    return logits(MultimodalForClassification.from_pretrained(repo_id))


def classes_of(repo_id: str, **trust) -> list[str]:
    """What the Auto classes make of a repository."""
    autos = (AutoConfig, AutoProcessor, AutoModel, AutoModelForSequenceClassification)
    found = [auto.from_pretrained(repo_id, **trust) for auto in autos]
    return [f"{type(item).__module__}.{type(item).__name__}" for item in found]


def error_of(loader: str, repo_id: str, **options) -> str:
    """The type and message of what loading a repository raises."""
    loaders = {
        "ours": MultimodalForClassification,
        "processor": MultimodalProcessor,
        "auto": AutoModel,
        "auto processor": AutoProcessor,
    }
    try:
        loaders[loader].from_pretrained(repo_id, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def process(repo_id: str) -> list:
    """Sums of what the processor of a repository makes of a fixed sound and picture."""
    generator = np.random.default_rng(0)
    values = {
        "audio": [generator.uniform(-0.5, 0.5, 4000).astype(np.float32)],
        "vision": [generator.integers(0, 255, (20, 24, 3), dtype=np.uint8)],
    }
    return [float(tensor.sum()) for tensor in AutoProcessor.from_pretrained(repo_id)(values).values()]


def pull_files(source: str) -> list:
    """Logits of a model for what its processor makes of a fixed sound and picture."""
    generator = np.random.default_rng(0)
    model, processor = MultimodalForClassification.from_pretrained(source), MultimodalProcessor.from_pretrained(source)
    values = {
        "audio": [generator.uniform(-0.5, 0.5, 4000).astype(np.float32)],
        "vision": [generator.integers(0, 255, (20, 24, 3), dtype=np.uint8)],
    }
    with torch.no_grad():
        return model(**processor(values)).logits.tolist()
