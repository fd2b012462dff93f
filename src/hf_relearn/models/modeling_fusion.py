"""Late fusion: the features of all modalities become one vector. All fusions share one interface.

A fusion is built from the model's configuration, has a `fused_size`, and is called with what every encoder handed over
and with who is there. It stands outside the encoders, so re-learning leaves it alone.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_multimodal import CUSTOM_FUSION, MultimodalConfig, checked_fusion_kwargs
from .modeling_encoders import ModalityOutput
from .modeling_fusion_tokens import BottleneckFusion, CrossAttentionFusion
from .modeling_modules import OwnWeights


class ConcatFusion(nn.Module):
    """The features one after the other, as in the paper; a placeholder for a modality that is missing."""

    def __init__(self, config: MultimodalConfig):
        super().__init__()
        self.fused_size = sum(modality.feature_size for modality in config.modalities.values())

    def forward(self, encoded: dict[str, ModalityOutput], present: dict[str, Tensor]) -> Tensor:
        """Fuse a batch.

        Args:
            encoded: modality -> what its encoder handed over, with placeholders if it is missing.
            present: modality -> (batch,) bool, True for rows that have it.

        Returns:
            (batch, `fused_size`).
        """
        return torch.cat(list(features_of(encoded).values()), dim=-1)


class SumFusion(nn.Module):
    """The sum of linear projections of the features that are there."""

    def __init__(self, config: MultimodalConfig):
        super().__init__()
        self.fused_size = config.fusion_kwargs["hidden_size"]
        self.projections = projections(config, self.fused_size)

    def forward(self, encoded: dict[str, ModalityOutput], present: dict[str, Tensor]) -> Tensor:
        projected = project(self.projections, encoded)
        return torch.stack([value * present[name].unsqueeze(-1) for name, value in projected.items()]).sum(dim=0)


class GatedFusion(nn.Module):
    """Gated multimodal unit for any number of modalities (Arevalo et al. 2017, arXiv 1702.01992, section 3.1).

    h = Σ z_m ⊙ tanh(W_m x_m) with gates z_m = σ(V_m [x_1, ..., x_n]) that look at all features. Modalities that are
    missing are left out of the sum; the gates see their placeholders.
    """

    def __init__(self, config: MultimodalConfig):
        super().__init__()
        self.fused_size = config.fusion_kwargs["hidden_size"]
        self.projections = projections(config, self.fused_size)
        width = sum(modality.feature_size for modality in config.modalities.values())
        self.gates = nn.ModuleDict({name: nn.Linear(width, self.fused_size) for name in config.modalities})

    def forward(self, encoded: dict[str, ModalityOutput], present: dict[str, Tensor]) -> Tensor:
        everything = torch.cat(list(features_of(encoded).values()), dim=-1)
        gated = [
            torch.sigmoid(self.gates[name](everything)) * torch.tanh(value) * present[name].unsqueeze(-1)
            for name, value in project(self.projections, encoded).items()
        ]
        return torch.stack(gated).sum(dim=0)


class FilmFusion(nn.Module):
    """Feature-wise linear modulation (Perez et al. 2018, arXiv 1709.07871, equation 2), each modality by all others.

    With h_m = W_m x_m and c_m the features of all other modalities, one after the other:
    y_m = relu((1 + γ_m(c_m)) ⊙ h_m + β_m(c_m)), γ_m and β_m linear. The fused representation holds all y_m. A single
    modality is only projected. Placeholders take part if a modality is missing.
    """

    def __init__(self, config: MultimodalConfig):
        super().__init__()
        hidden_size = config.fusion_kwargs["hidden_size"]
        self.fused_size = hidden_size * len(config.modalities)
        self.projections = projections(config, hidden_size)
        width = sum(modality.feature_size for modality in config.modalities.values())
        self.modulations = nn.ModuleDict()
        if len(config.modalities) > 1:
            for name, modality in config.modalities.items():
                self.modulations[name] = nn.Linear(width - modality.feature_size, 2 * hidden_size)

    def forward(self, encoded: dict[str, ModalityOutput], present: dict[str, Tensor]) -> Tensor:
        features, projected = features_of(encoded), project(self.projections, encoded)
        for name, modulation in self.modulations.items():
            others = torch.cat([value for other, value in features.items() if other != name], dim=-1)
            gamma, beta = modulation(others).chunk(2, dim=-1)
            projected[name] = (1 + gamma) * projected[name] + beta
        return torch.relu(torch.cat(list(projected.values()), dim=-1))


class LowRankFusion(nn.Module):
    """Low-rank tensor fusion (Liu et al. 2018, arXiv 1806.00064, equation 6).

    The tensor of all products of features, each with a 1 appended, is mapped to the fused vector by weights of a given
    rank, and so never built: h = Σ_r w_r Π_m (W_m^r [x_m; 1]) + b. The factors that the 1s meet begin as ones, so that
    a product of small numbers does not vanish, and a modality whose feature is zero leaves the others' product.
    """

    def __init__(self, config: MultimodalConfig):
        super().__init__()
        self.fused_size, self.rank = config.fusion_kwargs["hidden_size"], config.fusion_kwargs["rank"]
        self.factors: Any = projections(config, self.rank * self.fused_size)
        self.rank_weights = nn.Parameter(torch.empty(self.rank))
        self.bias = nn.Parameter(torch.empty(self.fused_size))

    def initialise(self) -> None:
        for factor in self.factors.values():
            init.ones_(factor.bias)
        init.constant_(self.rank_weights, 1 / self.rank)
        init.zeros_(self.bias)

    def forward(self, encoded: dict[str, ModalityOutput], present: dict[str, Tensor]) -> Tensor:
        factors = torch.stack(list(project(self.factors, encoded).values()))
        products = factors.prod(dim=0).unflatten(-1, (self.rank, self.fused_size))
        return torch.einsum("brh,r->bh", products, self.rank_weights) + self.bias


def projections(config: MultimodalConfig, width: int) -> nn.ModuleDict:
    """Return one linear layer per modality from its feature to a common width."""
    return nn.ModuleDict({name: nn.Linear(entry.feature_size, width) for name, entry in config.modalities.items()})


def features_of(encoded: dict[str, ModalityOutput]) -> dict[str, Tensor]:
    """Return each modality's (batch, d) feature."""
    return {name: output["feature"] for name, output in encoded.items()}


def project(layers: nn.ModuleDict, encoded: dict[str, ModalityOutput]) -> dict[str, Tensor]:
    """Project each modality's feature to (batch, common width)."""
    return {name: layers[name](feature) for name, feature in features_of(encoded).items()}


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


class CustomFusion(OwnWeights, nn.Module):
    """A fusion module of the user's own.

    Args:
        config: the model's configuration.
        fusion_module: a module (used as it is, not copied), or what builds one from the configuration. Its forward
            takes `encoded` and `present` as `ConcatFusion` does, for any number of tokens, and gives (batch, width).
            Its weights begin as it has them.

    Raises:
        ValueError: if its output on a batch of two is not (2, width), or `fused_size`, if it has one, is another.
        TypeError: if it is not a module and builds none.
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
        self.keep()

    def forward(self, encoded: dict[str, ModalityOutput], present: dict[str, Tensor]) -> Tensor:
        return self.module(encoded, present)


def _probe_width(module: nn.Module, config: MultimodalConfig) -> int:
    """Return the width of the fused representation, found by fusing two rows, one of them without any modality."""
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
