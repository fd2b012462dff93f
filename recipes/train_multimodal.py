r"""Train a fusion model on any data set, with any mix of modalities, from the Hub or from disk.

Sounds and pictures, with small residual networks from scratch:

    accelerate launch --quiet recipes/train_multimodal.py --dataset_name me/my-clips --from_scratch

Three modalities with names and columns of your own, two pretrained backbones, and a new encoder for given features:

    accelerate launch --quiet recipes/train_multimodal.py --dataset_name me/my-talks --fusion bottleneck \
        --modalities speech:audio words:text pose:features \
        --columns speech=wav words=transcript pose=keypoints --label_column sentiment \
        --models speech=facebook/wav2vec2-base words=google-bert/bert-base-uncased

Several number columns are one vector of features: `--columns sensors=x,y,z`. Numbers and categories of a row, with
empty cells, are a table:

    accelerate launch --quiet recipes/train_multimodal.py --dataset_name patients.csv --from_scratch \
        --modalities photo:vision patient:table --columns photo=path patient=age,income,city

A sample may lack a modality: leave the value empty, of a row all cells.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_relearn.experiments import (
    InputArguments,
    ModelArguments,
    RunArguments,
    TableArguments,
    find_backbone,
    fine_tuning_defaults,
    preset_defaults,
    pretrained_backbones,
    refuse_small_networks,
    run_recipe,
)
from hf_relearn.pairs import read_pairs

if TYPE_CHECKING:
    from hf_relearn import RelearnTrainingArguments
    from hf_relearn.experiments import Modality


@dataclass
class ModalityArguments:
    """Name the modalities, their columns and their backbones."""

    _argument_group_name: ClassVar[str] = "modalities"

    modalities: list[str] = field(
        default_factory=lambda: ["audio", "vision"],
        metadata={
            "help": "Names of the modalities in the order of fusion, with their kind as 'rgb:vision flow:vision' "
            "if the name is not itself one of audio, vision, video, text, features, table."
        },
    )
    columns: list[str] | None = field(
        default=None,
        metadata={
            "help": "Their columns as NAME=COLUMN; for features also NAME=COLUMN,COLUMN,... of numbers, for a table "
            "of numbers and categories. Unset, a column named as the modality (of kind vision: 'image')."
        },
    )
    category_columns: list[str] | None = field(
        default=None,
        metadata={"help": "Columns of tables whose numbers are categories, such as postcodes."},
    )
    models: list[str] | None = field(
        default=None,
        metadata={
            "help": "Their backbones as NAME=HUB_ID or NAME=FOLDER; a folder with a configuration only gives random "
            "weights, and is looked for beside the recipe, too. Unset, a small network, with --from_scratch."
        },
    )
    from_scratch: bool = field(
        default=False,
        metadata={
            "help": "Train small networks from random weights where --models names no backbone, at --learning_rate. "
            "Pretrained encoders train at 2e-5, unless --learning_rate or --learning_rates is given."
        },
    )

    def parse(self, recipe_folder: Path) -> "dict[str, Modality]":
        """Name the modalities; raises `ValueError` for flags that do not fit together."""
        from hf_relearn.experiments import Modality
        from hf_relearn.models.configuration_multimodal import KINDS

        kinds = {name: kind or name for name, _, kind in (entry.partition(":") for entry in self.modalities)}
        for name, kind in kinds.items():
            if kind not in KINDS:
                raise ValueError(f"--modalities: {name!r} needs a kind, as '{name}:vision'; one of {', '.join(KINDS)}")
        columns, models = read_pairs("--columns", self.columns, kinds), read_pairs("--models", self.models, kinds)
        if not self.from_scratch:
            needed = {name: models.get(name) for name, kind in kinds.items() if kind not in ("features", "table")}
            examples = [f"{name}={EXAMPLES[kind]}" for name, kind in kinds.items() if kind in EXAMPLES]
            refuse_small_networks(needed, ["--models " + " ".join(examples)])
        output = {}
        for name, kind in kinds.items():
            column = columns.get(name, "image" if name == "vision" else name)
            several = column.split(",") if kind == "table" or (kind == "features" and "," in column) else None
            model = models.get(name, SMALL_BACKBONES.get(kind))
            cells = several if kind == "table" and several else []
            categories = tuple(each for each in self.category_columns or () if each in cells)
            output[name] = Modality(kind, several or column, model and find_backbone(model, recipe_folder), categories)
        in_tables = [column for modality in output.values() if modality.kind == "table" for column in modality.column]
        if unknown := [column for column in self.category_columns or () if column not in in_tables]:
            found = ", ".join(in_tables) or "not there"
            raise ValueError(f"--category_columns names {unknown[0]!r}, but the columns of tables are {found}")
        return output


SMALL_BACKBONES = {
    "audio": "backbones/resnet-tiny-spectrogram",
    "vision": "backbones/resnet-tiny",
    "text": "backbones/bert-tiny",
}
EXAMPLES = {
    "audio": "facebook/wav2vec2-base",
    "vision": "facebook/dinov2-small",
    "video": "MCG-NJU/videomae-base",
    "text": "google-bert/bert-base-uncased",
}
MULTIMODAL: dict[str, Any] = {
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
    "diagnosis_interval": 1,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "logging_strategy": "epoch",
    "output_dir": "outputs/multimodal",
}


# What fits the small networks only: a pretrained backbone of that kind keeps its own.
INPUTS_OF_SMALL = {
    "audio": ("spectrogram_rate", "spectrogram_size", "audio_seconds"),
    "vision": ("image_size",),
    "video": ("image_size",),
}


def defaults(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the flags' defaults for the backbones and the preset chosen."""
    kinds = {name: kind or name for name, _, kind in (entry.partition(":") for entry in chosen.modalities)}
    models = {name: model for name, _, model in (pair.partition("=") for pair in chosen.models or ())}
    pretrained = pretrained_backbones(models, Path(__file__).parent)
    small = {key for name in pretrained for key in INPUTS_OF_SMALL.get(kinds.get(name, ""), ())}
    settings = {key: value for key, value in MULTIMODAL.items() if key not in small}
    return {**settings, **fine_tuning_defaults(chosen, pretrained), **preset_defaults(chosen)}


TYPES = (TableArguments, ModalityArguments, RunArguments, ModelArguments, InputArguments)


def main(
    table: TableArguments,
    mix: ModalityArguments,
    run: RunArguments,
    model: ModelArguments,
    inputs: InputArguments,
    args: "RelearnTrainingArguments",
) -> None:
    # Imported here, since it takes seconds that --help does not need.
    from hf_relearn.experiments import Experiment, run_or_compare, show_progress

    show_progress(args)
    modalities = mix.parse(Path(__file__).parent)
    with args.main_process_first(desc="loading the data set"):
        splits = table.load(modalities, args.seed, needs_test=run.part_of_comparison)
    experiment = Experiment(
        title=f"{', '.join(modalities)}: {table.title}",
        modalities=modalities,
        label_column=table.label_column,
        train=splits["train"],
        evaluation=splits["validation"],
        test=splits.get("test"),
        model=model,
        inputs=inputs,
        card=run.card_info(datasets=table.card_datasets()),
    )
    run_or_compare(experiment, run, args)


if __name__ == "__main__":
    run_recipe(main, TYPES, defaults, __doc__)
