"""The recipes' flags of the model and of its inputs."""

import argparse
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from hf_relearn.pairs import read_pairs

if TYPE_CHECKING:
    from hf_relearn.models import Augmentation

FUSIONS = ("concat", "sum", "gated", "film", "low_rank", "cross_attention", "bottleneck")


@dataclass
class ModelArguments:
    """Choose how the encoders are loaded and fused."""

    _argument_group_name: ClassVar[str] = "model"

    use_modalities: list[str] | None = field(
        default=None,
        metadata={
            "help": "Train on these modalities only; a single one is classified without a fusion. Unset, all of them."
        },
    )
    encoders_from: list[str] | None = field(
        default=None,
        metadata={
            "help": "Start encoders from those of models that were saved with the same backbones, as 'audio=FOLDER "
            "vision=FOLDER'."
        },
    )
    fusion: str = field(
        default="concat",
        metadata={
            "help": "Fusion of the modalities: late, from one feature each ('concat', 'sum', 'gated', 'film', "
            "'low_rank'), or from their tokens ('cross_attention', 'bottleneck').",
            "choices": list(FUSIONS),
        },
    )
    fusion_options: list[str] | None = field(
        default=None,
        metadata={"help": "Options of the fusion, as 'hidden_size=128 num_layers=2'; unset, the fusion's defaults."},
    )
    pooling: list[str] | None = field(
        default=None,
        metadata={
            "help": "Pooling of a backbone's output to one feature, per modality, as 'text=cls vision=mean'; unset, "
            "what suits each backbone."
        },
    )
    missing_placeholder: str = field(
        default="zero",
        metadata={
            "help": "Placeholder for a missing modality: zeros, or a learnt vector.",
            "choices": ["zero", "learnt"],
        },
    )
    unimodal_loss_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the loss of one linear head per modality on its own feature (0: no heads)."},
    )
    classifier_dropout: float = field(default=0.0, metadata={"help": "Dropout before the classifier."})
    regression_loss: str = field(
        default="mse",
        metadata={
            "help": "Loss of a regression: mean squared ('mse') or absolute error ('l1') of standardised targets.",
            "choices": ["mse", "l1"],
        },
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention of every tower that has a choice: 'eager', 'sdpa' or another."}
    )
    dtype: str = field(
        default="float32",
        metadata={"help": "Type of the weights. For mixed precision keep float32 and give --bf16 or --fp16."},
    )

    def build_kwargs(self, names: Collection[str]) -> dict[str, Any]:
        """Return keyword arguments of `from_backbones`, without the backbones' kinds.

        Raises:
            ValueError: for a flag that is not of the form `NAME=VALUE`, or names no modality.
        """
        poolings = read_pairs("--pooling", self.pooling, names)
        backbone_kwargs = {"dtype": self.dtype}
        if self.attn_implementation is not None:
            backbone_kwargs["attn_implementation"] = self.attn_implementation
        return {
            "fusion": self.fusion,
            "fusion_kwargs": {key: yaml.safe_load(value) for key, value in self._fusion_options().items()},
            "modality_options": {name: {"pooling": pooling} for name, pooling in poolings.items()},
            "missing_placeholder": self.missing_placeholder,
            "unimodal_loss_weight": self.unimodal_loss_weight,
            "classifier_dropout": self.classifier_dropout,
            "backbone_kwargs": backbone_kwargs,
        }

    def _fusion_options(self) -> dict[str, str]:
        return read_pairs("--fusion_options", self.fusion_options)


@dataclass
class InputArguments:
    """Choose how raw samples become the backbones' inputs, by kind of modality."""

    _argument_group_name: ClassVar[str] = "inputs"

    num_frames: int = field(
        default=1, metadata={"help": "Images of a sample that an image backbone sees; its features are averaged."}
    )
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
    max_text_length: int | None = field(
        default=None, metadata={"help": "Tokens that a text is cut to; unset, what the text backbone can take."}
    )
    max_feature_steps: int | None = field(
        default=None, metadata={"help": "Steps that a sequence of given features is cut to; unset, not cut."}
    )
    augment: bool = field(default=True, metadata={"help": "Augment the images and sounds of training batches."})
    image_crop_scale: float = field(
        default=0.7, metadata={"help": "Smallest share of an image's area that a random crop keeps (1: no crop)."}
    )
    image_flip: float = field(default=0.5, metadata={"help": "Probability of mirroring an image."})

    def __post_init__(self) -> None:
        if self.spectrogram_size is not None and len(self.spectrogram_size) != 2:
            raise ValueError(f"--spectrogram_size takes height and width, but got {self.spectrogram_size}")

    def augmentation(self) -> "Augmentation | None":
        """Build the augmentation of training batches."""
        from hf_relearn.models import Augmentation

        if not self.augment:
            return None
        return Augmentation(image_crop_scale=self.image_crop_scale, image_flip=self.image_flip)


def find_backbone(name: str, recipe_folder: Path) -> str:
    """Return a Hub id, or a folder, given relative to the working directory or to the recipe."""
    beside = recipe_folder / name
    return str(beside) if not Path(name).is_dir() and beside.is_dir() else name


def pretrained_backbones(models: Mapping[str, str | None], recipe_folder: Path) -> list[str]:
    """Return the modalities whose backbone has weights: a Hub id, or a folder that holds more than a configuration."""
    named = {name: Path(find_backbone(model, recipe_folder)) for name, model in models.items() if model}
    return [name for name, path in named.items() if not path.is_dir() or any(path.glob("*.safetensors"))]


def fine_tuning_defaults(chosen: argparse.Namespace, pretrained: Iterable[str]) -> dict[str, Any]:
    """Return defaults that keep pretrained encoders from a learning rate that fits networks from scratch.

    Nothing if `--learning_rate` or `--learning_rates` is given. Encoders that `--freeze` names have no rate.

    Args:
        chosen: the flags.
        pretrained: modalities with a pretrained backbone.
    """
    given = chosen.learning_rates or chosen.learning_rate != _UNSET_RATE
    trained = [name for name in pretrained if name not in (chosen.freeze or ())]
    if given or not trained:
        return {}
    return {"learning_rates": [f"{name}={FINE_TUNING_RATE}" for name in trained], "warmup_steps": 0.1}


FINE_TUNING_RATE = "2e-5"
_UNSET_RATE = 5e-5  # of transformers


def refuse_small_networks(models: Mapping[str, str | None], examples: Iterable[str]) -> None:
    """Refuse to train small random networks on somebody's own data without being asked to.

    Args:
        models: modality -> its backbone, None if none is named.
        examples: flags that name pretrained ones.

    Raises:
        ValueError: if a backbone is not named.
    """
    if unnamed := [name for name, model in models.items() if model is None]:
        raise ValueError(
            f"no backbone is named for {', '.join(unnamed)}: name pretrained ones, as {', or '.join(examples)}; or "
            "train small networks from random weights, with --from_scratch"
        )


def merge_options(*options: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the options by modality, from several mappings; later ones win."""
    merged: dict[str, dict[str, Any]] = {}
    for mapping in options:
        for name, values in mapping.items():
            merged.setdefault(name, {}).update(values)
    return merged
