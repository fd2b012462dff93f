"""Inputs of a batch of one that a backbone may take: to find its widths with, and to stand for samples without it."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from .configuration_backbones import ModuleConfig
from .configuration_multimodal import KIND_OF_INPUT

Probe = tuple[str, dict[str, Tensor]]  # the kind of modality that such inputs show, and the inputs


def probes(config: PreTrainedConfig, names: tuple[str, ...], num_frames: int | None = None) -> Iterator[Probe]:
    """Yield the inputs of a batch of one that a backbone may take, the likeliest first.

    `dummy_inputs` of transformers holds text only, so the shapes come from the configuration; if it does not say
    enough, there are several.
    """
    if isinstance(config, ModuleConfig):
        yield _of_module(config)
    elif "input_ids" in names:
        yield from _texts(config)
    elif "feature_values" in names:
        for shape in ((1, 4, config.input_size), (1, config.input_size)):
            yield "features", {"feature_values": torch.linspace(-1, 1, shape[-1]).expand(shape)}
    elif "number_values" in names:
        yield "table", _row(config)
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


def _of_module(config: ModuleConfig) -> Probe:
    name, *masks = config.input_names
    shape = (1, *config.input_shape)
    value = torch.linspace(-1, 1, math.prod(shape)).reshape(shape)
    inputs = {name: torch.ones(shape).long() if name == "input_ids" else value}
    return KIND_OF_INPUT[name], {**inputs, **{mask: torch.ones(shape[:2]).long() for mask in masks}}


def _row(config: PreTrainedConfig) -> dict[str, Tensor]:
    numbers = {"number_values": torch.zeros(1, 2 * config.num_numbers)} if config.num_numbers else {}
    return numbers | (
        {"category_ids": torch.zeros(1, len(config.cardinalities)).long()} if config.cardinalities else {}
    )


def _texts(config: PreTrainedConfig) -> Iterator[Probe]:
    text_config = config.get_text_config()
    special = {getattr(text_config, f"{name}_token_id", None) for name in ("pad", "bos", "eos")}
    vocab_size = getattr(text_config, "vocab_size", None) or 100  # characters are not counted
    ids = [index for index in range(1, vocab_size) if index not in special][:8]
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
        shape = (channels, *(size if isinstance(size, (list, tuple)) else (size, size)))
        image = torch.linspace(-1, 1, math.prod(shape)).reshape(
            shape
        )  # masked patches of a plain one would look alike
        if "pixel_values" in names:
            yield "vision", {"pixel_values": image.expand(1, -1, -1, -1)}
            yield "video", {"pixel_values": image.expand(1, clip_length, -1, -1, -1)}
        else:
            yield "video", {"pixel_values_videos": image.expand(1, clip_length, -1, -1, -1)}
