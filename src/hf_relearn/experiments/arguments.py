"""The flags that all recipes share: what model, which preset, what to compare."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hf_relearn.cards import CardInfo
from hf_relearn.models import Augmentation

# The method's settings. What a model and a data set need (epochs, learning rate) is set by each recipe.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "unimodal_loss_weight": 0.0,
        "relearn_alpha": None,
        "relearn_lambda": 3.0,
        "diagnosis_source": "holdout",
        "diagnosis_sampling": "all",
    },
    "balanced": {
        "unimodal_loss_weight": 1.0,
        "relearn_alpha": "0.9",
        "diagnosis_source": "eval",
        "diagnosis_sampling": "matched",
    },
}


@dataclass
class RunArguments:
    """What to run."""

    _argument_group_name: ClassVar[str] = "run"

    preset: str = field(
        default="balanced",
        metadata={
            "help": "'balanced': uni-modal heads and a constant strength of 0.9, with the evaluation set as "
            "diagnosing part, which costs no training data; for a good model where joint training over-fits. "
            "'paper': the diagnosed strength with a held-out diagnosing part and no heads, as published; to "
            "reproduce the method. Single flags override a preset, and --compare tells which helps.",
            "choices": sorted(PRESETS),
        },
    )
    compare: bool = field(
        default=False,
        metadata={
            "help": "Train from the same seed the joint model on the training part, the joint model on training and "
            "diagnosing part, uni-modal heads alone (if the run has heads) and the re-learnt model, and put them side "
            "by side in comparison.md."
        },
    )
    license: str | None = field(
        default=None,
        metadata={"help": "Licence of the model, for its card: an identifier of the Hub such as apache-2.0."},
    )
    language: list[str] | None = field(
        default=None, metadata={"help": "Languages in the data, for the model card: ISO 639 codes such as en."}
    )

    def __post_init__(self) -> None:
        self.card_info()

    def card_info(self, **facts: Any) -> CardInfo:
        """What the model card has to be told: the flags above, and other fields of `CardInfo`."""
        if self.language:
            facts["language"] = self.language
        return CardInfo(license=self.license, **facts)


@dataclass
class ModelArguments:
    """The fusion model: one audio and one image backbone."""

    _argument_group_name: ClassVar[str] = "model"

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
    unimodal_loss_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the loss of one linear head per modality on its own feature (0: no heads)."},
    )
    classifier_dropout: float = field(default=0.0, metadata={"help": "Dropout before the classifier."})
    num_frames: int = field(default=1, metadata={"help": "Images of a sample that the image backbone sees."})
    image_size: int | None = field(
        default=None, metadata={"help": "Side of the images in pixels; unset, the backbone's own."}
    )
    audio_seconds: float = field(
        default=3.0, metadata={"help": "Seconds of sound that a sample is cut (or, as a spectrogram, repeated) to."}
    )
    spectrogram_rate: int = field(
        default=22050, metadata={"help": "Rate in Hz that sounds are resampled to before their spectrogram."}
    )
    spectrogram_size: list[int] | None = field(
        default=None,
        metadata={"help": "Height and width that spectrograms are resized to; unset, their own (257 by 188 for 3 s)."},
    )
    augment: bool = field(default=True, metadata={"help": "Augment training batches."})
    image_crop_scale: float = field(
        default=0.7, metadata={"help": "Smallest share of an image's area that a random crop keeps (1: no crop)."}
    )
    image_flip: float = field(default=0.5, metadata={"help": "Probability of mirroring an image."})

    def __post_init__(self) -> None:
        if self.spectrogram_size is not None and len(self.spectrogram_size) != 2:
            raise ValueError(f"--spectrogram_size takes height and width, but got {self.spectrogram_size}")

    def backbones(self, recipe_folder: Path) -> dict[str, str]:
        """Modality -> Hub id or folder; a folder may be given relative to the working directory or to the recipe."""
        names = {"audio": self.audio_model_name_or_path, "vision": self.vision_model_name_or_path}
        beside = {modality: recipe_folder / name for modality, name in names.items()}
        return {
            modality: str(beside[modality]) if not Path(name).is_dir() and beside[modality].is_dir() else name
            for modality, name in names.items()
        }

    def augmentation(self) -> Augmentation | None:
        """What training batches get."""
        if not self.augment:
            return None
        return Augmentation(image_crop_scale=self.image_crop_scale, image_flip=self.image_flip)
