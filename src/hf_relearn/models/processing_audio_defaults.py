"""Settings of the feature extractor that suits an audio backbone, from its configuration."""

import json
from typing import Any

import transformers
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

from .processing_preprocessors import family_of


def audio_settings(backbone: PreTrainedConfig, model_class: Any) -> dict[str, Any]:
    """Settings of a feature extractor of transformers, with its class name under `feature_extractor_type`.

    Raises:
        ValueError: if no extractor belongs to the backbone's family, or none makes sounds that the configuration asks
            for.
    """
    name = _extractor_of(backbone, getattr(model_class, "main_input_name", None))
    if name is None:
        raise ValueError(
            f"transformers has no feature extractor for {type(backbone).__name__}: give the settings of one "
            '(option "feature_extractor")'
        )
    arguments = _ARGUMENTS.get(name, lambda backbone: {})(backbone)
    return json.loads(getattr(transformers, name)(**arguments).to_json_string())


def _extractor_of(backbone: PreTrainedConfig, main_input: str | None) -> str | None:
    """The class that AutoFeatureExtractor has for the backbone, or for the model that a tower belongs to."""
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
    frames = 2 * backbone.max_source_positions  # 100 a second, and the encoder takes no other number
    if frames % 100:
        raise ValueError(
            f"max_source_positions is {backbone.max_source_positions}, but Whisper's extractor makes whole seconds, "
            "which are 50 positions each"
        )
    return {"feature_size": backbone.num_mel_bins, "chunk_length": frames // 100}


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
    "Speech2TextFeatureExtractor": _speech_to_text,
}
