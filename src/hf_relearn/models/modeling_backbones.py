"""Getting backbones from what a user hands over: a Hub id, a folder, a configuration or a model object."""

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from .configuration_multimodal import ModalityConfig, check_modality_name
from .modeling_encoders import ModalityEncoder, backbone_input_names, backbone_kind, probe_inputs

# What says where files come from, and so holds for a backbone's configuration as for its weights.
_HUB_KWARGS = ("revision", "token", "cache_dir", "local_files_only", "subfolder", "trust_remote_code")


def load_backbones(
    backbones: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]], backbone_kwargs: Mapping[str, Any]
) -> tuple[dict[str, PreTrainedModel], dict[str, ModalityConfig]]:
    """Load every backbone and find what the configuration needs of it.

    Args and errors are those of `MultimodalForClassification.from_backbones`.
    """
    if not backbones:
        raise ValueError("from_backbones got no backbone: give at least one modality name with its backbone")
    if unknown := set(options) - set(backbones):
        raise ValueError(f"modality_options names {sorted(unknown)}, but the modalities are {list(backbones)}")
    for name in backbones:  # before anything is downloaded
        check_modality_name(name)
    loaded: dict[str, PreTrainedModel] = {}
    modalities: dict[str, ModalityConfig] = {}
    for name, source in backbones.items():
        pooling = options.get(name, {}).get("pooling", "auto")
        try:
            backbone = load_backbone(source, pooling, backbone_kwargs)
        except TypeError as error:
            raise TypeError(f"modality {name!r}: {error}") from error
        twin = next((other for other, module in loaded.items() if module is backbone), None)
        if twin is not None:
            raise ValueError(
                f"the modalities {twin!r} and {name!r} share one backbone object, which then has no strength of its "
                "own to be re-learnt with: give each its own copy (copy.deepcopy)"
            )
        loaded[name] = backbone
        modalities[name] = describe_modality(name, backbone, dict(options.get(name, {})))
    dtypes = {name: str(backbone.dtype) for name, backbone in loaded.items()}
    if len(set(dtypes.values())) > 1:
        raise ValueError(f"the backbones have different dtypes, {dtypes}: bring them to one (model.to(dtype)) first")
    for name, backbone in loaded.items():  # as the reloaded model, which is built without, has none
        unused = modalities[name].pooling != "pooler" and _pooling_layer_kwargs(backbone.config, "auto")
        if unused and getattr(backbone, "pooler", None) is not None:
            backbone.register_module("pooler", None)
    return loaded, modalities


def build_backbone(config: PreTrainedConfig, pooling: str, **kwargs: Any) -> PreTrainedModel:
    """Build a backbone with random weights."""
    # A configuration that names code of a repository is no permission to run it.
    return AutoModel.from_config(config, trust_remote_code=False, **kwargs, **_pooling_layer_kwargs(config, pooling))


def load_backbone(source: Any, pooling: str, backbone_kwargs: Mapping[str, Any]) -> PreTrainedModel:
    """Give the backbone of a Hub id, a folder, a configuration (random weights) or a model (as it is)."""
    if isinstance(source, PreTrainedModel):
        return source
    # Backbones that were saved in different dtypes could not be fused, and half precision does not train.
    settings = {"dtype": torch.float32, "use_safetensors": True, **backbone_kwargs}
    random_settings = {key: settings[key] for key in ("dtype", "attn_implementation") if key in settings}
    if isinstance(source, PreTrainedConfig):
        return build_backbone(source, pooling, **random_settings)
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            f"a backbone is a Hub id, a folder, a transformers configuration or model, not {type(source).__name__}"
        )
    config = AutoConfig.from_pretrained(source, **{key: settings[key] for key in _HUB_KWARGS if key in settings})
    if _holds_configuration_only(Path(source)):
        return build_backbone(config, pooling, **random_settings)
    return AutoModel.from_pretrained(source, **settings, **_pooling_layer_kwargs(config, pooling))


def describe_modality(name: str, backbone: PreTrainedModel, options: dict[str, Any]) -> ModalityConfig:
    """Find kind and feature width of a backbone by running it once, in evaluation mode, on a batch of one."""
    if unknown := set(options) - {"kind", "pooling", "num_frames"}:
        raise ValueError(f"modality {name!r}: unknown options {sorted(unknown)}; known are kind, pooling, num_frames")
    try:
        kind = _checked_kind(backbone, options.pop("kind", None))
        config = ModalityConfig(backbone_config=backbone.config, kind=kind, feature_size=0, token_size=0, **options)
        if config.num_frames > 1 and "pixel_values" not in backbone_input_names(backbone):
            raise ValueError(f"num_frames is {config.num_frames}, but {type(backbone).__name__} sees no images")
        inputs = {key: value.to(backbone.device) for key, value in probe_inputs(backbone).items()}
    except ValueError as error:
        raise ValueError(f"modality {name!r}: {error}") from error
    encoder = ModalityEncoder(backbone, config).eval()
    try:
        with torch.no_grad():
            output = encoder(**inputs)
            config.feature_size, config.token_size = output.feature.shape[-1], output.tokens.shape[-1]
    except Exception as error:  # a backbone may fail in any way on inputs that are not what it expects
        shapes = ", ".join(f"{key} of shape {tuple(value.shape)}" for key, value in inputs.items())
        raise ValueError(
            f"modality {name!r}: {type(backbone).__name__} makes no feature of {shapes} ({error})"
        ) from error
    return config


def _checked_kind(backbone: PreTrainedModel, wanted: str | None) -> str:
    config, class_name = backbone.config, type(backbone).__name__
    base: Any = MODEL_MAPPING.get(type(config), None)
    if base is not None and not isinstance(backbone, base):
        raise ValueError(
            f"{class_name} is not what AutoModel builds from its {type(config).__name__}, so the fusion model could "
            "not be loaded again: hand over the model without a head (AutoModel.from_pretrained, or .base_model)"
        )
    kind = backbone_kind(backbone)
    if wanted not in (None, kind) and (kind, wanted) != ("vision", "audio"):
        raise ValueError(f"kind is {wanted!r}, but {class_name} encodes {kind}")
    return wanted or kind


def _pooling_layer_kwargs(config: PreTrainedConfig, pooling: str) -> dict[str, Any]:
    """Leave out a pooling layer that would never get a gradient, where the backbone's class lets one choose."""
    model_class = MODEL_MAPPING.get(type(config), None)
    if pooling == "pooler" or not isinstance(model_class, type):
        return {}
    choice = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if choice else {}


def _holds_configuration_only(folder: Path) -> bool:
    names = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, "pytorch_model.bin", "pytorch_model.bin.index.json")
    return folder.is_dir() and not any((folder / name).is_file() for name in names)
