"""The input that suits a backbone: its own preprocessor, or one made from its configuration."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoTokenizer,
    ImageProcessingMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from .configuration_multimodal import ModalityConfig
from .processing_audio_defaults import audio_settings
from .processing_features import FeaturesInput
from .processing_images import ImageInput, VideoInput
from .processing_modalities import ModalityInput
from .processing_preprocessors import family_of, forward_parameters, taken_inputs
from .processing_sounds import SpectrogramInput, WaveformInput
from .processing_text import TextInput

_LONGEST_TEXT = 512
_UNLIMITED = 10**6  # what tokenizers that know no limit give is far larger
_PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
# What an image processor does to one image: all that is taken over from the settings of a video processor.
_PER_FRAME = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)


def default_input(modality: ModalityConfig, source: Any, options: Mapping[str, Any]) -> ModalityInput:
    """The input of one modality.

    Args:
        modality: the modality's configuration.
        source: what was given to `from_backbones`: for a Hub id or folder, the preprocessor there is taken.
        options: arguments of the input's class that replace the defaults, and `image_size` for images and videos.

    Raises:
        ValueError: if the backbone needs an input that no preprocessor makes, or texts have no tokenizer.
        OSError: for a Hub id without a preprocessor.
    """
    if takes_spectrogram(modality):
        size = _image_size(modality.backbone_config)
        channels = getattr(modality.backbone_config, "num_channels", 3)
        return SpectrogramInput(**{"size": size, "num_channels": channels, **options})
    makers: dict[str, Callable[..., ModalityInput]] = {
        "audio": _waveform_input,
        "vision": _image_input,
        "video": _video_input,
        "text": _text_input,
        "features": _features_input,
    }
    return makers[modality.kind](modality, source, dict(options))


def takes_spectrogram(modality: ModalityConfig) -> bool:
    """Whether a modality's sounds are shown to an image backbone, as log spectrograms."""
    return modality.kind == "audio" and "pixel_values" in (forward_parameters(modality.backbone_config) or ())


def _waveform_input(modality: ModalityConfig, source: Any, options: dict[str, Any]) -> WaveformInput:
    backbone = modality.backbone_config
    if "feature_extractor" not in options:
        options["feature_extractor"] = _pretrained_settings(AutoFeatureExtractor, source) or audio_settings(backbone)
    extractor = WaveformInput(**options).feature_extractor
    names = taken_inputs(backbone, list(extractor.model_input_names), type(extractor).__name__)
    return WaveformInput(**{"input_names": names, **options})


def _image_input(modality: ModalityConfig, source: Any, options: dict[str, Any]) -> ImageInput:
    backbone = modality.backbone_config
    image_size = options.pop("image_size", None)
    settings = options.pop("image_processor", None) or _pretrained_settings(AutoImageProcessor, source)
    if settings is None and family_of(backbone) == "siglip2":  # patches of images in their own proportions
        settings = {"image_processor_type": "Siglip2ImageProcessorPil", "patch_size": backbone.patch_size}
        settings["max_num_patches"] = backbone.num_patches
    elif settings is None or image_size is not None:
        settings = _image_settings(image_size or _image_size(backbone) or 224, settings)
    arguments = {"num_frames": modality.num_frames, "num_channels": _channels(backbone), **options}
    images = ImageInput(settings, **arguments)
    names = taken_inputs(backbone, images.image_processor.model_input_names, type(images.image_processor).__name__)
    return ImageInput(settings, **{"input_names": names, **arguments})


def _video_input(modality: ModalityConfig, source: Any, options: dict[str, Any]) -> VideoInput:
    backbone = modality.backbone_config
    image_size = options.pop("image_size", None)
    settings = options.pop("image_processor", None) or _pretrained_video_settings(source)
    if settings is None or image_size is not None:
        settings = _image_settings(image_size or _image_size(backbone) or 224, settings)
    num_frames = getattr(backbone, "num_frames", None) or getattr(backbone, "frames_per_clip", None)
    names = taken_inputs(backbone, ["pixel_values", "pixel_values_videos"], "the processor")
    arguments = {"num_frames": num_frames, "num_channels": _channels(backbone), "input_name": names[0], **options}
    if arguments["num_frames"] is None:
        raise ValueError(f"{type(backbone).__name__} does not tell how many frames it takes: give num_frames")
    return VideoInput(settings, **arguments)


def _text_input(modality: ModalityConfig, source: Any, options: dict[str, Any]) -> TextInput:
    backbone = modality.backbone_config
    tokenizer = load_tokenizer(options.pop("tokenizer", source))
    vocab_size = getattr(backbone, "vocab_size", None)
    if vocab_size is not None and len(tokenizer) > vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, but the backbone knows {vocab_size}: they do not belong "
            "together"
        )
    made = list(dict.fromkeys([*tokenizer.model_input_names, "attention_mask"]))
    names = taken_inputs(backbone, made, type(tokenizer).__name__)
    return TextInput(tokenizer, **{"max_length": _longest_text(tokenizer, backbone), "input_names": names, **options})


def _features_input(modality: ModalityConfig, source: Any, options: dict[str, Any]) -> FeaturesInput:
    backbone: Any = modality.backbone_config
    of_sequences = getattr(backbone, "architecture", "transformer") == "transformer"
    max_steps = getattr(backbone, "max_position_embeddings", None) if of_sequences else None
    return FeaturesInput(**{"input_size": backbone.input_size, "max_steps": max_steps, **options})


def load_tokenizer(source: Any, **kwargs: Any) -> PreTrainedTokenizerBase:
    """Load a tokenizer, and see that it has a vocabulary.

    Args:
        source: a Hub id or folder, or a tokenizer, which is given back.
        **kwargs: of `AutoTokenizer.from_pretrained`.

    Raises:
        ValueError: if there is none; the message says how to give one.
    """
    if isinstance(source, PreTrainedTokenizerBase):
        return source
    remedy = 'give one as option {"tokenizer": a tokenizer, Hub id or folder} of this modality'
    if source is None or isinstance(source, (PreTrainedConfig, PreTrainedModel)):
        raise ValueError(f"texts need a tokenizer, which a backbone given as {type(source).__name__} lacks: {remedy}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **kwargs)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{source} has no tokenizer ({error}): {remedy}") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # which transformers makes up where there are no files
        raise ValueError(f"{source} has no tokenizer with a vocabulary: {remedy}")
    return tokenizer


def _longest_text(tokenizer: PreTrainedTokenizerBase, backbone: PreTrainedConfig) -> int:
    """Tokens that both can take, 512 at most. Positions of RoBERTa's kind begin after the padding token's number."""
    positions = getattr(backbone, "max_position_embeddings", None)
    if tokenizer.model_max_length < _UNLIMITED:
        return min(tokenizer.model_max_length, positions or _LONGEST_TEXT, _LONGEST_TEXT)
    first = (getattr(backbone, "pad_token_id", None) or 0) + 1
    return min(_LONGEST_TEXT, positions - first if positions and positions > first else _LONGEST_TEXT)


def _channels(backbone: PreTrainedConfig) -> int:
    return getattr(backbone, "num_channels", None) or getattr(backbone, "in_chans", None) or 3


def _image_size(backbone: PreTrainedConfig) -> list[int] | None:
    size = getattr(backbone, "image_size", None) or getattr(backbone, "crop_size", None)
    if size is None:
        return None
    return list(size) if isinstance(size, (list, tuple)) else [size, size]


def _pretrained_settings(auto_class: Any, source: Any) -> dict[str, Any] | None:
    """Settings of the preprocessor beside a pretrained backbone; None where there is none."""
    if not _may_hold(source, _PREPROCESSOR_FILES):
        return None
    try:
        return json.loads(auto_class.from_pretrained(source).to_json_string())  # lists, where to_dict has tuples
    except ImportError:  # some releases offer AutoImageProcessor with torchvision only; the file says enough
        settings, _ = ImageProcessingMixin.get_image_processor_dict(source)
        name = settings.get("image_processor_type") or settings.get("feature_extractor_type", "")
        name = name.removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
        return {**settings, "image_processor_type": name}


def _pretrained_video_settings(source: Any) -> dict[str, Any] | None:
    """Settings of an image processor that does to a frame what the pretrained backbone's own processor does."""
    own_file = "video_preprocessor_config.json"
    if not _may_hold(source, (own_file, *_PREPROCESSOR_FILES)):
        return None
    path = cached_file(source, own_file, _raise_exceptions_for_missing_entries=False)
    if path is not None:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
    else:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(source)
    chosen = {name: settings[name] for name in _PER_FRAME if settings.get(name) is not None}
    kind = settings.get("image_processor_type") or settings.get("video_processor_type") or ""
    if kind.startswith("Vivit") and settings.get("offset", True):  # which subtracts 1 before it normalises
        chosen["image_mean"] = [mean + 1 for mean in settings["image_mean"]]
    return {"image_processor_type": "ViTImageProcessorPil", **chosen}


def _may_hold(source: Any, names: Sequence[str]) -> bool:
    """Whether a preprocessor can be looked for: beside a Hub id, or a folder that has one of the files."""
    if isinstance(source, (PreTrainedConfig, PreTrainedModel, type(None))):
        return False
    return not Path(source).is_dir() or any((Path(source) / name).is_file() for name in names)


def _image_settings(image_size: int | Sequence[int], pretrained: dict[str, Any] | None) -> dict[str, Any]:
    """Plain resizing to a size and scaling to [-1, 1], or a pretrained preprocessor with another size."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    size = {"height": height, "width": width}
    if pretrained is not None:
        crop = {"crop_size": size} if pretrained.get("crop_size") else {}
        return {**pretrained, "size": size, **crop}
    scaling = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return {"image_processor_type": "ViTImageProcessorPil", "size": size, **scaling}
