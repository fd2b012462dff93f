"""The processor: raw sounds and images of a batch to the fusion model's inputs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import (
    ASTFeatureExtractor,
    AutoFeatureExtractor,
    AutoImageProcessor,
    BatchFeature,
    ImageProcessingMixin,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    Wav2Vec2FeatureExtractor,
)

from .configuration_multimodal import ModalityConfig, MultimodalConfig, check_modality_name
from .processing_augmentation import Augmentation
from .processing_media import MediaError
from .processing_modalities import INPUT_TYPES, ImageInput, ModalityInput, SpectrogramInput, WaveformInput


class MultimodalProcessor(ProcessorMixin):
    """Turns raw values, per modality, into the flat inputs of `MultimodalForClassification`.

    Args:
        modalities: modality name -> settings, which name their `type` (`image`, `waveform` or `spectrogram`) and hold
            the arguments of that type's class.

    Raises:
        ValueError: for an unknown type, or a name that cannot be a prefix.
    """

    # `Trainer` reads the special tokens of a processor's tokenizer, and here there may be none to read.
    tokenizer = SimpleNamespace(eos_token_id=None, bos_token_id=None, pad_token_id=None, init_kwargs={})

    def __init__(self, modalities: Mapping[str, Mapping[str, Any]]):
        self.modalities = {name: dict(settings) for name, settings in modalities.items()}
        self.inputs: dict[str, ModalityInput] = {}
        for name, settings in self.modalities.items():
            check_modality_name(name)  # it may become part of a path, and the settings may be a stranger's
            arguments = dict(settings)
            input_type = arguments.pop("type", None)
            if input_type not in INPUT_TYPES:
                raise ValueError(
                    f"modality {name!r}: unknown type of input {input_type!r}; known are {', '.join(INPUT_TYPES)}"
                )
            self.inputs[name] = INPUT_TYPES[input_type](**arguments)
        self.chat_template = None

    def __call__(self, values: Mapping[str, Sequence[Any]], augmentation: Augmentation | None = None) -> BatchFeature:
        """Process a batch.

        Args:
            values: modality -> one raw value per sample: sounds (see `load_audio`), images or lists of images (see
                `load_image`).
            augmentation: what to do to the raw values first; None for evaluation.

        Returns:
            `{modality}_{argument of the backbone}` -> tensor with the batch first.

        Raises:
            ValueError: for a modality that is unknown or missing.
            MediaError: for a value that cannot be decoded; the message names the modality and, where known, the file.
        """
        if set(values) != set(self.inputs):
            raise ValueError(
                f"the processor has the modalities {', '.join(self.inputs)}, but got {', '.join(values) or 'none'}"
            )
        batch = {}
        for name, modality_input in self.inputs.items():
            try:
                tensors = modality_input(values[name], augmentation)
            except MediaError as error:
                raise MediaError(f"modality {name!r}: {error}") from error
            batch.update({f"{name}_{argument}": tensor for argument, tensor in tensors.items()})
        return BatchFeature(batch)

    @property
    def model_input_names(self) -> list[str]:
        """Prefixes tell which modality an input belongs to; the arguments follow from the backbones."""
        return [f"{name}_" for name in self.inputs]

    @classmethod
    def from_model(
        cls,
        config: MultimodalConfig,
        backbones: Mapping[str, Any] | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> "MultimodalProcessor":
        """Build the processor that a model's backbones expect.

        Args:
            config: the model's configuration.
            backbones: what was given to `from_backbones`; for a Hub id or folder that carries a preprocessor, its
                settings are taken. Other backbones get defaults from their configuration.
            options: modality -> arguments that replace those of its input class (`ImageInput`, `WaveformInput`,
                `SpectrogramInput`), and `image_size` for images.

        Raises:
            ValueError: for options of an unknown modality.
            OSError: for a Hub id without a preprocessor; give its settings in `options` (`image_processor` or
                `feature_extractor`).
        """
        options = options or {}
        if unknown := set(options) - set(config.modalities):
            raise ValueError(f"options for {sorted(unknown)}, but the modalities are {list(config.modalities)}")
        modalities = {}
        for name, modality in config.modalities.items():
            source = (backbones or {}).get(name)
            chosen = dict(options.get(name, {}))
            modality_input = default_input(modality, source, chosen)
            modalities[name] = {"type": modality_input.type, **modality_input.settings}
        return cls(modalities)


def default_input(modality: ModalityConfig, source: Any, options: dict[str, Any]) -> ModalityInput:
    """The input of one modality: the pretrained backbone's own preprocessor, or one made from its configuration."""
    backbone = modality.backbone_config
    channels = getattr(backbone, "num_channels", 3)
    if takes_spectrogram(modality):
        options.setdefault("size", _image_size(backbone))
        return SpectrogramInput(num_channels=channels, **options)
    if modality.kind == "audio":
        if "feature_extractor" not in options:
            extractor = _pretrained_settings(AutoFeatureExtractor, source) or _audio_settings(backbone)
            options["feature_extractor"] = extractor
        return WaveformInput(**options)
    image_size = options.pop("image_size", None)
    settings = options.pop("image_processor", None) or _pretrained_settings(AutoImageProcessor, source)
    if settings is None or image_size is not None:
        settings = _image_settings(image_size or _image_size(backbone) or 224, settings)
    arguments = {"num_frames": modality.num_frames, "num_channels": channels, **options}
    return ImageInput(image_processor=settings, **arguments)


def takes_spectrogram(modality: ModalityConfig) -> bool:
    """Whether a modality's sounds are shown to an image backbone, as log spectrograms."""
    backbone = modality.backbone_config
    sees_images = hasattr(backbone, "num_channels") and not hasattr(backbone, "num_mel_bins")
    return modality.kind == "audio" and sees_images


def _image_size(backbone: PreTrainedConfig) -> list[int] | None:
    size = getattr(backbone, "image_size", None)
    if size is None:
        return None
    return list(size) if isinstance(size, (list, tuple)) else [size, size]


def _pretrained_settings(auto_class: Any, source: Any) -> dict[str, Any] | None:
    """Settings of the preprocessor beside a pretrained backbone; None where there is none."""
    if isinstance(source, (PreTrainedConfig, PreTrainedModel, type(None))):
        return None
    if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in _PREPROCESSOR_FILES):
        return None
    try:
        return json.loads(auto_class.from_pretrained(source).to_json_string())  # lists, where to_dict has tuples
    except ImportError:  # some releases offer AutoImageProcessor with torchvision only; the file says enough
        settings, _ = ImageProcessingMixin.get_image_processor_dict(source)
        name = settings.get("image_processor_type") or settings.get("feature_extractor_type", "")
        name = name.removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
        return {**settings, "image_processor_type": name}


_PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


def _image_settings(image_size: int | Sequence[int], pretrained: dict[str, Any] | None) -> dict[str, Any]:
    """Plain resizing to a size and scaling to [-1, 1], or a pretrained preprocessor with another size."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    size = {"height": height, "width": width}
    if pretrained is not None:
        crop = {"crop_size": size} if pretrained.get("crop_size") else {}
        return {**pretrained, "size": size, **crop}
    scaling = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return {"image_processor_type": "ViTImageProcessorPil", "size": size, **scaling}


def _audio_settings(backbone: PreTrainedConfig) -> dict[str, Any]:
    if hasattr(backbone, "num_mel_bins"):
        return ASTFeatureExtractor(max_length=backbone.max_length, num_mel_bins=backbone.num_mel_bins).to_dict()
    # Backbones with group normalisation were pretrained without a mask.
    mask = getattr(backbone, "feat_extract_norm", "layer") == "layer"
    return Wav2Vec2FeatureExtractor(return_attention_mask=mask).to_dict()
