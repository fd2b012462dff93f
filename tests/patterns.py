"""Rows of three modalities, of which one can only be memorised: what trains it is chance on held-out samples."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from hf_relearn import FeaturesConfig, MultimodalForClassification
from hf_relearn.training import MultimodalRelearnTrainer, RelearnTrainingArguments

WIDTH = 6
# The vectors of "known" hold the class in both parts, those of "memorised" in the training part only, "noise" nowhere.
MODALITIES = ("memorised", "known", "noise")


class PatternRows(Dataset):
    def __init__(self, size: int = 60, seed: int = 0, held_out: bool = False, gaps: bool = False):
        generator = np.random.default_rng(seed)
        self.labels = np.arange(size) % 3
        self.reads = 0
        self.values, self.present = {}, {}
        for name in MODALITIES:
            informative = name == "known" or (name == "memorised" and not held_out)
            values = generator.normal(size=(size, WIDTH)) + (4 * np.eye(WIDTH)[self.labels] if informative else 0)
            self.values[name] = torch.tensor(values, dtype=torch.float32)
        if gaps:
            self.present["known"] = torch.arange(size) % 5 > 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        self.reads += 1
        row = {f"{name}_feature_values": values[index] for name, values in self.values.items()}
        row |= {f"{name}_present": having[index] for name, having in self.present.items()}
        return {**row, "labels": int(self.labels[index])}


def pattern_model(seed: int = 0, **kwargs) -> MultimodalForClassification:
    torch.manual_seed(seed)
    sizes = {"architecture": "mlp", "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16, "dropout": 0.1}
    backbones = {name: FeaturesConfig(input_size=WIDTH, **sizes) for name in MODALITIES}
    labels = {index: f"class {index}" for index in range(3)}
    return MultimodalForClassification.from_backbones(backbones, id2label=labels, **kwargs)


class Towers(nn.Module):
    """A model of the user's own on the same rows."""

    def __init__(self):
        super().__init__()
        self.towers = nn.ModuleDict({name: nn.Linear(WIDTH, 8) for name in MODALITIES})
        self.head = nn.Linear(8 * len(MODALITIES), 3)

    def features(self, batch):
        return {name: torch.tanh(tower(batch[f"{name}_feature_values"])) for name, tower in self.towers.items()}

    def forward(self, labels=None, **batch):
        logits = self.head(torch.cat(list(self.features(batch).values()), dim=-1))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def pattern_arguments(folder, **kwargs) -> RelearnTrainingArguments:
    """The defaults of the method, on a short run."""
    settings = {"num_train_epochs": 4, "per_device_train_batch_size": 8, "per_device_eval_batch_size": 8}
    settings |= {
        "learning_rate": 1e-2,
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
    }
    return RelearnTrainingArguments(output_dir=str(folder), **{**settings, **kwargs})


def pattern_trainer(folder, model=None, train_dataset=None, trainer_kwargs=None, **kwargs) -> MultimodalRelearnTrainer:
    return MultimodalRelearnTrainer(
        model if model is not None else pattern_model(),
        pattern_arguments(folder, **kwargs),
        train_dataset=train_dataset if train_dataset is not None else PatternRows(),
        **{"eval_dataset": PatternRows(44, seed=1, held_out=True), **(trainer_kwargs or {})},
    )
