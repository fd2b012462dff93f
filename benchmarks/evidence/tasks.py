"""Small multimodal tasks for the evidence: real data as tensors, small encoders, splits by seed."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from transformers import BertConfig, ResNetConfig

from hf_relearn import FeaturesConfig, MultimodalConfig, MultimodalForClassification, MultimodalProcessor
from hf_relearn.experiments.modalities import build_word_tokenizer

# Sides of pictures and spectrograms in pixels.
_SIDE = 32


class TensorRows(Dataset):
    """Rows of a task: inputs by the model's names, and labels."""

    def __init__(self, inputs: Mapping[str, Tensor], labels: np.ndarray):
        self.inputs = dict(inputs)
        self.labels = torch.as_tensor(labels, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**{name: values[index] for name, values in self.inputs.items()}, "labels": self.labels[index]}

    def only(self, modality: str) -> "TensorRows":
        """The inputs of one modality."""
        return TensorRows(
            {name: values for name, values in self.inputs.items() if name.startswith(f"{modality}_")},
            self.labels.numpy(),
        )


@dataclass(frozen=True)
class Stacking:
    """Stack rows to a batch; pictures and spectrograms are shifted at random in training.

    Attributes:
        shift: pixels by which `pixel_values` are shifted at most, in both directions.
    """

    shift: int = 0
    label_column: str = "labels"

    def __call__(self, rows: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        for name, values in batch.items():
            if self.shift and name.endswith("pixel_values"):
                moves = torch.randint(-self.shift, self.shift + 1, (len(values), 2)).tolist()
                moved = [torch.roll(each, move, dims=(-2, -1)) for each, move in zip(values, moves, strict=True)]
                batch[name] = torch.stack(moved)
        return batch

    def without_augmentation(self) -> "Stacking":
        return replace(self, shift=0)


@dataclass(frozen=True)
class Task:
    """One data set, cut and disturbed as a seed says.

    Attributes:
        folder: of the data set.
        load: (folder, seed) -> training, validation and test rows.
        backbones: modality -> configuration.
        num_classes: number of classes.
        training: training arguments, beside those of the arms.
        shift: of the augmentation.
        tuned_as: the task whose tuned settings are used; None tunes this one.
        fixed_length: the number of epochs is not tuned.
    """

    folder: str
    load: Callable[[Path, int], tuple[TensorRows, TensorRows, TensorRows]]
    backbones: Mapping[str, Any]
    num_classes: int
    training: Mapping[str, Any] = field(default_factory=dict)
    shift: int = 0
    tuned_as: str | None = None
    fixed_length: bool = False

    def model(self, seed: int, unimodal_loss_weight: float, only: str | None = None) -> MultimodalForClassification:
        """A new model, or one of a single modality; the same for the same seed."""
        torch.manual_seed(seed)
        backbones = {name: config for name, config in self.backbones.items() if only in (None, name)}
        id2label = {index: str(index) for index in range(self.num_classes)}
        return MultimodalForClassification.from_backbones(
            backbones, id2label=id2label, unimodal_loss_weight=unimodal_loss_weight
        )


def _resnet(num_channels: int) -> ResNetConfig:
    return ResNetConfig(
        num_channels=num_channels,
        embedding_size=16,
        hidden_sizes=[16, 32, 64],
        depths=[1, 1, 1],
        layer_type="basic",
    )


def _bert() -> BertConfig:
    return BertConfig(
        vocab_size=2000,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=32,
    )


def _mlp(size: int) -> FeaturesConfig:
    return FeaturesConfig(input_size=size, architecture="mlp", hidden_size=64)


def _parts(folder: Path) -> dict[str, pd.DataFrame]:
    return {part: pd.read_parquet(folder / f"{part}.parquet") for part in ("train", "validation", "test")}


def _draw(table: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """A stratified draw of rows."""
    shuffled = table.sample(frac=1.0, random_state=seed)
    rank = shuffled.groupby("label").cumcount()
    return shuffled.assign(_rank=rank).sort_values("_rank", kind="stable").head(size).drop(columns="_rank")


def _pictures(cells: Any, mode: str) -> Tensor:
    images = [Image.open(io.BytesIO(cell["bytes"])).convert(mode).resize((_SIDE, _SIDE)) for cell in cells]
    values = torch.from_numpy(np.stack([np.asarray(image, dtype=np.float32) for image in images])) / 255
    return values[:, None] if mode == "L" else values.permute(0, 3, 1, 2).contiguous()


def _standardised(train: Tensor, *others: Tensor) -> list[Tensor]:
    mean, deviation = train.mean(), train.std().clamp_min(1e-6)
    return [(values - mean) / deviation for values in (train, *others)]


def _spectrograms(cells: Any) -> Tensor:
    config = MultimodalForClassification.from_backbones(
        {"audio": _resnet(1)}, num_labels=2, modality_options={"audio": {"kind": "audio"}}
    ).config
    assert isinstance(config, MultimodalConfig)
    options = {"seconds": 1.0, "sampling_rate": 8000, "size": [_SIDE, _SIDE]}
    processor = MultimodalProcessor.from_model(config, {"audio": _resnet(1)}, {"audio": options})
    return processor({"audio": [cell["bytes"] for cell in cells]})["audio_pixel_values"]


def av_digits(pairs: int, noise: float, *, picture: bool = True) -> Callable:
    """Spoken and written digits: four speakers in training, one in validation and one in test.

    Args:
        pairs: training pairs.
        noise: standard deviations of noise on the pictures.
        picture: False puts noise in place of the pictures.
    """

    def load(folder: Path, seed: int) -> tuple[TensorRows, TensorRows, TensorRows]:
        table = pd.concat(_parts(folder).values())
        speakers = np.random.default_rng(seed).permutation(sorted(table["speaker"].unique()))
        tables = [
            _draw(table[table["speaker"].isin(speakers[:4])], pairs, seed),
            _draw(table[table["speaker"] == speakers[4]], 200, seed),
            table[table["speaker"] == speakers[5]],
        ]
        sounds = _standardised(*[_spectrograms(each["audio"]) for each in tables])
        pictures = _standardised(*[_pictures(each["image"], "L") for each in tables])
        generator = torch.Generator().manual_seed(seed)
        noisy = [each * picture + noise * torch.randn(each.shape, generator=generator) for each in pictures]
        rows = [
            TensorRows({"audio_pixel_values": sound, "vision_pixel_values": image}, each["label"].to_numpy())
            for sound, image, each in zip(sounds, noisy, tables, strict=True)
        ]
        return rows[0], rows[1], rows[2]

    return load


def image_text(text_column: str, size: int) -> Callable:
    """Pictures with short texts; `size` training samples."""

    def load(folder: Path, seed: int) -> tuple[TensorRows, TensorRows, TensorRows]:
        parts = _parts(folder)
        tables = [_draw(parts["train"], size, seed), parts["validation"], parts["test"]]
        tokenizer = build_word_tokenizer(tables[0][text_column], 2000, 32)
        pictures = _standardised(*[_pictures(each["image"], "RGB") for each in tables])
        rows = []
        for table, images in zip(tables, pictures, strict=True):
            tokens = tokenizer(
                list(table[text_column]), padding="max_length", truncation=True, max_length=16, return_tensors="pt"
            )
            inputs = {
                "vision_pixel_values": images,
                "text_input_ids": tokens["input_ids"],
                "text_attention_mask": tokens["attention_mask"],
            }
            rows.append(TensorRows(inputs, table["label"].to_numpy()))
        return rows[0], rows[1], rows[2]

    return load


def vectors(columns: Mapping[str, str], size: int | None = None) -> Callable:
    """Vectors per modality (name -> column), standardised by the training part."""

    def load(folder: Path, seed: int) -> tuple[TensorRows, TensorRows, TensorRows]:
        parts = _parts(folder)
        tables = [_draw(parts["train"], size or len(parts["train"]), seed), parts["validation"], parts["test"]]
        values = {name: [np.stack(list(each[column])) for each in tables] for name, column in columns.items()}
        rows = []
        for index, table in enumerate(tables):
            inputs = {}
            for name, arrays in values.items():
                mean, deviation = arrays[0].mean(axis=0), arrays[0].std(axis=0) + 1e-6
                inputs[f"{name}_feature_values"] = torch.as_tensor((arrays[index] - mean) / deviation).float()
            rows.append(TensorRows(inputs, table["label"].to_numpy()))
        return rows[0], rows[1], rows[2]

    return load


_DIGITS = {"audio": _resnet(1), "vision": _resnet(1)}
_PICTURE_TEXT = {"vision": _resnet(3), "text": _bert()}
_VIEWS = {"fourier": 76, "zernike": 47, "morphological": 6}
_SENSORS = {"hsi": 144, "lidar": 21}


def _digits(pairs: int, noise: float, epochs: int, *, picture: bool = True) -> Task:
    training = {"num_train_epochs": epochs, "per_device_train_batch_size": 32, "learning_rate": 2e-3}
    return Task("av_digits", av_digits(pairs, noise, picture=picture), _DIGITS, 10, training, shift=3)


def _image_text(folder: str, column: str, size: int, classes: int, epochs: int) -> Task:
    training = {"num_train_epochs": epochs, "per_device_train_batch_size": 32, "learning_rate": 1e-3}
    return Task(folder, image_text(column, size), _PICTURE_TEXT, classes, training, shift=3)


def _vectors(folder: str, sizes: Mapping[str, int], classes: int, epochs: int, size: int | None = None) -> Task:
    training = {"num_train_epochs": epochs, "per_device_train_batch_size": 64, "learning_rate": 2e-3}
    backbones = {name: _mlp(width) for name, width in sizes.items()}
    return Task(folder, vectors({name: name for name in sizes}, size), backbones, classes, training)


def _short(task: Task) -> Task:
    """The task as a run of 10 epochs."""
    return replace(task, training={**task.training, "num_train_epochs": 10}, fixed_length=True)


def _wrong_labels(task: Task, tuned_as: str, share: float = 0.2) -> Task:
    """The task with another class, drawn at random, on a share of the training samples."""

    def load(folder: Path, seed: int) -> tuple[TensorRows, TensorRows, TensorRows]:
        train, *others = task.load(folder, seed)
        generator = np.random.default_rng(seed)
        labels = train.labels.numpy().copy()
        wrong = generator.permutation(len(labels))[: round(share * len(labels))]
        labels[wrong] = (labels[wrong] + generator.integers(1, task.num_classes, len(wrong))) % task.num_classes
        return TensorRows(train.inputs, labels), others[0], others[1]

    return replace(task, load=load, tuned_as=tuned_as)


TASKS: dict[str, Task] = {
    "digits-150-noise1.5": _digits(150, 1.5, 100),
    "digits-150-noise2.5": replace(_digits(150, 2.5, 100), tuned_as="digits-150-noise1.5"),
    "digits-400-noise1.5": _digits(400, 1.5, 50),
    "digits-400-noise2.5": replace(_digits(400, 2.5, 50), tuned_as="digits-400-noise1.5"),
    "digits-150-only-noise": _digits(150, 1.0, 100, picture=False),
    "digits-400-wrong-labels": _wrong_labels(_digits(400, 1.5, 50), "digits-400-noise1.5"),
    "digits-150-10-epochs": _short(_digits(150, 1.5, 10)),
    "emoji-400": _image_text("emoji", "text", 400, 9, 40),
    "emoji-10-epochs": _short(_image_text("emoji", "text", 400, 9, 10)),
    "flipkart-short": _image_text("flipkart_products", "short_title", 628, 7, 30),
    "flipkart-title": replace(_image_text("flipkart_products", "title", 628, 7, 30), tuned_as="flipkart-short"),
    "flipkart-10-epochs": _short(_image_text("flipkart_products", "short_title", 628, 7, 10)),
    "mfeat-300": _vectors("mfeat", _VIEWS, 10, 60, 300),
    "mfeat": _vectors("mfeat", _VIEWS, 10, 40),
    "mfeat-wrong-labels": _wrong_labels(_vectors("mfeat", _VIEWS, 10, 40), "mfeat"),
    "mfeat-10-epochs": _short(_vectors("mfeat", _VIEWS, 10, 10)),
    "houston": _vectors("houston2013", _SENSORS, 15, 40),
    "houston-10-epochs": _short(_vectors("houston2013", _SENSORS, 15, 10)),
}
