"""Applying a point: encoders move towards their initial weights, and the optimizer forgets if asked to."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from hf_relearn.method import InitialWeights, interpolate_buffers_, soft_reinit_with_distance_


def relearn_encoders(
    encoders: Mapping[str, nn.Module],
    names: Mapping[str, str],
    initial: InitialWeights,
    alphas: Mapping[str, float],
    interpolate_buffers: bool,
) -> dict[str, float]:
    """Move every encoder by its strength.

    Args:
        encoders: modality -> encoder.
        names: modality -> full name of the encoder in the model, under which its initial weights are stored.
        initial: the store of initial weights.
        alphas: modality -> strength in [0, 1].
        interpolate_buffers: move floating-point buffers too.

    Returns:
        modality -> relative distance moved, ||θ_new - θ_old|| / ||θ_old||.
    """
    moved = {}
    for modality, encoder in encoders.items():
        own = initial.subset(names[modality])
        moved[modality] = soft_reinit_with_distance_(encoder, own, alphas[modality])
        if interpolate_buffers:
            interpolate_buffers_(encoder, own, alphas[modality])
    return moved


def renew_master_weights(optimizer: Any) -> None:
    """Let an optimizer with float32 copies of the weights (DeepSpeed, ZeRO stage 1 or 2) copy them anew.

    Its next step would otherwise write the copies, from before the point, over the moved weights. The copies hold
    what the weights hold, so digits beyond the weights' own type are lost at a point.
    """
    renew = getattr(getattr(optimizer, "optimizer", optimizer), "refresh_fp32_params", None)
    if renew is not None:
        renew()


def check_optimizer_state(optimizer: Any, encoders: Mapping[str, nn.Module]) -> None:
    """Make sure that the optimizer keeps its state by the encoders' own parameters, so that it can be reset.

    Raises:
        ValueError: it trains other tensors in their place, such as the flat float32 copies of DeepSpeed.
    """
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps the optimizer
    known = {id(parameter) for group in inner.param_groups for parameter in group["params"]}
    for modality, encoder in encoders.items():
        trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        if trained and not any(id(parameter) in known for parameter in trained):
            raise ValueError(
                f"--relearn_optimizer_state is 'reset', but the optimizer {type(inner).__name__} knows no parameter "
                f"of the {modality!r} encoder: it trains other tensors in their place, as DeepSpeed's flat copies, "
                "whose state cannot be told apart by parameter; use 'keep', or train by DDP or FSDP version 2"
            )


def reset_optimizer_state(optimizer: Any, modules: Iterable[nn.Module]) -> None:
    """Drop the optimizer's state (momentum and the like) of the trained parameters of some modules."""
    state = getattr(optimizer, "optimizer", optimizer).state  # accelerate wraps the optimizer
    for module in modules:
        for parameter in module.parameters():
            if parameter.requires_grad:
                state.pop(parameter, None)
