"""Tiny random models and data sets that the tests share."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from transformers import ASTConfig, ResNetConfig, TrainerCallback, ViTConfig

from hf_relearn import MultimodalForClassification
from hf_relearn.training import MultimodalRelearnTrainer, RelearnTrainingArguments, read_history

NUM_CLASSES = 3
# What so few samples and epochs make every run say.
FEW_SAMPLES = pytest.mark.filterwarnings(
    "ignore:chance alone explains",
    "ignore:.*the standard error of the gap is",
    "ignore:.*classes have fewer than 5 training samples",
    "ignore:before training the held-out samples",
)
CONSTANT_STRENGTH = pytest.mark.filterwarnings(
    "ignore:a constant --relearn_strength after",
    "ignore:the learning rate has decayed",
    "ignore:the uni-modal head of .* has hardly learnt",
)


def vit_config(**changes) -> ViTConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return ViTConfig(**{**sizes, "image_size": 16, "patch_size": 8, **changes})


def ast_config(**changes) -> ASTConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    audio = {"max_length": 16, "num_mel_bins": 16, "patch_size": 8, "time_stride": 8, "frequency_stride": 8}
    return ASTConfig(**{**sizes, **audio, **changes})


def resnet_config(**changes) -> ResNetConfig:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    return ResNetConfig(**{**sizes, **changes})


def tiny_model(seed: int = 0, dropout: float = 0.0, **kwargs) -> MultimodalForClassification:
    """AST + ViT: the two backbones whose names on disk differ from those in memory."""
    torch.manual_seed(seed)
    backbones = {
        "audio": ast_config(hidden_dropout_prob=dropout),
        "vision": vit_config(hidden_dropout_prob=dropout),
    }
    labels = {index: f"class {index}" for index in range(NUM_CLASSES)}
    return MultimodalForClassification.from_backbones(backbones, id2label=labels, **kwargs)


class TensorRows(Dataset):
    """Inputs of `tiny_model` in which both modalities carry the class, the audio more clearly, under much noise."""

    def __init__(self, size: int = 36, seed: int = 0):
        generator = np.random.default_rng(seed)
        self.labels = np.arange(size) % NUM_CLASSES
        patterns = np.random.default_rng(99).normal(size=(2, NUM_CLASSES, 16, 16))
        self.audio = generator.normal(size=(size, 16, 16)) + 0.2 * patterns[0, self.labels]
        self.vision = generator.normal(size=(size, 3, 16, 16)) + 0.1 * patterns[1, self.labels][:, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {
            "audio_input_values": torch.tensor(self.audio[index], dtype=torch.float32),
            "vision_pixel_values": torch.tensor(self.vision[index], dtype=torch.float32),
            "labels": int(self.labels[index]),
        }


def training_arguments(output_dir, **kwargs) -> RelearnTrainingArguments:
    defaults = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "learning_rate": 1e-2,
        "relearn_interval": 1,
        # As published: strengths that are rarely 0, and a part that is held out.
        "relearn_strength": "gap",
        "diagnosis_estimator": "purity",
        "diagnosis_source": "holdout",
        "diagnosis_sampling": "matched",
        "diagnosis_fraction": 0.25,
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
    }
    return RelearnTrainingArguments(output_dir=str(output_dir), **{**defaults, **kwargs})


def make_trainer(
    output_dir, model=None, train_dataset=None, trainer_kwargs=None, **kwargs
) -> MultimodalRelearnTrainer:
    return MultimodalRelearnTrainer(
        model if model is not None else tiny_model(),
        training_arguments(output_dir, **kwargs),
        train_dataset=train_dataset if train_dataset is not None else TensorRows(),
        **{"eval_dataset": TensorRows(12, seed=1), **(trainer_kwargs or {})},
    )


def history(folder) -> list[dict]:
    """The records of a run after the diagnosis before its first step."""
    return [record for record in read_history(folder) if record["kind"] != "start"]


def moved_back(before: torch.Tensor, initial: torch.Tensor, alpha: float) -> torch.Tensor:
    """What re-learning makes of a parameter, by the formula, rounded once."""
    return ((1 - alpha) * before.double() + alpha * initial.double()).to(before.dtype)


def assert_moved_back(after: torch.Tensor, before: torch.Tensor, initial: torch.Tensor, alpha: float) -> None:
    """A tensor moved by the formula, up to one unit in the last place; what had not been trained moved by no bit."""
    torch.testing.assert_close(after, moved_back(before, initial, alpha), rtol=3e-7, atol=1e-7)
    unmoved = before == initial
    assert torch.equal(after[unmoved], before[unmoved])


def around_points(trainer, look) -> list[tuple]:
    """Watch a run: (what `look()` gives before, the same after, the point) of each re-learning step."""
    seen: list[tuple] = []
    before: list = []

    class Before(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            before[:] = [look()]

        on_epoch_begin = on_step_begin

    def on_point(point):
        if point.kind == "point":
            seen.append((before[0], look(), point))

    trainer.callback_handler.callbacks.insert(0, Before())
    trainer.relearn_callback.on_point = on_point
    return seen


def weights_of(module) -> dict[str, torch.Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def assert_same(first, second) -> None:
    """Nested states are equal to the bit; NaN equals NaN."""
    assert type(first) is type(second), (type(first), type(second))
    if isinstance(first, dict):
        assert set(first) == set(second), set(first) ^ set(second)
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype and torch.equal(first.nan_to_num(), second.nan_to_num())
        assert torch.equal(first.isnan(), second.isnan())
    else:
        assert first == second or (first != first and second != second), (first, second)


def without_times(entries: list[dict]) -> list[dict]:
    """Log entries or records without what a clock measured."""
    times = ("runtime", "per_second", "seconds", "share_of_epoch")
    return [{key: value for key, value in entry.items() if not key.endswith(times)} for entry in entries]
