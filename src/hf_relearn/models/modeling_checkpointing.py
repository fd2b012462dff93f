"""Activation checkpointing of a model with several backbones, each of which may or may not allow it."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

logger = logging.get_logger(__name__)


def enable_activation_checkpointing(backbones: Mapping[str, PreTrainedModel], *args: Any, **kwargs: Any) -> None:
    """Switch activation checkpointing on in every backbone that allows it, and name those that do not.

    Args:
        backbones: modality -> backbone.
        *args, **kwargs: of `activation_checkpointing_enable` of transformers.

    Raises:
        ValueError: if no backbone allows it; names them.
    """
    refused = []
    for name, backbone in backbones.items():
        try:
            _switch(backbone, "enable", *args, **kwargs)
        except ValueError:  # some say so beforehand, and some only when they are asked
            refused.append(f"{name} ({type(backbone).__name__})")
    if len(refused) == len(backbones):
        raise ValueError(
            f"no encoder supports activation checkpointing: {', '.join(refused)}; leave gradient_checkpointing off"
        )
    if refused:
        logger.warning("activation checkpointing saves no memory in %s, which does not support it", ", ".join(refused))


def disable_activation_checkpointing(backbones: Mapping[str, PreTrainedModel]) -> None:
    """Switch it off again everywhere."""
    for backbone in backbones.values():
        if backbone.supports_gradient_checkpointing:
            _switch(backbone, "disable")


def _switch(backbone: PreTrainedModel, to: str, *args: Any, **kwargs: Any) -> None:
    # The name since transformers 5.20 or so; the older one warns there.
    method = getattr(backbone, f"activation_checkpointing_{to}", None) or getattr(
        backbone, f"gradient_checkpointing_{to}"
    )
    method(*args, **kwargs)
