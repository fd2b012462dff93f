"""The batches of an ONNX export: an example to trace, another one to check with, and which of their sizes are free."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_relearn.models import MultimodalForClassification, MultimodalProcessor

Shapes = dict[str, dict[int, str]]  # input -> axis -> name of a size that is free


def example_inputs(model: MultimodalForClassification, processor: MultimodalProcessor) -> dict[str, Tensor]:
    """A batch of two made-up samples that have every modality, as the processor makes it."""
    generator = np.random.default_rng(0)
    values = {
        name: [_raw_value(modality, generator) for _ in range(2)] for name, modality in model.config.modalities.items()
    }
    return dict(processor(values))


def _raw_value(modality: Any, generator: np.random.Generator) -> Any:
    if modality.kind == "text":
        return "what is said and what is seen"
    if modality.kind == "features":
        return generator.normal(size=(4, modality.backbone_config.input_size)).astype(np.float32)
    if modality.kind == "audio":
        return generator.uniform(-0.5, 0.5, 16000).astype(np.float32)
    pictures = generator.integers(0, 255, size=(16, 64, 64, 3), dtype=np.uint8)
    frames = modality.num_frames or 1
    if modality.kind == "video":
        return list(pictures[: max(frames, 2)])
    return list(pictures[:frames]) if frames > 1 else pictures[0]


def dynamic_shapes(model: MultimodalForClassification, batch: Mapping[str, Tensor]) -> Shapes:
    """The free sizes: of the batch, and of token sequences and waveforms, (batch, length) inputs of a modality."""
    shapes: Shapes = {}
    for name, modality in model.config.modalities.items():
        own = {key: value for key, value in batch.items() if key.startswith(f"{name}_")}
        sequences = modality.kind == "text" or (
            modality.kind == "audio" and all(value.ndim == 2 for value in own.values())
        )
        for key, value in own.items():
            shapes[key] = {0: "batch"}
            if sequences and value.ndim == 2:
                shapes[key][1] = f"{name}_length"
    return shapes


def other_inputs(batch: Mapping[str, Tensor], shapes: Shapes) -> dict[str, Tensor]:
    """Another batch than the example: one row more, in another order, the values changed a little, free lengths
    shorter."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, value in batch.items():
        rows = list(range(len(value)))[::-1]
        other = value[[*rows, rows[0]]]
        if 1 in shapes[name] and value.shape[1] > 2:
            other = other[:, : value.shape[1] - max(1, value.shape[1] // 4)]
        if other.is_floating_point():
            other = other + 0.1 * torch.randn(other.shape, generator=generator).to(other.device)
        found[name] = other.contiguous()
    return found
