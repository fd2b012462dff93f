"""A small encoder for features that were extracted already: sequences or vectors."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .configuration_multimodal import FeaturesConfig
from .modeling_attention import AttentionLayer, attendable


class FeaturesModel(PreTrainedModel):
    """A transformer or a multilayer perceptron over features, one token per step.

    Args:
        config: the configuration.

    Raises:
        ValueError: if the configuration gives no `input_size`.
    """

    config_class = FeaturesConfig
    base_model_prefix = "features"
    main_input_name = "feature_values"

    def __init__(self, config: FeaturesConfig):
        super().__init__(config)
        if config.input_size is None:
            raise ValueError("FeaturesConfig needs the width of the features: FeaturesConfig(input_size=...)")
        self.projection = nn.Linear(config.input_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.positions: nn.Embedding | None = None
        if config.architecture == "transformer":
            self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
            self._no_split_modules = ["AttentionLayer"]
        self.layers = nn.ModuleList(_layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.post_init()

    def forward(self, feature_values: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutput:
        """Encode features.

        Args:
            feature_values: (batch, steps, `input_size`), or (batch, `input_size`), which is one step.
            attention_mask: (batch, steps) 1 for steps that count, 0 for padding; all count by default.

        Returns:
            `last_hidden_state`, (batch, steps, `hidden_size`).

        Raises:
            ValueError: for values or a mask of another shape, or more steps than the transformer has positions for.
        """
        values = feature_values.unsqueeze(1) if feature_values.ndim == 2 else feature_values
        if values.ndim != 3 or values.shape[-1] != self.config.input_size:
            raise ValueError(
                f"feature_values have shape {tuple(feature_values.shape)}, but input_size is "
                f"{self.config.input_size}: (batch, steps, {self.config.input_size}) or (batch, "
                f"{self.config.input_size}) is wanted"
            )
        if attention_mask is None:
            attention_mask = torch.ones(values.shape[:2], device=values.device)
        if attention_mask.shape != values.shape[:2]:
            raise ValueError(
                f"attention_mask has shape {tuple(attention_mask.shape)}, but the features have {values.shape[1]} "
                f"steps: {tuple(values.shape[:2])} is wanted"
            )
        mask = attendable(attention_mask.bool())
        states = self.projection(values.masked_fill(~mask.unsqueeze(-1), 0))
        if self.positions is None:
            states = self.dropout(states)
            for layer in self.layers:
                states = states + self.dropout(layer(states))
            return BaseModelOutput(last_hidden_state=self.norm(states))
        steps, most = values.shape[1], self.config.max_position_embeddings
        if steps > most:
            raise ValueError(
                f"feature_values have {steps} steps, but max_position_embeddings is {most}: shorten the sequences or "
                "raise it"
            )
        states = self.dropout(states + self.positions.weight[:steps])
        for layer in self.layers:
            states = layer(states, mask)
        return BaseModelOutput(last_hidden_state=self.norm(states))


def _layer(config: FeaturesConfig) -> nn.Module:
    if config.architecture == "transformer":
        return AttentionLayer(config.hidden_size, config.num_attention_heads, config.intermediate_size, config.dropout)
    return perceptron(config.hidden_size, config.intermediate_size)


def perceptron(hidden_size: int, intermediate_size: int) -> nn.Module:
    """Build what a residual layer of a multilayer perceptron adds."""
    return nn.Sequential(
        nn.LayerNorm(hidden_size),
        nn.Linear(hidden_size, intermediate_size),
        nn.GELU(),
        nn.Linear(intermediate_size, hidden_size),
    )
