"""Choosing a model's fusion, and taking in one of the user's own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_fusion import CUSTOM_FUSION, checked_fusion_kwargs
from .configuration_multimodal import MultimodalConfig
from .modeling_encoders import ModalityOutput
from .modeling_fusion import ConcatFusion, FilmFusion, GatedFusion, LowRankFusion, SumFusion
from .modeling_fusion_tokens import BottleneckFusion, CrossAttentionFusion

FusionModule = nn.Module | Callable[[MultimodalConfig], nn.Module]

FUSION_CLASSES: dict[str, Callable[[MultimodalConfig], Any]] = {
    "concat": ConcatFusion,
    "sum": SumFusion,
    "gated": GatedFusion,
    "film": FilmFusion,
    "low_rank": LowRankFusion,
    "cross_attention": CrossAttentionFusion,
    "bottleneck": BottleneckFusion,
}


def build_fusion(config: MultimodalConfig, fusion_module: FusionModule | None = None) -> Any:
    """Build the fusion that a configuration names, or take the user's own.

    Raises:
        ValueError: for a configuration that does not fit, a `"custom"` one without a module, a module beside another
            one, or a module whose output is no fusion's.
        TypeError: for a module that is none.
    """
    if config.fusion == CUSTOM_FUSION:
        if fusion_module is None:
            raise ValueError(
                "the fusion of this model is a module of the user's own, which is not part of its files: hand it "
                "over, from_pretrained(folder, fusion_module=<the module, or what builds it from the configuration>)"
            )
        return CustomFusion(config, fusion_module)
    if fusion_module is not None:
        raise ValueError(f"the fusion of this model is {config.fusion!r}, so it takes no fusion_module: leave it out")
    config.fusion_kwargs = checked_fusion_kwargs(config.fusion, config.fusion_kwargs)
    return FUSION_CLASSES[config.fusion](config)


class CustomFusion(nn.Module):
    """A fusion module of the user's own.

    Args:
        config: the model's configuration.
        fusion_module: a module (used as it is, not copied), or what builds one from the configuration. Its forward
            takes `encoded` and `present` as `ConcatFusion` does, for any number of tokens, and gives (batch, width).
            Its weights begin as it has them.

    Raises:
        ValueError: if its output on a batch of two is not (2, width), or `fused_size`, where it has one, is another.
        TypeError: if it is no module and builds none.
    """

    def __init__(self, config: MultimodalConfig, fusion_module: FusionModule):
        super().__init__()
        with torch.device("cpu"):  # loading builds models on the meta device, where nothing can be tried
            module = fusion_module
            if not isinstance(module, nn.Module) and callable(module):
                module = module(config)
            if not isinstance(module, nn.Module):
                raise TypeError(f"a fusion is a torch module or builds one from the configuration, not {module!r}")
            self.module = module.to(torch.get_default_dtype())
            self.fused_size = _probe_width(self.module, config)
        # transformers initialises whatever it did not load, by rules of its own.
        self._start = {name: value.detach().clone() for name, value in _tensors(self.module).items()}

    @torch.no_grad()
    def restore(self) -> None:
        """Give weights and buffers that were not loaded the values that the user's module came with."""
        tensors = _tensors(self.module)
        for name, value in self._start.items():
            init.copy_(tensors[name], value.to(tensors[name].device))
        self._start = {}

    def forward(self, encoded: dict[str, ModalityOutput], present: dict[str, Tensor]) -> Tensor:
        return self.module(encoded, present)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _probe_width(module: nn.Module, config: MultimodalConfig) -> int:
    """Width of the fused representation, found by fusing two rows, one of them without any modality."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    present = {name: torch.tensor([True, False], device=device) for name in config.modalities}
    encoded = {
        name: ModalityOutput(
            torch.zeros(2, modality.feature_size, device=device),
            torch.zeros(2, 3, modality.token_size, device=device),
            torch.tensor([[True, True, False], [True, False, False]], device=device),
        )
        for name, modality in config.modalities.items()
    }
    modes = [(part, part.training) for part in module.modules()]
    name = type(module).__name__
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            fused = module.eval()(encoded, present)
    except Exception as error:  # a user's code may fail in any way
        raise ValueError(f"the fusion module {name} cannot fuse {', '.join(config.modalities)}: {error}") from error
    finally:
        for part, training in modes:
            part.training = training
    if not isinstance(fused, Tensor) or fused.ndim != 2 or len(fused) != 2:
        found = tuple(fused.shape) if isinstance(fused, Tensor) else type(fused).__name__
        raise ValueError(f"the fusion module {name} made {found} of a batch of 2, but (2, width) is wanted")
    width = getattr(module, "fused_size", fused.shape[1])
    if width != fused.shape[1]:
        raise ValueError(
            f"the fusion module {name} gives vectors of width {fused.shape[1]}, but its fused_size is {width}"
        )
    return fused.shape[1]
