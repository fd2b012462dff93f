r"""Train an audio-visual emotion model on CREMA-D, diagnosed and re-learnt on the way, with a report.

On a small synthetic stand-in, in minutes on a CPU:

    accelerate launch --quiet recipes/train_cremad.py

On the real data (a clone with AudioWAV/ and VideoFlash/, after `git lfs pull`), with the split lists of the field:

    accelerate launch --quiet recipes/train_cremad.py --data_dir CREMA-D \
        --train_file my_train.csv --validation_file val.csv --test_file test.csv

Five folds of actors, of which this run tests on the second:

    accelerate launch recipes/train_cremad.py --data_dir CREMA-D --folds 5 --fold 2

As published, with a held-out part, beside both baselines:

    accelerate launch --quiet recipes/train_cremad.py --data_dir CREMA-D --preset paper --compare
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
    find_backbone,
    preset_defaults,
    run_recipe,
)

if TYPE_CHECKING:
    from hf_relearn import RelearnTrainingArguments


@dataclass
class DataArguments:
    """Choose CREMA-D, or the synthetic stand-in."""

    _argument_group_name: ClassVar[str] = "data"

    data_dir: str | None = field(
        default=None,
        metadata={"help": "A CREMA-D clone with AudioWAV/ and VideoFlash/; unset, a synthetic stand-in is made."},
    )
    train_file: str | None = field(default=None, metadata={"help": "CSV list `name,label` of the training clips."})
    validation_file: str | None = field(default=None, metadata={"help": "The same for validation."})
    test_file: str | None = field(default=None, metadata={"help": "The same for test. Without lists: by actor."})
    validation_fraction: float = field(
        default=0.2, metadata={"help": "Share of the actors in validation where there is no list."}
    )
    test_fraction: float = field(default=0.2, metadata={"help": "The same for test."})
    folds: int | None = field(
        default=None,
        metadata={
            "help": "Deal the actors to so many folds, with as many women and men in each if the clone has "
            "VideoDemographics.csv: one fold is the test part and the next one validation. In place of lists and "
            "fractions."
        },
    )
    fold: int = field(default=1, metadata={"help": "The fold that is the test part, from 1 to --folds."})
    cache_dir: str | None = field(
        default=None, metadata={"help": "Folder for prepared data; unset, the cache of `datasets`."}
    )
    frames_per_second: float = field(default=2.0, metadata={"help": "Rate at which frames are kept."})
    num_proc: int | None = field(default=None, metadata={"help": "Processes that prepare the data."})
    max_unreadable_share: float = field(
        default=0.01, metadata={"help": "Share of unreadable clips above which the run stops."}
    )
    sample_dir: str = field(default="outputs/cremad_sample", metadata={"help": "Folder of the stand-in."})


@dataclass
class BackboneArguments:
    """Choose one audio and one image backbone."""

    _argument_group_name: ClassVar[str] = "backbones"

    audio_model_name_or_path: str = field(
        default="backbones/resnet-18-spectrogram",
        metadata={
            "help": "Audio backbone: a Hub id, a local folder, or a folder with a configuration only (random "
            "weights). An image backbone sees a log spectrogram. Folders are looked for beside the recipe, too."
        },
    )
    vision_model_name_or_path: str = field(
        default="backbones/resnet-18", metadata={"help": "Image backbone, given in the same ways."}
    )


# The settings of the paper's code; it has neither warm-up nor clipping.
CREMAD: dict[str, Any] = {
    "num_train_epochs": 90,
    "per_device_train_batch_size": 64,
    "per_device_eval_batch_size": 64,
    "learning_rate": 2e-3,
    "optim": "sgd",
    "optim_args": "momentum=0.9",
    "weight_decay": 1e-4,
    "lr_scheduler_type": "constant",
    "num_frames": 2,
    "image_size": 224,
    "dataloader_num_workers": 4,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "logging_strategy": "epoch",
    "output_dir": "outputs/cremad",
}
SAMPLE: dict[str, Any] = {
    **CREMAD,
    "audio_model_name_or_path": "backbones/resnet-tiny-spectrogram",
    "vision_model_name_or_path": "backbones/resnet-tiny",
    "num_train_epochs": 24,
    "per_device_train_batch_size": 32,
    "learning_rate": 1e-3,
    "optim": "adamw_torch",
    "optim_args": None,
    "lr_scheduler_type": "linear",
    "image_size": 48,
    "spectrogram_rate": 16000,
    "spectrogram_size": [64, 64],
    "audio_seconds": 2.0,
    "diagnosis_interval": 2,
    "dataloader_num_workers": 0,
    "output_dir": "outputs/cremad_sample_run",
}


def defaults(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the flags' defaults for the data and the preset chosen."""
    return {**(CREMAD if chosen.data_dir else SAMPLE), **preset_defaults(chosen)}


TYPES = (DataArguments, RunArguments, BackboneArguments, ModelArguments, InputArguments)


def main(
    data: DataArguments,
    run: RunArguments,
    backbones: BackboneArguments,
    model: ModelArguments,
    inputs: InputArguments,
    args: "RelearnTrainingArguments",
) -> None:
    # Imported here, since it takes seconds that --help does not need.
    from hf_relearn.cards import DatasetFacts
    from hf_relearn.data import SAMPLE_CARD_NOTE, SAMPLE_NOTICE, build_sample_corpus, prepare_cremad, split_cremad
    from hf_relearn.experiments import Experiment, Modality, run_or_compare, show_progress

    show_progress(args)

    notes: tuple[str, ...] = ()
    card = run.card_info(datasets=[DatasetFacts("CREMA-D")], language=["en"])
    if data.data_dir is None:
        notes = (SAMPLE_NOTICE,)
        card = run.card_info(datasets=[DatasetFacts("a synthetic stand-in for CREMA-D")], notes=[SAMPLE_CARD_NOTE])
        logging.getLogger(__name__).info(SAMPLE_NOTICE)
        with args.main_process_first(desc="building the stand-in"):
            data.data_dir = str(build_sample_corpus(data.sample_dir, num_actors=30, num_sentences=4))
    with args.main_process_first(desc="preparing the clips"):
        clips = prepare_cremad(
            data.data_dir,
            data.cache_dir,
            frames_per_second=data.frames_per_second,
            num_proc=data.num_proc,
            max_unreadable_share=data.max_unreadable_share,
        )
    splits = split_cremad(
        clips,
        train_file=data.train_file,
        validation_file=data.validation_file,
        test_file=data.test_file,
        seed=args.seed,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction,
        folds=data.folds,
        fold=data.fold,
        demographics_file=Path(data.data_dir) / "VideoDemographics.csv",
    )

    recipes = Path(__file__).parent
    modalities = {
        "audio": Modality("audio", "audio", find_backbone(backbones.audio_model_name_or_path, recipes)),
        "vision": Modality("vision", "frames", find_backbone(backbones.vision_model_name_or_path, recipes)),
    }
    experiment = Experiment(
        title="CREMA-D: a synthetic stand-in" if notes else "CREMA-D",
        modalities=modalities,
        label_column="label",
        train=splits["train"],
        evaluation=splits["validation"],
        test=splits["test"],
        model=model,
        inputs=inputs,
        notes=notes,
        card=card,
    )
    run_or_compare(experiment, run, args)


if __name__ == "__main__":
    run_recipe(main, TYPES, defaults, __doc__)
