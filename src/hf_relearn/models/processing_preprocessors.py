"""Preprocessors of transformers: built from their settings, and told what a backbone of a family wants."""

from collections.abc import Sequence
from inspect import Parameter, signature
from typing import Any

import transformers
from transformers import FeatureExtractionMixin, ImageProcessingMixin, PreTrainedConfig, PreTrainedModel
from transformers.utils import is_torchvision_available

from .modeling_parts import backbone_input_names
from .modeling_pooling import MASK_NAMES


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


def taken_inputs(backbone: PreTrainedModel, made: Sequence[str], maker: str) -> list[str]:
    """Which of the inputs that a preprocessor makes the encoder takes: those of the backbone's forward, and masks.

    Args:
        backbone: the backbone; its weights are not looked at.
        made: names of the preprocessor's outputs.
        maker: what to call the preprocessor in a message.

    Raises:
        ValueError: if the backbone needs an input that is not made.
    """
    parameters = signature(backbone.forward).parameters.values()
    needed = {item.name for item in parameters if item.default is Parameter.empty} | {backbone.main_input_name}
    names = backbone_input_names(backbone)
    if missing := sorted(needed & set(names) - set(made)):
        raise ValueError(
            f"{type(backbone).__name__} takes {', '.join(missing)}, but {maker} makes {', '.join(made)}: choose "
            "another backbone, or give the settings of a preprocessor that makes it"
        )
    return [name for name in made if name in (*names, *MASK_NAMES)]
