"""One modality's encoder: a backbone of transformers and the pooling that turns its output into one vector."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_multimodal import ModalityConfig
from .modeling_pooling import MASK_NAMES, pool, token_mask, tokens_of
from .modeling_probe import probes
from .modeling_towers import backbone_input_names


@dataclass
class ModalityOutput(ModelOutput):
    """Hold the output of one modality's encoder, before any modality has seen another.

    Attributes:
        feature: (batch, d) uni-modal feature: what a diagnosis looks at, and what a late fusion joins.
        tokens: (batch, tokens, token size) states that `feature` was pooled from, for a fusion at token level.
        token_mask: (batch, tokens) bool, True for tokens that are not padding; None if all count.
    """

    feature: Tensor | None = None
    tokens: Tensor | None = None
    token_mask: Tensor | None = None


class ModalityEncoder(nn.Module):
    """A backbone and its pooling: the part of the model that diagnosing & re-learning treats as one encoder.

    While its parameters are not trained, it stays in evaluation mode (no dropout, BatchNorm statistics as they
    are), whatever `train()` is asked of the model.

    Args:
        backbone: any encoder of transformers (see `encoder_part`).
        config: the modality's configuration.

    Attributes:
        input_names: arguments that `forward` takes: those of the backbone's forward, and masks, which preprocessors
            make for backbones that take none, too.
    """

    def __init__(self, backbone: PreTrainedModel, config: ModalityConfig):
        super().__init__()
        self.backbone = backbone
        self.kind = config.kind
        self.pooling = config.pooling
        self.num_frames = config.num_frames
        self.feature_size = config.feature_size
        self.probe = config.probe
        self.backbone_input_names = backbone_input_names(backbone)
        self.input_names = tuple(dict.fromkeys(self.backbone_input_names + MASK_NAMES))
        self._initial_flags: dict[str, bool] | None = None
        self._fixed = {name for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
        self._keeps_caches = any(True for _ in _caching_modules(backbone))

    def forward(self, **inputs: Tensor) -> ModalityOutput:
        """Encode the backbone's inputs.

        `pixel_values` of shape (batch, frames, channels, height, width) are encoded frame by frame by an image
        backbone: the feature is the frames' average, the tokens are those of all frames. Floating-point inputs are
        brought to the type of the backbone's weights. A mask that the backbone does not take still says which tokens
        are pooled.

        Raises:
            ValueError: if the feature has another width than the configuration says.
        """
        if self._keeps_caches and not self.training:
            _empty_caches(self.backbone)
        dtype = self.backbone.dtype
        inputs = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
        frames = 1
        pixel_values = inputs.get("pixel_values")
        if pixel_values is not None and self.kind != "video" and pixel_values.ndim == 5:
            frames = pixel_values.shape[1]
            inputs["pixel_values"] = pixel_values.flatten(0, 1)
        output = run_backbone(self.backbone, inputs, self.backbone_input_names, self.pooling == "last")
        mask = token_mask(output, inputs, self.backbone)
        feature, tokens = pool(output, self.pooling, self.backbone, mask), tokens_of(output)
        if self.feature_size and feature.shape[-1] != self.feature_size:
            raise ValueError(
                f"{type(self.backbone).__name__} gives features of width {feature.shape[-1]}, but the configuration "
                f"says feature_size {self.feature_size}: correct it, or build the model with from_backbones"
            )
        if frames > 1:
            feature = feature.unflatten(0, (-1, frames)).mean(dim=1)
            tokens = tokens.unflatten(0, (-1, frames)).flatten(1, 2)
        return ModalityOutput(feature, tokens, mask)

    def train(self, mode: bool = True) -> "ModalityEncoder":
        return super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))

    def blank_inputs(self) -> dict[str, Tensor]:
        """Make meaningless inputs of a batch of one (zeros, any words), for a batch in which no sample has this
        modality."""
        found = probes(self.backbone.config, self.backbone_input_names, self.num_frames)
        return fitted(next(inputs for index, (_, inputs) in enumerate(found) if index == self.probe), self.backbone)

    def freeze_fixed(self) -> None:
        """Freeze again what was frozen at construction: `from_pretrained` makes every parameter trainable."""
        for name, parameter in self.backbone.named_parameters():
            if name in self._fixed:
                parameter.requires_grad_(False)

    def freeze(self) -> None:
        """Stop training the parameters, and go to evaluation mode."""
        if self._initial_flags is None:
            self._initial_flags = {name: parameter.requires_grad for name, parameter in self.named_parameters()}
        self.requires_grad_(False)
        self.eval()

    def unfreeze(self) -> None:
        """Train what was trained before `freeze`; position tables that are never trained stay frozen."""
        flags, self._initial_flags = self._initial_flags or {}, None
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(flags.get(name, parameter.requires_grad))


def run_backbone(
    backbone: PreTrainedModel, inputs: Mapping[str, Tensor], input_names: tuple[str, ...], count_positions: bool
) -> ModelOutput:
    """Call a backbone with those of the inputs that it takes, and without what only other uses of it need.

    Args:
        backbone: the backbone.
        inputs: name -> tensor.
        input_names: arguments of the backbone's forward.
        count_positions: number the tokens from the first that is not padding, so that padding on the left changes
            nothing; for causal text backbones.
    """
    arguments: dict[str, Any] = {name: value for name, value in inputs.items() if name in input_names}
    for name, value in (("use_cache", False), ("skip_predictor", True)):
        if name in input_names:
            arguments[name] = value
    mask = arguments.get("attention_mask")
    if count_positions and mask is not None and "position_ids" in input_names:
        arguments.setdefault("position_ids", (mask.long().cumsum(dim=-1) - 1).clamp(min=0))
    return backbone(**arguments)


def fitted(inputs: Mapping[str, Tensor], backbone: PreTrainedModel) -> dict[str, Tensor]:
    """Return those inputs that a backbone takes, on its device and in the type of its weights."""
    names = backbone_input_names(backbone)
    return {
        name: value.to(backbone.device, backbone.dtype if value.is_floating_point() else value.dtype)
        for name, value in inputs.items()
        if name in names
    }


def _caching_modules(backbone: nn.Module):
    """Modules that do something of their own on `train()`: LeViT's attention forgets what it computed from weights."""
    for module in backbone.modules():
        if type(module).train is not nn.Module.train and not isinstance(module, PreTrainedModel):
            yield module


@torch.compiler.disable
def _empty_caches(backbone: nn.Module) -> None:
    """Empty caches that outlive a write to the weights in evaluation mode (a re-learning step, a checkpoint)."""
    for module in _caching_modules(backbone):
        module.train()
        module.eval()
