r"""Fine-tune an image and a text backbone, fused, on pictures with texts, diagnosed and re-learnt on the way.

On a small generated data set, in a minute or two on a CPU:

    accelerate launch --quiet recipes/train_image_text.py

Any vision and any text backbone, on a Hub data set, a folder of pictures with metadata, a CSV, JSON or Parquet file:

    accelerate launch --quiet recipes/train_image_text.py --dataset_name me/my-memes \
        --image_column image --text_column caption --label_column label \
        --vision_model_name_or_path facebook/dinov2-small --text_model_name_or_path google-bert/bert-base-uncased

The two towers of a CLIP or SigLIP checkpoint, the text tower frozen, the picture's at a lower learning rate:

    accelerate launch --quiet recipes/train_image_text.py --dataset_name memes.csv \
        --clip_model_name_or_path openai/clip-vit-base-patch32 --freeze text --learning_rates vision=1e-6
"""

import argparse
import logging
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

if TYPE_CHECKING:
    from hf_relearn import RelearnTrainingArguments
    from hf_relearn.experiments import Modality


@dataclass
class ImageTextArguments:
    """Choose the pictures and texts, and their backbones."""

    _argument_group_name: ClassVar[str] = "image and text"

    image_column: str = field(default="image", metadata={"help": "Column with pictures, or paths to them."})
    text_column: str = field(default="text", metadata={"help": "Column with texts."})
    vision_model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Image backbone: a Hub id, a local folder, or a folder with a configuration only (random "
            "weights). Folders are looked for beside the recipe, too."
        },
    )
    text_model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Text backbone, given in the same ways; one without a tokenizer gets the words of the training "
            "part."
        },
    )
    clip_model_name_or_path: str | None = field(
        default=None, metadata={"help": "A CLIP or SigLIP checkpoint whose two towers are taken, in place of both."}
    )
    from_scratch: bool = field(
        default=False,
        metadata={
            "help": "On a data set of your own, train the sample's small networks from random weights where no "
            "backbone is named, at a learning rate that fits them. A pretrained backbone beside one trains at 2e-5."
        },
    )
    sample_dir: str = field(
        default="outputs/sample_pictures", metadata={"help": "Folder of the generated data set, if there is no other."}
    )

    def __post_init__(self) -> None:
        if self.clip_model_name_or_path is not None and (
            self.vision_model_name_or_path is not None or self.text_model_name_or_path is not None
        ):
            raise ValueError(
                "--clip_model_name_or_path gives both towers: leave out --vision_model_name_or_path and "
                "--text_model_name_or_path, or give these two only"
            )

    def modalities(self, recipe_folder: Path, small: bool) -> "dict[str, Modality]":
        """Name the two modalities; a backbone that is not named is a small network, if these are allowed.

        Raises:
            ValueError: if they are not.
        """
        from hf_relearn.experiments import Modality

        models = {
            "vision": self.clip_model_name_or_path or self.vision_model_name_or_path,
            "text": self.clip_model_name_or_path or self.text_model_name_or_path,
        }
        if not small:
            refuse_small_networks(models, PAIRS)
        vision = find_backbone(models["vision"] or "backbones/resnet-tiny", recipe_folder)
        text = find_backbone(models["text"] or "backbones/bert-tiny", recipe_folder)
        return {
            "vision": Modality("vision", self.image_column, vision, flag="--image_column"),
            "text": Modality("text", self.text_column, text, flag="--text_column"),
        }


PAIRS = (
    "--vision_model_name_or_path facebook/dinov2-small --text_model_name_or_path google-bert/bert-base-uncased",
    "--clip_model_name_or_path openai/clip-vit-base-patch32",
)
# For fine-tuning pretrained towers.
IMAGE_TEXT: dict[str, Any] = {
    "num_train_epochs": 6,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "learning_rate": 2e-5,
    "weight_decay": 0.01,
    "warmup_steps": 0.1,
    "image_flip": 0.0,
    "diagnosis_interval": 1,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "logging_strategy": "epoch",
    "output_dir": "outputs/image_text",
}
# For small networks from scratch.
SAMPLE: dict[str, Any] = {
    **IMAGE_TEXT,
    "num_train_epochs": 20,
    "per_device_train_batch_size": 64,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "image_size": 40,
    "output_dir": "outputs/image_text_sample_run",
}


FROM_SCRATCH: dict[str, Any] = {**IMAGE_TEXT, "num_train_epochs": 20, "learning_rate": 1e-3, "warmup_steps": 0}


def defaults(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the flags' defaults for the data and the preset chosen."""
    if chosen.dataset_name and not chosen.from_scratch:
        return {**IMAGE_TEXT, **preset_defaults(chosen)}
    models = {
        "vision": chosen.clip_model_name_or_path or chosen.vision_model_name_or_path,
        "text": chosen.clip_model_name_or_path or chosen.text_model_name_or_path,
    }
    rates = fine_tuning_defaults(chosen, pretrained_backbones(models, Path(__file__).parent))
    return {**(FROM_SCRATCH if chosen.dataset_name else SAMPLE), **rates, **preset_defaults(chosen)}


TYPES = (TableArguments, ImageTextArguments, RunArguments, ModelArguments, InputArguments)


def main(
    table: TableArguments,
    pair: ImageTextArguments,
    run: RunArguments,
    model: ModelArguments,
    inputs: InputArguments,
    args: "RelearnTrainingArguments",
) -> None:
    # Imported here, since it takes seconds that --help does not need.
    from hf_relearn.cards import DatasetFacts
    from hf_relearn.data import PICTURES_CARD_NOTE, PICTURES_NOTICE, build_sample_pictures
    from hf_relearn.experiments import Experiment, run_or_compare, show_progress

    show_progress(args)
    small = table.dataset_name is None or pair.from_scratch
    modalities = pair.modalities(Path(__file__).parent, small)

    notes: tuple[str, ...] = ()
    card = run.card_info(datasets=table.card_datasets())
    if table.dataset_name is None:
        notes = (PICTURES_NOTICE,)
        data = [DatasetFacts("drawn shapes with made-up captions")]
        card = run.card_info(datasets=data, notes=[PICTURES_CARD_NOTE], language=["en"])
        logging.getLogger(__name__).info(PICTURES_NOTICE)
        with args.main_process_first(desc="drawing the pictures"):
            table.dataset_name = str(build_sample_pictures(pair.sample_dir))
    with args.main_process_first(desc="loading the data set"):
        splits = table.load(modalities, args.seed, needs_test=run.part_of_comparison)
    experiment = Experiment(
        title="Image and text: generated shapes" if notes else f"Image and text: {table.title}",
        modalities=modalities,
        label_column=table.label_column,
        train=splits["train"],
        evaluation=splits["validation"],
        test=splits.get("test"),
        model=model,
        inputs=inputs,
        notes=notes,
        card=card,
    )
    run_or_compare(experiment, run, args)


if __name__ == "__main__":
    run_recipe(main, TYPES, defaults, __doc__)
