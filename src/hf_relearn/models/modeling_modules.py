"""Modules of the user's own inside a model: the weights that they come with stay, and a module becomes a backbone."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput

from .configuration_backbones import ModuleConfig
from .configuration_multimodal import KIND_OF_INPUT


class OwnWeights:
    """Keep the values that a user's module comes with: transformers initialises whatever it did not load."""

    module: nn.Module

    def keep(self) -> None:
        self._start = {name: value.detach().clone() for name, value in _tensors(self.module).items()}

    @torch.no_grad()
    def restore(self) -> None:
        """Give weights and buffers that were not loaded the values that the user's module came with."""
        tensors = _tensors(self.module)
        for name, value in self._start.items():
            init.copy_(tensors[name], value.to(tensors[name].device))
        self._start = {}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


class ModuleBackbone(OwnWeights, PreTrainedModel):
    """A torch module of the user's own as a backbone of `from_backbones`.

    Its weights are saved with the fusion model; the module itself is not, so it is handed over again where the model
    is loaded: `from_pretrained(folder, backbones={"sensors": module})`.

    Args:
        module: used as it is, not copied. It takes one tensor with the batch first, and an `attention_mask` if its
            forward has an argument of that name. It gives features (batch, width), tokens (batch, tokens, width), a
            feature map (batch, width, height, width), or an output with such a `last_hidden_state`.
        input_shape: shape of one sample's input, without the batch: (9,), (3, 64, 64).
        input_name: what the input is called, which says the modality's kind: `feature_values`, `pixel_values`,
            `pixel_values_videos`, `input_values`, `input_features` or `input_ids`.

    Raises:
        ValueError: for a shape or an input that is none.
    """

    config_class = ModuleConfig

    def __init__(self, module: nn.Module, input_shape: Sequence[int], input_name: str = "feature_values"):
        if not input_shape or input_name not in KIND_OF_INPUT:
            raise ValueError(
                f"input_shape is {tuple(input_shape)} and input_name {input_name!r}, but a shape like (9,) or "
                f"(3, 64, 64) and one of {', '.join(KIND_OF_INPUT)} are wanted"
            )
        masks = ["attention_mask"] if "attention_mask" in inspect.signature(module.forward).parameters else []
        name = f"{type(module).__module__}.{type(module).__qualname__}"
        super().__init__(
            ModuleConfig(input_names=[input_name, *masks], input_shape=list(input_shape), module_class=name)
        )
        self.main_input_name = input_name
        self.module = module
        with torch.device("cpu"):
            self.keep()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave the user's weights as they are."""

    def forward(self, **inputs: Tensor) -> BaseModelOutput:
        """Encode a batch; `last_hidden_state` is (batch, tokens, width) or a feature map."""
        name, *masks = self.config.input_names
        output = self.module(inputs[name], **{mask: inputs[mask] for mask in masks if mask in inputs})
        states = output if isinstance(output, Tensor) else output["last_hidden_state"]
        return BaseModelOutput(last_hidden_state=states.unsqueeze(1) if states.ndim == 2 else states)


def module_backbone(name: str, config: ModuleConfig, given: Any) -> ModuleBackbone:
    """Return the backbone of a modality whose module is the user's own.

    Args:
        name: of the modality.
        config: of its backbone.
        given: what the user handed over: the module, or a `ModuleBackbone` of it.

    Raises:
        ValueError: if nothing was handed over.
        TypeError: for anything but a module.
    """
    if given is None:
        raise ValueError(
            f"the backbone of the modality {name!r} is a module of the user's own ({config.module_class}), which is "
            f"not part of the model's files: hand it over, from_pretrained(folder, backbones={{{name!r}: module}})"
        )
    if not isinstance(given, nn.Module):
        raise TypeError(f"the backbone of the modality {name!r} is a torch module, not {type(given).__name__}")
    if isinstance(given, ModuleBackbone):
        return given
    if not config.input_names:
        raise ValueError(f"the configuration of the modality {name!r} names no input: save the model again")
    return ModuleBackbone(given.to(torch.get_default_dtype()), config.input_shape, config.input_names[0])
