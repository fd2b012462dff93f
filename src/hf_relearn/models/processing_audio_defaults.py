"""Settings of the feature extractor that suits an audio backbone, from its configuration."""

import json
from typing import Any

import transformers
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

from .processing_preprocessors import family_of


def audio_settings(backbone: PreTrainedConfig, main_input: str) -> dict[str, Any]:
    """Settings of a feature extractor of transformers, with its class name under `feature_extractor_type`.

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
