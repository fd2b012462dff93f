"""Run a backbone on a batch of one: what it looks at, how it pools, and how wide its features are."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_multimodal import ModalityConfig
from .modeling_encoders import ModalityEncoder, fitted, run_backbone
from .modeling_pooling import default_pooling, pool, token_mask, tokens_of
from .modeling_probe import probes
from .modeling_towers import backbone_input_names, input_kinds


@torch.no_grad()
def describe_modality(backbone: PreTrainedModel, options: dict[str, Any]) -> ModalityConfig:
    """Find kind, pooling and widths of a backbone by running it twice, in evaluation mode, on a batch of one.

    Args:
        backbone: one modality's; it is left in evaluation mode.
        options: fields of `ModalityConfig` that the user chooses; widths among them are checked.

    Returns:
        The configuration of the modality, whose `backbone_config` is that of the backbone.

    Raises:
        ValueError: for an option that does not suit the backbone, inputs of several kinds, or a backbone that fails,
            gives no states, or gives other ones for the same inputs.
    """
    class_name = type(backbone).__name__
    options = dict(options)
    wanted, pooling = options.pop("kind", None), options.pop("pooling", "auto")
    sizes = {name: options.pop(name) for name in ("feature_size", "token_size") if name in options}
    _check_kind(backbone, wanted)
    ModalityConfig(backbone.config, wanted or "features", 0, 0, pooling, **options)  # checks what can be checked now
    frames = options.get("num_frames", 1)
    if frames > 1 and not {"pixel_values", "pixel_values_videos"} & set(backbone_input_names(backbone)):
        raise ValueError(f"num_frames is {frames}, but {class_name} sees no images")
    if frames > 1 and "spatial_shapes" in backbone_input_names(backbone):
        raise ValueError(f"num_frames is {frames}, but {class_name} takes patches of one image a sample")
    backbone.eval()
    probe, kind, inputs, output = _first_that_works(backbone, options.get("num_frames"))
    if wanted not in (None, kind) and (kind, wanted) != ("vision", "audio"):
        raise ValueError(f"kind is {wanted!r}, but {class_name} encodes {kind}")
    if pooling == "auto":
        pooling = default_pooling(output, backbone, causal=kind == "text" and _is_causal(backbone, inputs))
    if kind == "video":
        frames = next(value for name, value in inputs.items() if name.startswith("pixel_values")).shape[1]
    config = ModalityConfig(backbone.config, wanted or kind, 0, 0, pooling, frames, probe)
    encoded = ModalityEncoder(backbone, config).eval()(**inputs)
    first = pool(output, pooling, backbone, token_mask(output, inputs, backbone))
    if not torch.allclose(encoded.feature, first, rtol=1e-2, atol=1e-3, equal_nan=True):
        raise ValueError(
            f"{class_name} gives other features each time for the same inputs, in evaluation mode too, as masked "
            "autoencoders do: hand over a model with that switched off, such as "
            "AutoModel.from_pretrained(..., mask_ratio=0.0)"
        )
    config.feature_size, config.token_size = encoded.feature.shape[-1], encoded.tokens.shape[-1]
    for name, size in sizes.items():
        if size != getattr(config, name):
            raise ValueError(f"{name} is {size}, but {class_name} gives {getattr(config, name)}")
    return config


def _check_kind(backbone: PreTrainedModel, wanted: str | None) -> None:
    kinds = input_kinds(backbone)
    suits = {*kinds, *(("audio", "video") if "vision" in kinds else ())}
    if len(kinds) == 1 and wanted is not None and wanted not in suits:
        raise ValueError(f"kind is {wanted!r}, but {type(backbone).__name__} encodes {kinds[0]}")


def _first_that_works(
    backbone: PreTrainedModel, num_frames: int | None
) -> tuple[int, str, dict[str, Tensor], ModelOutput]:
    names, class_name = backbone_input_names(backbone), type(backbone).__name__
    failures = []
    for index, (kind, probe) in enumerate(probes(backbone.config, names, num_frames)):
        inputs = fitted(probe, backbone)
        try:
            output = run_backbone(backbone, inputs, names, False)
            hidden = output["last_hidden_state"]
            if hidden.ndim not in (3, 4) or len(hidden) != 1:
                raise ValueError(f"its last_hidden_state has the shape {tuple(hidden.shape)}")
        except KeyError:
            failures.append(f"{class_name} gives no last_hidden_state to pool")
        except Exception as error:  # a backbone may fail in any way on inputs that are not what it expects
            shapes = ", ".join(f"{key} of shape {tuple(value.shape)}" for key, value in inputs.items())
            failures.append(f"{class_name} makes no feature of {shapes} ({error})")
        else:
            return index, kind, inputs, output
    raise ValueError("; ".join(failures))


def _is_causal(backbone: PreTrainedModel, inputs: dict[str, Tensor]) -> bool:
    """Check whether a change of the last token leaves the states of all others as they are."""
    ids = inputs["input_ids"]
    changed = {**inputs, "input_ids": torch.cat([ids[:, :-1], ids[:, :1]], dim=1)}
    names = backbone_input_names(backbone)
    first, second = (tokens_of(run_backbone(backbone, given, names, False)) for given in (inputs, changed))
    # All others, since windows of attention may hide the last token from the first.
    same = first.shape == second.shape and torch.equal(first[:, :-1], second[:, :-1])
    return same and not torch.equal(first[:, -1], second[:, -1])
