"""Running a backbone once on a batch of one: what it looks at, how it pools, and how wide its features are."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_multimodal import ModalityConfig
from .modeling_encoders import ModalityEncoder, run_backbone
from .modeling_parts import backbone_input_names, input_kinds
from .modeling_pooling import default_pooling, tokens_of

Probe = tuple[str, dict[str, Tensor]]  # the kind of modality that such inputs show, and the inputs


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
    backbone.eval()
    kind, inputs, output = _first_that_works(backbone, options.get("num_frames"))
    if wanted not in (None, kind) and (kind, wanted) != ("vision", "audio"):
        raise ValueError(f"kind is {wanted!r}, but {class_name} encodes {kind}")
    if pooling == "auto":
        pooling = default_pooling(output, backbone, causal=kind == "text" and _is_causal(backbone, inputs))
    if kind == "video":
        frames = next(value for name, value in inputs.items() if name.startswith("pixel_values")).shape[1]
    config = ModalityConfig(backbone.config, wanted or kind, 0, 0, pooling, frames)
    encoded = ModalityEncoder(backbone, config).eval()(**inputs)
    if not torch.allclose(encoded.tokens, tokens_of(output), rtol=1e-2, atol=1e-3, equal_nan=True):
        raise ValueError(
            f"{class_name} gives other states each time for the same inputs, in evaluation mode too, as masked "
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


def _first_that_works(backbone: PreTrainedModel, num_frames: int | None) -> tuple[str, dict[str, Tensor], ModelOutput]:
    names, class_name = backbone_input_names(backbone), type(backbone).__name__
    failures = []
    for kind, probe in probes(backbone.config, names, num_frames):
        inputs = {
            name: value.to(backbone.device, backbone.dtype if value.is_floating_point() else value.dtype)
            for name, value in probe.items()
            if name in names
        }
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
            return kind, inputs, output
    raise ValueError("; ".join(failures))


def _is_causal(backbone: PreTrainedModel, inputs: dict[str, Tensor]) -> bool:
    """Whether a change of the last token leaves the states of all others as they are."""
    ids = inputs["input_ids"]
    changed = {**inputs, "input_ids": torch.cat([ids[:, :-1], ids[:, :1]], dim=1)}
    names = backbone_input_names(backbone)
    first, second = (tokens_of(run_backbone(backbone, given, names, False)) for given in (inputs, changed))
    same = first.shape == second.shape and torch.equal(first[:, 0], second[:, 0])
    return same and not torch.equal(first[:, -1], second[:, -1])


def probes(config: PreTrainedConfig, names: tuple[str, ...], num_frames: int | None = None) -> Iterator[Probe]:
    """Inputs of a batch of one that a backbone may take, the likeliest first.

    `dummy_inputs` of transformers holds text only, so the shapes come from the configuration; where it does not say
    enough, there are several.
    """
    if "input_ids" in names:
        yield from _texts(config)
    elif "feature_values" in names:
        for shape in ((1, 4, config.input_size), (1, config.input_size)):
            yield "features", {"feature_values": torch.linspace(-1, 1, shape[-1]).expand(shape)}
    elif "input_features" in names:
        yield from _sound_features(config)
    elif "input_values" in names:
        yield from _sounds(config)
    elif "spatial_shapes" in names:  # SigLIP 2: patches of an image of any size
        patches = torch.zeros(1, 4, getattr(config, "num_channels", 3) * config.patch_size**2)
        sizes = {"spatial_shapes": torch.tensor([[2, 2]])}
        yield "vision", {"pixel_values": patches, "pixel_attention_mask": torch.ones(1, 4).long(), **sizes}
    else:
        yield from _images(config, names, num_frames)


def _texts(config: PreTrainedConfig) -> Iterator[Probe]:
    text_config = config.get_text_config()
    special = {getattr(text_config, f"{name}_token_id", None) for name in ("pad", "bos", "eos")}
    ids = [index for index in range(1, text_config.vocab_size) if index not in special][:8]
    yield "text", {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)).long()}


def _sound_features(config: PreTrainedConfig) -> Iterator[Probe]:
    names = ("feature_projection_input_dim", "input_feat_per_channel", "num_mel_bins", "input_dim", "feature_size")
    widths = [getattr(config, name) for name in names if isinstance(getattr(config, name, None), int)]
    for width in widths:
        if hasattr(config, "max_source_positions"):  # Whisper: as many frames as it has positions for, frequency first
            yield "audio", {"input_features": torch.zeros(1, width, 2 * config.max_source_positions)}
        yield "audio", {"input_features": torch.zeros(1, 96, width)}
        if hasattr(config, "spec_size"):  # CLAP: a one-channel image, or four of different excerpts
            longer = {"is_longer": torch.zeros(1, 1).bool()}
            steps = config.spec_size**2 // width
            yield "audio", {"input_features": torch.zeros(1, 1, steps, width), **longer}
            yield "audio", {"input_features": torch.zeros(1, 4, steps, width), **longer}


def _sounds(config: PreTrainedConfig) -> Iterator[Probe]:
    if hasattr(config, "num_mel_bins") and hasattr(config, "max_length"):  # a spectrogram, as AST takes it
        yield "audio", {"input_values": torch.zeros(1, config.max_length, config.num_mel_bins)}
    wave = torch.sin(torch.arange(8000) / 20)  # half a second at 16 kHz
    yield "audio", {"input_values": wave.expand(1, -1)}
    yield "audio", {"input_values": wave.expand(1, getattr(config, "audio_channels", 1), -1)}


def _images(config: PreTrainedConfig, names: tuple[str, ...], num_frames: int | None) -> Iterator[Probe]:
    sizes = [getattr(config, name) for name in ("image_size", "crop_size") if getattr(config, name, None)]
    channels = getattr(config, "num_channels", None) or getattr(config, "in_chans", 3)
    frames = [getattr(config, name) for name in ("num_frames", "frames_per_clip") if getattr(config, name, None)]
    clip_length = num_frames if num_frames and num_frames > 1 else frames[0] if frames else 8
    for size in sizes or (64, 224):
        image = torch.zeros(channels, *(size if isinstance(size, (list, tuple)) else (size, size)))
        if "pixel_values" in names:
            yield "vision", {"pixel_values": image.expand(1, -1, -1, -1)}
            yield "video", {"pixel_values": image.expand(1, clip_length, -1, -1, -1)}
        else:
            yield "video", {"pixel_values_videos": image.expand(1, clip_length, -1, -1, -1)}
