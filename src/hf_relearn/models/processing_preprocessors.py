"""Preprocessors of transformers: built from their settings, and told what a backbone of a family wants."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

import transformers
from transformers import MODEL_MAPPING, FeatureExtractionMixin, ImageProcessingMixin, PreTrainedConfig
from transformers.utils import is_torchvision_available

from .configuration_multimodal import ModalityConfig


def from_settings(settings: dict[str, Any], type_key: str) -> Any:
    """Build a preprocessor of transformers from its settings; only such classes of transformers itself are built.

    Args:
        settings: arguments of the class, and its name under `type_key`.
        type_key: `"image_processor_type"` or `"feature_extractor_type"`.

    Raises:
        ValueError: if the name is that of no preprocessor.
    """
    name = settings.get(type_key)
    names = [name] if is_torchvision_available() else [f"{name}Pil", name]
    for candidate in names:
        cls = getattr(transformers, str(candidate), None)
        if isinstance(cls, type) and issubclass(cls, (ImageProcessingMixin, FeatureExtractionMixin)):
            return cls.from_dict(dict(settings))
    raise ValueError(f"{type_key} is {name!r}, which is no preprocessor of this release of transformers")


def family_of(config: PreTrainedConfig) -> str:
    """The folder of transformers that a configuration comes from: `"clap"` also for the tower's `ClapAudioConfig`."""
    return type(config).__module__.split(".")[-2]


def encoder_of(modality: ModalityConfig) -> tuple[PreTrainedConfig, Any]:
    """Configuration and class of the backbone that takes a modality's inputs; the class is None for foreign code."""
    config = modality.backbone_config
    found: Any = MODEL_MAPPING.get(type(config), None)
    if found is None:  # a tower that AutoModel does not know, such as CLAP's
        name = type(config).__name__.removesuffix("Config") + "Model"
        module = type(config).__module__.replace(".configuration_", ".modeling_")
        found = getattr(import_module(module), name, None) if module.startswith("transformers.") else None
    return config, found[0] if isinstance(found, tuple) else found


def forward_parameters(model_class: Any) -> Mapping[str, Parameter]:
    """The named arguments of a backbone's forward; none where its class is not known."""
    parameters = list(signature(model_class.forward).parameters.values())[1:] if model_class else []
    return {item.name: item for item in parameters if item.kind is not Parameter.VAR_KEYWORD}


def taken_inputs(model_class: Any, made: Sequence[str], maker: str) -> list[str]:
    """Which of the inputs that a preprocessor makes the backbone's forward takes.

    Args:
        model_class: the backbone's class; None takes all.
        made: names of the preprocessor's outputs.
        maker: what to call the preprocessor in a message.

    Raises:
        ValueError: if the backbone needs an input that is not made.
    """
    parameters = forward_parameters(model_class)
    if not parameters:
        return list(made)
    needed = {name for name, item in parameters.items() if item.default is Parameter.empty}
    if missing := sorted((needed | {model_class.main_input_name} & set(parameters)) - set(made)):
        raise ValueError(
            f"{model_class.__name__} takes {', '.join(missing)}, but {maker} makes {', '.join(made)}: choose another "
            "backbone, or give the settings of a preprocessor that makes it"
        )
    return [name for name in made if name in parameters]
