"""The input that suits a backbone: its own preprocessor, or one made from its configuration."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import transformers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

from .configuration_multimodal import ModalityConfig
from .modeling_backbones import backbone_skeleton
from .modeling_towers import backbone_input_names
from .processing_features import FeaturesInput
from .processing_images import ImageInput, VideoInput
from .processing_pretrained import (
    family_of,
    load_tokenizer,
    pretrained_audio_settings,
    pretrained_image_settings,
    pretrained_video_settings,
    taken_inputs,
)
from .processing_sounds import SpectrogramInput, WaveformInput
from .processing_table import TableInput
from .processing_text import TextInput

ModalityInput = ImageInput | VideoInput | WaveformInput | SpectrogramInput | TextInput | FeaturesInput | TableInput
INPUT_TYPES: dict[str, type] = {
    cls.type: cls
    for cls in (ImageInput, VideoInput, WaveformInput, SpectrogramInput, TextInput, FeaturesInput, TableInput)
}


def audio_settings(backbone: PreTrainedConfig, main_input: str) -> dict[str, Any]:
    """Return the settings of a feature extractor of transformers, with its class name under `feature_extractor_type`.

    Args:
        backbone: the backbone's configuration.
        main_input: what its forward calls its input.

    Raises:
        ValueError: if no extractor belongs to the backbone's family, or none makes sounds that the configuration asks
            for.
    """
    name = _extractor_of(backbone, main_input)
    if name is None:
        raise ValueError(
            f"transformers has no feature extractor for {type(backbone).__name__}: give the settings of one "
            '(option "feature_extractor")'
        )
    arguments = _ARGUMENTS.get(name, lambda backbone: {})(backbone)
    return json.loads(getattr(transformers, name)(**arguments).to_json_string())


def _extractor_of(backbone: PreTrainedConfig, main_input: str) -> str | None:
    """Return the class that AutoFeatureExtractor has for the backbone, or for the model that a tower belongs to."""
    if family_of(backbone) == "wav2vec2_bert" and main_input == "input_features":
        return "SeamlessM4TFeatureExtractor"
    names = FEATURE_EXTRACTOR_MAPPING_NAMES
    family = (name for kind, name in names.items() if model_type_to_module_name(kind) == family_of(backbone))
    return names.get(backbone.model_type) or next(family, None)


def _ast(backbone: Any) -> dict[str, Any]:
    return {"max_length": backbone.max_length, "num_mel_bins": backbone.num_mel_bins}


def _wav2vec2(backbone: Any) -> dict[str, Any]:
    # Backbones with group normalisation were pretrained without a mask.
    return {"return_attention_mask": getattr(backbone, "feat_extract_norm", "layer") == "layer"}


def _seamless(backbone: Any) -> dict[str, Any]:
    bins = getattr(backbone, "feature_projection_input_dim", 160) // 2  # two neighbouring frames are one step
    return {"num_mel_bins": bins, "feature_size": bins}


def _whisper(backbone: Any) -> dict[str, Any]:
    seconds = backbone.max_source_positions / 50  # the encoder takes no other length
    return {"feature_size": backbone.num_mel_bins, "chunk_length": int(seconds) if seconds.is_integer() else seconds}


def _clap(backbone: Any) -> dict[str, Any]:
    longest = backbone.spec_size * (backbone.spec_size // backbone.num_mel_bins)  # frames of 10 ms
    return {
        "feature_size": backbone.num_mel_bins,
        "truncation": "fusion" if backbone.enable_fusion else "rand_trunc",
        "max_length_s": max(1, min(10, (longest - 1) // 100)),
    }


def _encodec(backbone: Any) -> dict[str, Any]:
    if backbone.audio_channels != 1:
        raise ValueError(f"the backbone takes {backbone.audio_channels} channels, but sounds are decoded to one")
    return {"sampling_rate": backbone.sampling_rate}


def _dac(backbone: Any) -> dict[str, Any]:
    return {"sampling_rate": backbone.sampling_rate, "hop_length": backbone.hop_length}


def _speech_to_text(backbone: Any) -> dict[str, Any]:
    bins = backbone.input_feat_per_channel
    return {"num_mel_bins": bins, "feature_size": bins}


_ARGUMENTS = {
    "ASTFeatureExtractor": _ast,
    "Wav2Vec2FeatureExtractor": _wav2vec2,
    "SeamlessM4TFeatureExtractor": _seamless,
    "WhisperFeatureExtractor": _whisper,
    "ClapFeatureExtractor": _clap,
    "EncodecFeatureExtractor": _encodec,
    "DacFeatureExtractor": _dac,
    "Speech2TextFeatureExtractor": _speech_to_text,
}


_LONGEST_TEXT = 512
_UNLIMITED = 10**6  # what tokenizers that know no limit give is far larger


class Backbone(NamedTuple):
    """Hold what is known of the backbone that an input is for.

    `skeleton` is the backbone without memory for its weights, `source` what was given to `from_backbones`.
    """

    skeleton: PreTrainedModel
    config: Any
    source: Any
    num_frames: int


def default_input(modality: ModalityConfig, source: Any, options: Mapping[str, Any]) -> ModalityInput:
    """Return the input of one modality.

    Args:
        modality: the modality's configuration.
        source: what was given to `from_backbones`: for a Hub id or folder, the preprocessor there is taken.
        options: arguments of the input's class that replace the defaults, and `image_size` for images and videos.

    Raises:
        ValueError: if the backbone needs an input that no preprocessor makes, or texts have no tokenizer.
        OSError: for a Hub id without a preprocessor.
    """
    skeleton = backbone_skeleton(modality.backbone_config, modality.kind)
    backbone = Backbone(skeleton, skeleton.config, source, modality.num_frames)
    if modality.kind == "audio" and _sees_images(skeleton):
        config = backbone.config
        return SpectrogramInput(**{"size": _image_size(config), "num_channels": _channels(config), **options})
    makers: dict[str, Callable[..., ModalityInput]] = {
        "audio": _waveform_input,
        "vision": _image_input,
        "video": _video_input,
        "text": _text_input,
        "features": _features_input,
        "table": _table_input,
    }
    return makers[modality.kind](backbone, dict(options))


def takes_spectrogram(modality: ModalityConfig) -> bool:
    """Check whether a modality's sounds are shown to an image backbone, as log spectrograms."""
    return modality.kind == "audio" and _sees_images(backbone_skeleton(modality.backbone_config, modality.kind))


def _sees_images(backbone: PreTrainedModel) -> bool:
    return "pixel_values" in backbone_input_names(backbone)


def _waveform_input(backbone: Backbone, options: dict[str, Any]) -> WaveformInput:
    if "feature_extractor" not in options:
        pretrained = pretrained_audio_settings(backbone.source)
        options["feature_extractor"] = pretrained or audio_settings(backbone.config, backbone.skeleton.main_input_name)
    extractor = WaveformInput(**options).feature_extractor
    names = taken_inputs(backbone.skeleton, extractor.model_input_names, type(extractor).__name__)
    return WaveformInput(**{"input_names": names, **options})


def _image_input(backbone: Backbone, options: dict[str, Any]) -> ImageInput:
    settings = _image_processor(backbone, options, pretrained_image_settings)
    arguments = {"num_frames": backbone.num_frames, "num_channels": _channels(backbone.config), **options}
    processor = ImageInput(settings, **arguments).image_processor
    names = taken_inputs(backbone.skeleton, processor.model_input_names, type(processor).__name__)
    return ImageInput(settings, **{"input_names": names, **arguments})


def _video_input(backbone: Backbone, options: dict[str, Any]) -> VideoInput:
    config = backbone.config
    settings = _image_processor(backbone, options, pretrained_video_settings)
    own_length = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    num_frames = backbone.num_frames if backbone.num_frames > 1 else own_length
    names = taken_inputs(backbone.skeleton, ["pixel_values_videos", "pixel_values"], "the processor")
    arguments = {"num_frames": num_frames, "num_channels": _channels(config), "input_name": names[0], **options}
    if arguments["num_frames"] is None:
        raise ValueError(f"{type(config).__name__} does not tell how many frames it takes: give num_frames")
    return VideoInput(settings, **arguments)


def _text_input(backbone: Backbone, options: dict[str, Any]) -> TextInput:
    tokenizer = load_tokenizer(options.pop("tokenizer", backbone.source))
    config = backbone.config.get_text_config()
    vocab_size = getattr(config, "vocab_size", None)
    if vocab_size is not None and len(tokenizer) > vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, but the backbone knows {vocab_size}: they do not belong "
            "together"
        )
    made = list(dict.fromkeys([*tokenizer.model_input_names, "attention_mask"]))
    names = taken_inputs(backbone.skeleton, made, type(tokenizer).__name__)
    max_length = _longest_text(tokenizer, config)
    return TextInput(tokenizer, **{"max_length": max_length, "input_names": names, **options})


def _features_input(backbone: Backbone, options: dict[str, Any]) -> FeaturesInput:
    config = backbone.config
    of_sequences = getattr(config, "architecture", "transformer") == "transformer"
    max_steps = getattr(config, "max_position_embeddings", None) if of_sequences else None
    return FeaturesInput(**{"input_size": config.input_size, "max_steps": max_steps, **options})


def _table_input(backbone: Backbone, options: dict[str, Any]) -> TableInput:
    if not options:
        raise ValueError(
            "rows of a table need what was found on the training part: give TableInput.fit(rows, columns).settings as "
            "the modality's options"
        )
    made, wanted = TableInput(**options), backbone.config
    found = made.backbone_config()
    if (found.num_numbers, found.cardinalities) != (wanted.num_numbers, wanted.cardinalities):
        raise ValueError(
            f"the columns fitted are {found.num_numbers} of numbers and {len(found.cardinalities)} of "
            f"{found.cardinalities} categories, but the backbone has {wanted.num_numbers} and {wanted.cardinalities}: "
            "make it of the same TableInput (backbone_config)"
        )
    return made


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


def _image_processor(
    backbone: Backbone, options: dict[str, Any], pretrained: Callable[[Any], dict[str, Any] | None]
) -> dict[str, Any]:
    """Choose the image processor's settings: those given (taken out of `options`), pretrained, or plain ones."""
    config = backbone.config
    image_size = options.pop("image_size", None)
    settings = options.pop("image_processor", None) or pretrained(backbone.source)
    if settings is None and family_of(config) == "siglip2":  # patches of images in their own proportions
        sizes = {"patch_size": config.patch_size, "max_num_patches": config.num_patches}
        return {"image_processor_type": "Siglip2ImageProcessorPil", **sizes}
    if settings is not None and image_size is None:
        return settings
    image_size = image_size or _image_size(config) or 224
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    size = {"height": height, "width": width}
    if settings is not None:
        return {**settings, "size": size, **({"crop_size": size} if settings.get("crop_size") else {})}
    return {
        "image_processor_type": "ViTImageProcessorPil",
        "size": size,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
