"""One modality's encoder: a backbone of transformers and the pooling that turns its output into one vector."""

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_multimodal import ModalityConfig

# What a backbone calls its main input tells what it looks at.
_KIND_OF_INPUT = {
    "pixel_values": "vision",
    "pixel_values_videos": "video",
    "input_values": "audio",
    "input_features": "audio",
    "input_ids": "text",
    "feature_values": "features",
}


def backbone_input_names(backbone: nn.Module) -> tuple[str, ...]:
    """Names of the arguments that the backbone's forward takes."""
    parameters = inspect.signature(backbone.forward).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD)


def backbone_kind(backbone: PreTrainedModel) -> str:
    """The kind of modality that a backbone encodes: `"audio"`, `"vision"`, `"video"`, `"text"` or `"features"`.

    Raises:
        ValueError: if the arguments of the backbone's forward name no known kind, or several.
    """
    names = backbone_input_names(backbone)
    kinds = {_KIND_OF_INPUT[name] for name in names if name in _KIND_OF_INPUT}
    if not kinds:
        raise ValueError(
            f"{type(backbone).__name__} takes {', '.join(names) or 'no inputs'}: none of them is one of "
            f"{', '.join(_KIND_OF_INPUT)}, so its modality is unknown"
        )
    if len(kinds) > 1:
        raise ValueError(
            f"{type(backbone).__name__} takes several kinds of input ({', '.join(sorted(kinds))}): hand over the "
            "model object of one of its towers instead"
        )
    return kinds.pop()


def probe_inputs(backbone: PreTrainedModel) -> dict[str, Tensor]:
    """Inputs of a batch of one, of zeros, with which the width of a backbone's feature is found.

    `backbone.dummy_inputs` of transformers holds text only, so the shapes come from the configuration.

    Raises:
        ValueError: if the backbone takes neither `pixel_values` nor `input_values`.
    """
    config = backbone.config
    names = backbone_input_names(backbone)
    dtype = backbone.dtype
    if "pixel_values" in names:
        size = getattr(config, "image_size", None) or 64
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        return {"pixel_values": torch.zeros(1, getattr(config, "num_channels", 3), height, width, dtype=dtype)}
    if "input_values" in names and hasattr(config, "num_mel_bins"):  # a spectrogram, as AST takes it
        return {"input_values": torch.zeros(1, config.max_length, config.num_mel_bins, dtype=dtype)}
    if "input_values" in names:  # half a second of sound at 16 kHz
        return {"input_values": torch.zeros(1, 8000, dtype=dtype)}
    if "feature_values" in names:
        return {"feature_values": torch.zeros(1, 1, config.input_size, dtype=dtype)}
    raise ValueError(
        f"{type(backbone).__name__} encodes {backbone_kind(backbone)}: this release fuses audio and image backbones, "
        "which take input_values or pixel_values"
    )


@dataclass
class ModalityOutput(ModelOutput):
    """What one modality's encoder hands to the fusion, before any modality has seen another.

    Attributes:
        feature: (batch, d) uni-modal feature: what a diagnosis looks at, and what a late fusion joins.
        tokens: (batch, tokens, token size) states that `feature` was pooled from, for a fusion at token level.
        token_mask: (batch, tokens) bool, True for tokens that are not padding; None where all count.
    """

    feature: Tensor | None = None
    tokens: Tensor | None = None
    token_mask: Tensor | None = None


class ModalityEncoder(nn.Module):
    """A backbone and its pooling: the part of the model that diagnosing & re-learning treats as one encoder.

    Args:
        backbone: any audio or image backbone of transformers.
        config: the modality's configuration; `kind`, `pooling` and `num_frames` are used.
    """

    def __init__(self, backbone: PreTrainedModel, config: ModalityConfig):
        super().__init__()
        self.backbone = backbone
        self.kind = config.kind
        self.pooling = config.pooling
        self.num_frames = config.num_frames
        self.input_names = backbone_input_names(backbone)
        self.num_class_tokens = _count_class_tokens(backbone)

    def forward(self, **inputs: Tensor) -> ModalityOutput:
        """Encode the backbone's inputs.

        `pixel_values` of shape (batch, frames, channels, height, width) are encoded frame by frame: the feature is
        the frames' average, the tokens are those of all frames. Floating-point inputs are brought to the type of the
        backbone's weights.
        """
        dtype = self.backbone.dtype
        inputs = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
        frames = 1
        pixel_values = inputs.get("pixel_values")
        if pixel_values is not None and self.kind != "video" and pixel_values.ndim == 5:
            frames = pixel_values.shape[1]
            inputs["pixel_values"] = pixel_values.flatten(0, 1)
        output = self.backbone(**inputs)
        token_mask = _token_mask(output, inputs.get("attention_mask"), self.backbone)
        feature = pool(output, self.pooling, self.backbone, token_mask, self.num_class_tokens)
        tokens = tokens_of(output)
        if frames > 1:
            feature = feature.unflatten(0, (-1, frames)).mean(dim=1)
            tokens = tokens.unflatten(0, (-1, frames)).flatten(1, 2)
        return ModalityOutput(feature, tokens, token_mask)


def tokens_of(output: ModelOutput) -> Tensor:
    """The states of a backbone's output as (batch, tokens, d); the positions of a feature map are its tokens."""
    hidden = output["last_hidden_state"]
    return hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden


def pool(
    output: ModelOutput,
    pooling: str,
    backbone: PreTrainedModel,
    token_mask: Tensor | None = None,
    num_class_tokens: int = 0,
) -> Tensor:
    """Turn a backbone's output into one vector per sample.

    Args:
        output: a transformers model output with `last_hidden_state` of shape (batch, tokens, d) or, for convolutional
            backbones, (batch, d, height, width).
        pooling: `"mean"`: over tokens (where the mask is True) or positions; `"cls"`: the first token;
            `"pooler"`: the backbone's own `pooler_output`; `"auto"`: positions' mean for a feature map, the class
            tokens' mean where the backbone has such tokens, the masked mean otherwise.
        backbone: the backbone that made `output`.
        token_mask: (batch, tokens) bool, True for tokens that are not padding; None where all count.
        num_class_tokens: how many class tokens stand before all others.

    Raises:
        ValueError: if the pooling does not suit the output.
    """
    if pooling == "pooler":
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            raise ValueError(f"pooling 'pooler' needs a pooler_output, which {type(backbone).__name__} does not give")
        return pooled.flatten(1)
    hidden = getattr(output, "last_hidden_state", None)
    if hidden is None:
        raise ValueError(f"{type(backbone).__name__} gives no last_hidden_state to pool")
    if hidden.ndim == 4:
        if pooling == "cls":
            raise ValueError(f"pooling 'cls' needs tokens, but {type(backbone).__name__} gives a feature map")
        return hidden.mean(dim=(2, 3))
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "auto" and num_class_tokens:
        return hidden[:, :num_class_tokens].mean(dim=1)
    return _masked_mean(hidden, token_mask)


def _count_class_tokens(backbone: nn.Module) -> int:
    """Number of class (and distillation) tokens that the embeddings put before all others."""
    embeddings = getattr(backbone, "embeddings", None)
    tokens = (getattr(embeddings, name, None) for name in ("cls_token", "class_embedding", "distillation_token"))
    return sum(token is not None for token in tokens)


def _token_mask(output: ModelOutput, attention_mask: Tensor | None, backbone: nn.Module) -> Tensor | None:
    """Which tokens are not padding, from the mask of the inputs, whose length may be that of a waveform."""
    hidden = getattr(output, "last_hidden_state", None)
    if attention_mask is None or hidden is None:
        return None
    if attention_mask.shape[1] != hidden.shape[1]:  # the mask counts samples of the waveform, the tokens frames
        to_frames = getattr(backbone, "_get_feature_vector_attention_mask", None)
        if to_frames is None:
            raise ValueError(
                f"{type(backbone).__name__} turned {attention_mask.shape[1]} masked positions into "
                f"{hidden.shape[1]} tokens and does not tell which are padding; choose another pooling"
            )
        attention_mask = to_frames(hidden.shape[1], attention_mask)
    return attention_mask.bool()


def _masked_mean(hidden: Tensor, token_mask: Tensor | None) -> Tensor:
    if token_mask is None:
        return hidden.mean(dim=1)
    # In float32, since a sum over many tokens leaves float16's range and counts beyond bfloat16's digits.
    wide = torch.promote_types(hidden.dtype, torch.float32)
    weights = token_mask.to(wide).unsqueeze(-1)
    return ((hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)).to(hidden.dtype)
