r"""Train a fusion model on any data set with an audio, an image and a label column, from the Hub or from disk.

    accelerate launch recipes/train_multimodal.py --dataset_name me/my-audio-image-set \
        --audio_column audio --image_column image --label_column label \
        --audio_model_name_or_path facebook/wav2vec2-base --vision_model_name_or_path google/vit-base-patch16-224-in21k

Without models it trains small residual networks from scratch.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hf_relearn import RelearnTrainingArguments
from hf_relearn.cards import DatasetFacts
from hf_relearn.data.tables import load_table
from hf_relearn.experiments import (
    PRESETS,
    Experiment,
    ModelArguments,
    RunArguments,
    parse_recipe_arguments,
    run_or_compare,
    show_progress,
)


@dataclass
class DataArguments:
    """The data set and its columns."""

    _argument_group_name: ClassVar[str] = "data"

    dataset_name: str = field(metadata={"help": "Hub id or local folder of the data set."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of the data set."})
    train_split: str = field(default="train", metadata={"help": "Name of the training split."})
    validation_split: str = field(
        default="validation",
        metadata={"help": "Name of the validation split; if there is none, it is drawn from the training split."},
    )
    test_split: str = field(default="test", metadata={"help": "Name of the test split, if there is one."})
    validation_fraction: float = field(
        default=0.1, metadata={"help": "Share of the training split that is drawn as validation split."}
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on a stratified part of so many samples only."}
    )
    audio_column: str = field(default="audio", metadata={"help": "Column with sounds."})
    image_column: str = field(default="image", metadata={"help": "Column with images, or lists of images."})
    label_column: str = field(default="label", metadata={"help": "Column with classes: names or integers."})


MULTIMODAL: dict[str, Any] = {
    "audio_model_name_or_path": "backbones/resnet-tiny-spectrogram",
    "vision_model_name_or_path": "backbones/resnet-tiny",
    "num_train_epochs": 16,
    "per_device_train_batch_size": 64,
    "per_device_eval_batch_size": 64,
    "learning_rate": 2e-3,
    "weight_decay": 1e-4,
    "image_size": 32,
    "spectrogram_rate": 16000,
    "spectrogram_size": [64, 64],
    "audio_seconds": 1.0,
    "image_flip": 0.0,
    "relearn_interval": 3,
    "diagnosis_interval": 1,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "logging_strategy": "epoch",
    "output_dir": "outputs/multimodal",
}


def defaults(chosen: argparse.Namespace) -> dict[str, Any]:
    """What the flags' defaults are, for the preset chosen."""
    return {**MULTIMODAL, **PRESETS[chosen.preset]}


def main() -> None:
    types = (DataArguments, RunArguments, ModelArguments, RelearnTrainingArguments)
    data, run, model, args = parse_recipe_arguments(types, defaults, description=__doc__ or "")
    show_progress(args)
    with args.main_process_first(desc="loading the data set"):
        splits = load_table(
            data.dataset_name,
            data.dataset_config_name,
            columns={"audio": data.audio_column, "image": data.image_column},
            label_column=data.label_column,
            splits={"train": data.train_split, "validation": data.validation_split, "test": data.test_split},
            validation_fraction=data.validation_fraction,
            max_train_samples=data.max_train_samples,
            seed=args.seed,
        )
    folder = Path(data.dataset_name)  # a data set of the Hub says itself where it came from
    experiment = Experiment(
        title=f"Audio and image: {Path(data.dataset_name).name}",
        backbones=model.backbones(Path(__file__).parent),
        columns={"audio": data.audio_column, "vision": data.image_column},
        label_column=data.label_column,
        train=splits["train"],
        evaluation=splits["validation"],
        test=splits.get("test"),
        model=model,
        card=run.card_info(datasets=[DatasetFacts(folder.name)] if folder.exists() else None),
    )
    run_or_compare(experiment, run, args)


if __name__ == "__main__":
    main()
