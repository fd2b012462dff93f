"""Fusion at token level: transformer layers over the tokens of all encoders, after each has made its own feature."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_multimodal import MultimodalConfig
from .modeling_attention import AttentionLayer, attendable
from .modeling_encoders import ModalityOutput
from .modeling_pooling import masked_mean


class TokenFusion(nn.Module):
    """Base of the fusions at token level: each modality's tokens, projected to one width, and its embedding.

    Positions are not added, since the encoders' tokens carry them. A missing modality is one placeholder token.
    """

    def __init__(self, config: MultimodalConfig):
        super().__init__()
        self.hidden_size: int = config.fusion_kwargs["hidden_size"]
        self.projections = nn.ModuleDict(
            {name: nn.Linear(modality.token_size, self.hidden_size) for name, modality in config.modalities.items()}
        )
        self.modality_embeddings = nn.Embedding(len(config.modalities), self.hidden_size)
        self.norm = nn.LayerNorm(self.hidden_size)

    def layers(self, config: MultimodalConfig) -> nn.ModuleDict:
        """Return a stack of layers per modality."""
        options = config.fusion_kwargs
        heads, dropout = options["num_attention_heads"], options["dropout"]
        return nn.ModuleDict(
            {
                name: nn.ModuleList(
                    AttentionLayer(self.hidden_size, heads, 4 * self.hidden_size, dropout)
                    for _ in range(options["num_layers"])
                )
                for name in config.modalities
            }
        )

    def project(self, encoded: dict[str, ModalityOutput]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Project each modality to (batch, tokens, hidden size) states with a (batch, tokens) bool mask."""
        states, masks = {}, {}
        for index, (name, layer) in enumerate(self.projections.items()):
            tokens, mask = encoded[name]["tokens"], encoded[name].token_mask
            if mask is None:
                mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
            masks[name] = attendable(mask)
            # Values in the padding do not matter, even if they are not finite.
            tokens = tokens.masked_fill(~masks[name].unsqueeze(-1), 0)
            states[name] = layer(tokens) + self.modality_embeddings.weight[index]
        return states, masks


class CrossAttentionFusion(TokenFusion):
    """Each modality's tokens attend to those of all others, layer by layer; then their means stand side by side.

    After the crossmodal transformers of Tsai et al. 2019 (arXiv 1906.00295, section 3.2): keys and values are the
    others' tokens as the encoders made them, in every layer. Smaller than theirs: one stack per modality looks at all
    others at once. A single modality attends to itself.
    """

    def __init__(self, config: MultimodalConfig):
        super().__init__(config)
        self.stacks: Any = self.layers(config)
        self.fused_size = self.hidden_size * len(config.modalities)

    def forward(self, encoded: dict[str, ModalityOutput], present: dict[str, Tensor]) -> Tensor:
        states, masks = self.project(encoded)
        pooled = []
        for name, stack in self.stacks.items():
            seen = [other for other in states if other != name] or [name]
            context = torch.cat([states[other] for other in seen], dim=1)
            context_mask = torch.cat([masks[other] for other in seen], dim=1)
            current = states[name]
            for layer in stack:
                current = layer(current, context_mask, context)
            pooled.append(masked_mean(self.norm(current), masks[name]))
        return torch.cat(pooled, dim=-1)


class BottleneckFusion(TokenFusion):
    """Bottleneck transformer (MBT; Nagrani et al. 2021, arXiv 2107.00135, equations 8 and 9).

    In each layer every modality attends to its own tokens and to a few bottleneck tokens, of which all modalities then
    take the average on: what one knows of another went through them. The fused representation holds the mean of each
    modality's tokens, and that of the bottleneck tokens, through which even one layer exchanges.
    """

    def __init__(self, config: MultimodalConfig):
        super().__init__(config)
        self.stacks: Any = self.layers(config)
        self.bottlenecks = nn.Parameter(torch.empty(config.fusion_kwargs["num_bottlenecks"], self.hidden_size))
        self.fused_size = self.hidden_size * (len(config.modalities) + 1)

    def initialise(self) -> None:
        init.normal_(self.bottlenecks, std=0.02)

    def forward(self, encoded: dict[str, ModalityOutput], present: dict[str, Tensor]) -> Tensor:
        states, masks = self.project(encoded)
        batch, count = next(iter(states.values())).shape[0], len(self.bottlenecks)
        shared = self.bottlenecks.expand(batch, -1, -1)
        always = torch.ones(batch, count, dtype=torch.bool, device=shared.device)
        for depth in range(len(next(iter(self.stacks.values())))):
            after = []
            for name, stack in self.stacks.items():
                mask = torch.cat([always, masks[name]], dim=1)
                updated = stack[depth](torch.cat([shared, states[name]], dim=1), mask)
                after.append(updated[:, :count])
                states[name] = updated[:, count:]
            shared = torch.stack(after).mean(dim=0)
        pooled = [masked_mean(self.norm(states[name]), masks[name]) for name in states]
        return torch.cat([*pooled, self.norm(shared).mean(dim=1)], dim=-1)
