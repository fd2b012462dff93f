"""The encoders of a model: which are chosen, and under which names the model holds them."""

import logging
from collections.abc import Mapping, Sequence

from torch import nn

from hf_relearn.models.modeling_towers import shared_parameter

logger = logging.getLogger(__name__)


def chosen_encoders(encoders: Mapping[str, nn.Module], modalities: Sequence[str] | None) -> dict[str, nn.Module]:
    """Return the encoders that are re-learnt, in the model's order.

    Args:
        encoders: modality -> encoder, of the whole model.
        modalities: names to choose; None for all.

    Raises:
        ValueError: for no encoders, an unknown name, or a parameter that two encoders share.
    """
    if not encoders:
        raise ValueError("the model has no encoder: give a mapping of at least one modality to its encoder module")
    if unknown := sorted(set(modalities or []) - set(encoders)):
        raise ValueError(
            f"--relearn_modalities names {', '.join(unknown)}, but the model's modalities are {', '.join(encoders)}"
        )
    if (shared := shared_parameter(encoders)) is not None:
        other, modality, name = shared
        raise ValueError(
            f"the parameter {name!r} of the {modality!r} encoder belongs to the {other!r} encoder too, so no "
            "single strength fits it: give each modality an encoder of its own"
        )
    return {name: encoder for name, encoder in encoders.items() if not modalities or name in modalities}


def own_encoders(model: nn.Module) -> Mapping[str, nn.Module]:
    """Return the encoders of a `MultimodalForClassification`.

    Raises:
        ValueError: for another model.
    """
    if not hasattr(getattr(model, "config", None), "modalities"):
        raise ValueError(
            f"the model is a {type(model).__name__}, and RelearnCallback() takes encoders from a "
            "MultimodalForClassification only: give encoders and feature_function"
        )
    return dict(model.encoders.items())  # type: ignore[operator, union-attr]


def own_heads(model: nn.Module) -> Mapping[str, nn.Module]:
    """Return the uni-modal heads of a `MultimodalForClassification`."""
    return dict(model.unimodal_heads.items())  # type: ignore[operator, union-attr]


def module_names(model: nn.Module, encoders: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return the full name of each encoder inside the model.

    Raises:
        ValueError: if an encoder is not a part of the model, or is the whole of it.
    """
    names = {id(module): name for name, module in model.named_modules()}
    output = {}
    for modality, encoder in encoders.items():
        name = names.get(id(encoder))
        if not name:
            what = "the whole model" if name == "" else "no part of the model that is trained"
            raise ValueError(f"the encoder given for {modality!r} is {what}: give one of its submodules")
        output[modality] = name
    return output


def warn_of_frozen_encoders(encoders: Mapping[str, nn.Module]) -> None:
    """Say which encoders re-learning cannot move, since nothing in them is trained."""
    frozen = [name for name, encoder in encoders.items() if not any(p.requires_grad for p in encoder.parameters())]
    if frozen:
        logger.warning(
            "nothing in the encoder of %s is trained, so re-learning has nothing to move there", ", ".join(frozen)
        )
