"""Get backbones from what a user hands over: a Hub id, a folder, a configuration or a model object."""

import copy
import inspect
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from torch import nn
from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from .configuration_backbones import ModuleConfig
from .configuration_limits import check_settings
from .configuration_multimodal import ModalityConfig, check_modality_name
from .modeling_description import describe_modality
from .modeling_features import FeaturesModel
from .modeling_modules import ModuleBackbone, module_backbone
from .modeling_pooling import has_dense_pooler
from .modeling_seeds import drawing_for
from .modeling_table import TableModel
from .modeling_towers import backbone_input_names, encoder_part, input_kinds, shared_parameter
from .modeling_weights import check_weights


def origin(source: Any, model: PreTrainedModel, backbone_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Name the source of a backbone's weights as fields of `ModalityConfig`. A local path is not kept.

    Args:
        source: what `from_backbones` was given: a Hub id, a folder, a configuration or a model object.
        model: that was made of it.
        backbone_kwargs: with which it was loaded.
    """
    if isinstance(source, PreTrainedConfig):
        return {"pretrained": False}
    if isinstance(source, PreTrainedModel):
        # Its name may be a folder's, or that of a configuration alone: only weights in the cache tell.
        for file in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME):
            if commit := _cached_commit(model.name_or_path or "", file, {}):
                return {"pretrained": True, "base_model": model.name_or_path, "base_model_revision": commit}
        return {}
    if Path(source).is_dir():
        return {"pretrained": not holds_configuration_only(Path(source))}
    commit = _cached_commit(str(source), CONFIG_NAME, backbone_kwargs)
    return {"pretrained": True, "base_model": str(source), "base_model_revision": commit}


def _cached_commit(name: str, file: str, backbone_kwargs: Mapping[str, Any]) -> str | None:
    """Find the commit of a repository whose file was just read from the cache; None if it is not there."""
    places = {key: backbone_kwargs[key] for key in ("cache_dir", "revision") if key in backbone_kwargs}
    try:
        path = try_to_load_from_cache(name, "/".join(filter(None, (backbone_kwargs.get("subfolder"), file))), **places)
    except HFValidationError:  # a path
        return None
    found = re.search(r"snapshots[/\\]([0-9a-f]{40})[/\\]", path) if isinstance(path, str) else None
    return found[1] if found else None


def holds_configuration_only(folder: Path) -> bool:
    names = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, "pytorch_model.bin", "pytorch_model.bin.index.json")
    return folder.is_dir() and not any((folder / name).is_file() for name in names)


# Here and not in `__init__`, which code loaded from a repository does not run. Such code may be run twice, so that the
# class that is registered is an earlier one; an installed package's stays.
for _model in (FeaturesModel, TableModel):
    _config = CONFIG_MAPPING[_model.config_class.model_type]
    if MODEL_MAPPING.get(_config, None) is None:
        AutoModel.register(_config, _model)

# What says where files come from, and so holds for a backbone's configuration as for its weights.
_HUB_KWARGS = ("revision", "token", "cache_dir", "local_files_only", "subfolder")
_OPTIONS = ("kind", "pooling", "num_frames", "feature_size", "token_size")


def load_backbones(
    backbones: Mapping[str, Any],
    options: Mapping[str, Mapping[str, Any]],
    backbone_kwargs: Mapping[str, Any],
    seed: int,
) -> tuple[dict[str, PreTrainedModel], dict[str, ModalityConfig]]:
    """Load every backbone and find what the configuration needs of it.

    Random weights are drawn by `seed` and the modality's name. The other args and errors are those of
    `MultimodalForClassification.from_backbones`.
    """
    if not backbones:
        raise ValueError("from_backbones got no backbone: give at least one modality name with its backbone")
    if unknown := set(options) - set(backbones):
        raise ValueError(f"modality_options names {sorted(unknown)}, but the modalities are {list(backbones)}")
    for name in backbones:  # before anything is downloaded
        check_modality_name(name)
        if unknown := set(options.get(name, {})) - set(_OPTIONS):
            known = ", ".join(_OPTIONS)
            raise ValueError(f"modality {name!r}: unknown options {sorted(unknown)}; known are {known}")
    loaded: dict[str, PreTrainedModel] = {}
    modalities: dict[str, ModalityConfig] = {}
    for name, source in backbones.items():
        try:
            with drawing_for(name, seed):
                loaded[name], modalities[name] = load_modality(name, source, options.get(name, {}), backbone_kwargs)
        except (TypeError, ValueError) as error:
            error_class = TypeError if isinstance(error, TypeError) else ValueError
            raise error_class(f"modality {name!r}: {error}") from error
        except OSError as error:
            raise OSError(f"modality {name!r}: the model {source} cannot be had: {error}") from error
    _check_apart(loaded)
    dtypes = {name: str(backbone.dtype) for name, backbone in loaded.items()}
    if len(set(dtypes.values())) > 1:
        raise ValueError(f"the backbones have different dtypes, {dtypes}: bring them to one (model.to(dtype)) first")
    return loaded, modalities


def load_modality(
    name: str, source: Any, options: Mapping[str, Any], backbone_kwargs: Mapping[str, Any]
) -> tuple[PreTrainedModel, ModalityConfig]:
    """Return the backbone of one modality, without what nothing would use, and its configuration."""
    kind, pooling = options.get("kind"), options.get("pooling", "auto")
    model = load_backbone(source, pooling, backbone_kwargs)
    backbone = encoder_part(model, kind, name)
    config = backbone.config
    if backbone is not model or model is source:
        config = _rebuilding_config(model, backbone, kind or input_kinds(backbone)[0])
    modality = describe_modality(backbone, dict(options))
    modality.backbone_config = config
    for field, value in origin(source, model, backbone_kwargs).items():
        setattr(modality, field, value)
    _drop_unused_parts(backbone, modality.pooling)
    return backbone, modality


def given_backbone(name: str, modality: ModalityConfig, given: Any, attention: str | None) -> PreTrainedModel:
    """Return the backbone that a model gets for a modality: the one given, or a new one with random weights.

    Args:
        name: of the modality.
        modality: its configuration.
        given: backbone or None; of a module of the user's own also that.
        attention: `attn_implementation` of a new one; None for what the backbone chooses.
    """
    if isinstance(modality.backbone_config, ModuleConfig):
        return module_backbone(name, modality.backbone_config, given)
    if given is not None:
        return given
    return build_backbone(
        modality.backbone_config,
        modality.kind,
        modality.pooling,
        dtype=torch.get_default_dtype(),  # the backbone's own would differ from the other modalities'
        attn_implementation=attention,
    )


def build_backbone(config: PreTrainedConfig, kind: str | None, pooling: str, **kwargs: Any) -> PreTrainedModel:
    """Build a modality's backbone with random weights: the encoder or tower of what its configuration describes.

    Args:
        config: `ModalityConfig.backbone_config`.
        kind: `ModalityConfig.kind`, which chooses among towers; None for what a configuration alone tells.
        pooling: `ModalityConfig.pooling`; without `"pooler"`, a pooling layer that nothing would use is left out.
        **kwargs: `dtype` and `attn_implementation`.
    """
    backbone = encoder_part(_build_whole(config, pooling, **kwargs), kind)
    _drop_unused_parts(backbone, pooling)
    return backbone


def backbone_skeleton(config: PreTrainedConfig, kind: str) -> PreTrainedModel:
    """Return a modality's backbone without memory for its weights (on the meta device), for what its class tells.

    Args:
        config: `ModalityConfig.backbone_config`.
        kind: `ModalityConfig.kind`.
    """
    with torch.device("meta"):
        if isinstance(config, ModuleConfig):
            return ModuleBackbone(nn.Identity(), config.input_shape, config.input_names[0])
        return build_backbone(config, kind, "mean")


def load_backbone(source: Any, pooling: str, backbone_kwargs: Mapping[str, Any]) -> PreTrainedModel:
    """Give the model of a Hub id, a folder, a configuration (random weights) or an object (as it is)."""
    if isinstance(source, PreTrainedModel):
        if isinstance(source, ModuleBackbone) and next(source.parameters(), None) is None:
            raise ValueError("the module has no parameters, so it is no backbone: compute its features beforehand")
        return source
    # Backbones that were saved in different dtypes could not be fused, and half precision does not train.
    settings = {"dtype": torch.float32, "use_safetensors": True, **backbone_kwargs}
    settings["trust_remote_code"] = settings.get("trust_remote_code") or False  # None would ask on the terminal
    random_settings = {key: settings[key] for key in ("dtype", "attn_implementation") if key in settings}
    if isinstance(source, PreTrainedConfig):
        return _build_whole(source, pooling, **random_settings)
    if isinstance(source, nn.Module):
        raise TypeError(
            f"{type(source).__name__} is a torch module that does not say what it takes: give ModuleBackbone(module, "
            "input_shape=(...), input_name=...) with the shape of one sample's input and its name (feature_values, "
            "pixel_values, ...)"
        )
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            f"a backbone is a Hub id, a folder, a transformers configuration or model, not {type(source).__name__}"
        )
    places = {key: settings[key] for key in _HUB_KWARGS if settings.get(key) is not None}
    described, _ = PreTrainedConfig.get_config_dict(source, **places)
    check_settings(described, f"the configuration of {source}")  # before anything is built of it
    if settings["use_safetensors"]:
        check_weights(source, variant=settings.get("variant"), **places)
    config = AutoConfig.from_pretrained(source, **{"trust_remote_code": settings["trust_remote_code"], **places})
    if holds_configuration_only(Path(source)):
        return _build_whole(config, pooling, **random_settings)
    model_class = _class_by_name(config) or AutoModel
    model = model_class.from_pretrained(source, **settings, **_pooling_layer_kwargs(config, pooling))
    with torch.device("meta"):
        _freeze_as(model, _build_whole(config, pooling))
    return model


def _freeze_as(model: PreTrainedModel, built: PreTrainedModel) -> None:
    """Freeze what is never trained by construction (sinusoidal position tables), which loading makes trainable."""
    flags = {name: parameter.requires_grad for name, parameter in built.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags.get(name, True))


def _build_whole(config: PreTrainedConfig, pooling: str, **kwargs: Any) -> PreTrainedModel:
    pooling_layer = _pooling_layer_kwargs(config, pooling)
    if model_class := _class_by_name(config):
        return model_class._from_config(config, **kwargs, **pooling_layer)
    if MODEL_MAPPING.get(type(config), None) is None and not hasattr(config, "auto_map"):
        if calls := missing_registrations(config):
            raise ValueError(f"{type(config).__name__} is not known to transformers: call {calls} first")
        raise ValueError(  # AutoModel would import all that it knows to list it
            f"AutoModel knows no model for {type(config).__name__}; if it is that of a tower, name "
            "the tower's class in its `architectures`, or hand over a model object"
        )
    # A configuration that names code of a repository is not a permission to run it.
    return AutoModel.from_config(config, trust_remote_code=False, **kwargs, **pooling_layer)


def missing_registrations(config: PreTrainedConfig, model_class: str = "YourModel") -> str:
    """Name the calls by which transformers would know a configuration class of somebody's own; empty if it does.

    Args:
        config: of the model.
        model_class: name of the model's class.
    """
    config_class = type(config)
    known = isinstance(config, ModuleConfig) or hasattr(config, "auto_map")
    if config_class.__module__.startswith("transformers.") or known:
        return ""
    calls = []
    if config.model_type not in CONFIG_MAPPING:
        calls.append(f"AutoConfig.register({config.model_type or 'your-model'!r}, {config_class.__name__})")
    if MODEL_MAPPING.get(config_class, None) is None:
        calls.append(f"AutoModel.register({config_class.__name__}, {model_class})")
    no_type = "" if config.model_type or not calls else f"set {config_class.__name__}.model_type, "
    return no_type + " and ".join(calls)


def _class_by_name(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """Find the class that a configuration names, if AutoModel knows none for it (most towers of two-tower models)."""
    if MODEL_MAPPING.get(type(config), None) is not None:
        return None
    for name in config.architectures or ():
        model_class = getattr(transformers, name, None)
        if isinstance(model_class, type) and getattr(model_class, "config_class", None) is type(config):
            return model_class
    return None


def _rebuilding_config(model: PreTrainedModel, backbone: PreTrainedModel, kind: str) -> PreTrainedConfig:
    """Find the configuration that `build_backbone` makes this backbone from: its own, or the whole model's.

    Raises:
        ValueError: if neither does.
    """
    if calls := missing_registrations(model.config, type(model).__name__):
        raise ValueError(
            f"{type(model).__name__} is not known to transformers, so the fusion model could not be loaded again: "
            f"call {calls} first, also where it is loaded; or give ModuleBackbone(model, input_shape=...)"
        )
    own = copy.deepcopy(backbone.config)
    own.architectures = [type(backbone).__name__]
    for config in (backbone.config, own, model.config):
        try:
            if type(backbone_skeleton(config, kind)) is type(backbone):
                return config
        except (ValueError, KeyError, AttributeError, TypeError):  # not a configuration that stands for itself
            continue
    raise ValueError(
        f"{type(model).__name__} is not what AutoModel builds from its {type(model.config).__name__}, so the fusion "
        "model could not be loaded again: hand over the model without a head (AutoModel.from_pretrained, or "
        ".base_model)"
    )


def _check_apart(backbones: Mapping[str, PreTrainedModel]) -> None:
    """Refuse backbones that share parameters, which have no single strength to be re-learnt with."""
    if (shared := shared_parameter(backbones)) is not None:
        twin, name, key = shared
        raise ValueError(
            f"the modalities {twin!r} and {name!r} share one backbone object, or a part of one ({key!r}), "
            "which then has no strength of its own to be re-learnt with: give each its own copy "
            "(copy.deepcopy)"
        )


def _drop_unused_parts(backbone: PreTrainedModel, pooling: str) -> None:
    """Take off what would never get a gradient, if the backbone can do without: pooling layers, predictors."""
    optional = "add_pooling_layer" in inspect.signature(type(backbone).__init__).parameters
    used = pooling == "pooler" or (pooling == "auto" and not has_dense_pooler(backbone))
    if optional and not used and getattr(backbone, "pooler", None) is not None:
        backbone.register_module("pooler", None)
    if "skip_predictor" in backbone_input_names(backbone):  # V-JEPA 2, see `run_backbone`
        backbone.register_module("predictor", None)


def _pooling_layer_kwargs(config: PreTrainedConfig, pooling: str) -> dict[str, Any]:
    """Say beforehand whether a pooling layer is wanted: a checkpoint without one would warn that it is new, and some
    classes leave out by default what belongs to their pooling."""
    model_class = _class_by_name(config) or MODEL_MAPPING.get(type(config), None)
    if not isinstance(model_class, type):
        return {}
    if "add_pooling_layer" not in inspect.signature(model_class.__init__).parameters:
        return {}
    if pooling == "auto":
        with torch.device("meta"):
            return {"add_pooling_layer": not has_dense_pooler(model_class(config, add_pooling_layer=True))}
    return {"add_pooling_layer": pooling == "pooler"}
