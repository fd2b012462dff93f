"""One modality of a recipe: its column, its backbone, and the options of model and processor that follow."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import AutoConfig

from hf_relearn.experiments.model_arguments import InputArguments
from hf_relearn.experiments.word_tokenizer import build_word_tokenizer
from hf_relearn.models import FeaturesConfig, ModalityConfig
from hf_relearn.models.processing_features import FeaturesInput
from hf_relearn.models.processing_multimodal import takes_spectrogram
from hf_relearn.training.collator import vector_of

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "spiece.model", "tokenizer.model")


@dataclass(frozen=True)
class Modality:
    """What a recipe's flags say of one modality.

    Args:
        kind: `"audio"`, `"vision"`, `"video"`, `"text"` or `"features"`.
        column: of the data set; for features also a list of columns with one number each.
        backbone: Hub id or folder. None is possible for features: a new encoder that fits the data.
    """

    kind: str
    column: str | list[str]
    backbone: str | None

    def build_backbone(self, name: str, train: Dataset) -> Any:
        """What `from_backbones` takes.

        Raises:
            ValueError: if there is no backbone, and none can be made from the training part.
        """
        if self.backbone is not None:
            return self.backbone
        first = next((value for value in self._values(name, train) if value is not None), None)
        if self.kind != "features" or first is None:
            raise ValueError(f"the modality {name!r} has no model: give one (a Hub id or a folder)")
        shape = np.shape(first)
        return FeaturesConfig(input_size=shape[-1], architecture="transformer" if len(shape) == 2 else "mlp")

    def model_options(self, inputs: InputArguments) -> dict[str, Any]:
        """The modality's options for `from_backbones`."""
        frames = {"num_frames": inputs.num_frames} if self.kind == "vision" and inputs.num_frames > 1 else {}
        return {"kind": self.kind, **frames}

    def processor_options(
        self, name: str, config: ModalityConfig, inputs: InputArguments, train: Dataset
    ) -> dict[str, Any]:
        """The modality's options for `MultimodalProcessor.from_model`.

        A text backbone without a tokenizer of its own gets one with the words of the training part; features are
        standardised by the training part's mean and deviation.
        """
        options: dict[str, Any] = {}
        if self.kind == "audio" and takes_spectrogram(config):
            options = {"seconds": inputs.audio_seconds, "sampling_rate": inputs.spectrogram_rate}
            options |= {"size": inputs.spectrogram_size} if inputs.spectrogram_size else {}
        elif self.kind == "audio":
            options = {"max_seconds": inputs.audio_seconds}
        elif self.kind in ("vision", "video") and inputs.image_size:
            options = {"image_size": inputs.image_size}
        elif self.kind == "text":
            options = {"max_length": inputs.max_text_length} if inputs.max_text_length else {}
            if self.backbone is not None and _lacks_tokenizer(Path(self.backbone)):
                backbone = AutoConfig.from_pretrained(self.backbone)
                options["tokenizer"] = build_word_tokenizer(
                    self._values(name, train), backbone.vocab_size, backbone.max_position_embeddings
                )
        elif self.kind == "features":
            options = dict(FeaturesInput.statistics(self._values(name, train)))
            options |= {"max_steps": inputs.max_feature_steps} if inputs.max_feature_steps else {}
        return options

    def _values(self, name: str, train: Dataset) -> Iterator[Any]:
        """The raw values of the modality in the training part, one at a time."""
        if isinstance(self.column, str):
            return iter(train[self.column])
        return (vector_of(row, self.column, name) for row in train.select_columns(self.column))


def _lacks_tokenizer(folder: Path) -> bool:
    return folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZER_FILES)


def columns_of(modalities: Mapping[str, Modality]) -> dict[str, str | list[str]]:
    """Modality -> column, as the collator takes it."""
    return {name: modality.column for name, modality in modalities.items()}
