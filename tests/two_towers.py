"""A model, data and training arguments of a user's own, in a stock `Trainer`."""

import numpy as np
import pages
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainingArguments


class TwoTowers(nn.Module):
    """A model as anybody might have written it."""

    def __init__(self):
        super().__init__()
        self.ear = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1))
        self.eye = nn.Sequential(nn.Linear(12, 16), nn.ReLU())
        self.head = nn.Linear(32, 3)

    def forward(self, sound, image, labels=None):
        logits = self.head(torch.cat([self.ear(sound), self.eye(image)], dim=-1))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Pairs(Dataset):
    def __init__(self, size: int, seed: int):
        generator = np.random.default_rng(seed)
        self.labels = np.arange(size) % 3
        self.sound = generator.normal(size=(size, 8)) + 0.8 * np.eye(8)[self.labels]
        self.image = generator.normal(size=(size, 12)) + 0.4 * np.eye(12)[self.labels]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        values = {"sound": self.sound[index], "image": self.image[index]}
        return {
            **{name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()},
            "labels": int(self.labels[index]),
        }


def train_two_towers(*args):
    """The example of the pages."""
    return pages.run_block(pages.block_with("RelearnCallback("))["train_two_towers"](*args)


def arguments(folder, **kwargs):
    settings = {"num_train_epochs": 5, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "save_strategy": "no"}
    settings |= {"use_cpu": True, "disable_tqdm": True, **kwargs}
    return TrainingArguments(output_dir=str(folder), **settings)
