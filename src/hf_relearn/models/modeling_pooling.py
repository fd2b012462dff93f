"""From the output of a backbone to one vector per sample: which tokens there are, which count, and how they pool."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

# Masks over a backbone's input, as preprocessors call them; True or 1 if the input is not padding.
MASK_NAMES = ("attention_mask", "pixel_attention_mask", "input_features_mask", "padding_mask")


def tokens_of(output: ModelOutput) -> Tensor:
    """Get a backbone's states as (batch, tokens, d); the positions of a feature map are its tokens."""
    hidden = output["last_hidden_state"]
    return hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden


def default_pooling(output: ModelOutput, backbone: nn.Module, causal: bool = False) -> str:
    """Choose the pooling that `"auto"` stands for.

    Args:
        output: what the backbone gives.
        backbone: the backbone that made `output`.
        causal: whether its tokens see only those before them.

    Returns:
        `"last"` for a causal text backbone; `"pooler"` if pooling by a part of its own belongs to the pretrained
        network (the norm of ConvNeXt, the attention head of SigLIP), which a dense layer with tanh (BERT, ViT) does
        not, as nothing but another objective has trained it; `"cls"` if there are class tokens; `"mean"` otherwise.
    """
    if causal:
        return "last"
    pooled = getattr(output, "pooler_output", None)
    if pooled is not None and pooled.flatten(1).shape[1] == pooled.shape[1] and not has_dense_pooler(backbone):
        return "pooler"
    if output["last_hidden_state"].ndim == 3 and count_class_tokens(backbone):
        return "cls"
    return "mean"


def has_dense_pooler(backbone: nn.Module) -> bool:
    """Check whether the backbone's pooling layer is dense: in most checkpoints such a layer has random weights."""
    pooler = getattr(backbone, "pooler", None)
    return pooler is not None and any(isinstance(module, nn.Linear) for module in pooler.modules())


def pool(
    output: ModelOutput,
    pooling: str,
    backbone: nn.Module,
    token_mask: Tensor | None = None,
) -> Tensor:
    """Turn a backbone's output into one vector per sample.

    Args:
        output: a transformers model output with `last_hidden_state` of shape (batch, tokens, d) or, for convolutional
            backbones, (batch, d, height, width).
        pooling: `"mean"`: over tokens (where the mask is True) or positions; `"cls"`: the class token, averaged with
            the distillation token if there is one, or the first token of a backbone that names none (BERT);
            `"last"`: the last token that is not padding, on whichever side the padding is; `"pooler"`: the backbone's
            own `pooler_output`; `"auto"`: see `default_pooling`.
        backbone: the backbone that made `output`.
        token_mask: (batch, tokens) bool, True for tokens that are not padding; None if all count.

    Raises:
        ValueError: if the pooling does not suit the output.
    """
    class_name = type(backbone).__name__
    hidden = getattr(output, "last_hidden_state", None)
    if pooling == "auto" and hidden is not None:
        pooling = default_pooling(output, backbone)
    if pooling == "pooler":
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            raise ValueError(f"pooling 'pooler' needs a pooler_output, which {class_name} does not give")
        return pooled.flatten(1)
    if hidden is None:
        raise ValueError(f"{class_name} gives no last_hidden_state to pool")
    if hidden.ndim == 4:
        if pooling != "mean":
            raise ValueError(f"pooling {pooling!r} needs tokens, but {class_name} gives a feature map")
        return hidden.mean(dim=(2, 3))
    if pooling == "cls":
        return hidden[:, : max(1, count_class_tokens(backbone))].mean(dim=1)
    if pooling == "last":
        return _last_token(hidden, token_mask)
    return masked_mean(hidden, token_mask)


def count_class_tokens(backbone: nn.Module) -> int:
    """Return the number of class (and distillation) tokens that the embeddings put before all others."""
    embeddings = getattr(backbone, "embeddings", None)
    tokens = (getattr(embeddings, name, None) for name in ("cls_token", "class_embedding", "distillation_token"))
    return sum(token is not None for token in tokens)


def token_mask(output: ModelOutput, inputs: Mapping[str, Tensor], backbone: nn.Module) -> Tensor | None:
    """Mask the padding, (batch, tokens) bool, by the backbone's output or by the mask of its inputs.

    The latter may count samples of a waveform or frames of a spectrogram, of which the backbone makes fewer tokens:
    it is asked how many. If it does not tell, a token counts if anything in its share of the input does.
    """
    hidden = output["last_hidden_state"]
    reported = getattr(output, "attention_mask", None)
    mask = next((inputs[name] for name in MASK_NAMES if name in inputs), None)
    if isinstance(reported, Tensor) and reported.shape == hidden.shape[:2]:
        return reported.bool()
    if mask is None or hidden.ndim != 3:
        return None
    mask = mask.flatten(1) if mask.shape[1:].numel() == mask.shape[-1] else mask.bool().any(dim=1)
    num_tokens = hidden.shape[1]
    if mask.shape[1] == num_tokens:
        return mask.bool()
    to_tokens = getattr(backbone, "_get_feature_vector_attention_mask", None)
    if to_tokens is not None:
        return to_tokens(num_tokens, mask.long()).bool()
    lengths_of = getattr(backbone, "_get_feat_extract_output_lengths", None)
    if lengths_of is not None:
        lengths = lengths_of(mask.long().sum(dim=1))
        return torch.arange(num_tokens, device=mask.device) < lengths.unsqueeze(1)
    return nn.functional.adaptive_max_pool1d(mask.float(), num_tokens).bool()


def _last_token(hidden: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return hidden[:, -1]
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    last = (positions * mask).amax(dim=1)  # the first position where nothing counts
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]


def masked_mean(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Average the tokens that count: (batch, tokens, d) and (batch, tokens) bool, or None for all -> (batch, d)."""
    if mask is None:
        return hidden.mean(dim=1)
    # In float32, since a sum over many tokens leaves float16's range and counts beyond bfloat16's digits.
    wide = torch.promote_types(hidden.dtype, torch.float32)
    weights = mask.to(wide).unsqueeze(-1)
    return ((hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)).to(hidden.dtype)
