"""A small encoder for rows of a table: numbers and embedded categories through a multilayer perceptron."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .configuration_backbones import TableConfig
from .modeling_features import perceptron


class TableModel(PreTrainedModel):
    """A multilayer perceptron over the numbers of a row, flags for its empty cells, and embeddings of its categories.

    Args:
        config: the configuration.

    Raises:
        ValueError: for a configuration without any column.
    """

    config_class = TableConfig
    base_model_prefix = "table"

    def __init__(self, config: TableConfig):
        super().__init__(config)
        if not config.num_numbers and not config.cardinalities:
            raise ValueError("TableConfig names no column: TableInput.fit(rows, columns).backbone_config() makes it")
        self.main_input_name = "number_values" if config.num_numbers else "category_ids"
        self.embeddings = nn.ModuleList(nn.Embedding(size, config.embedding_size) for size in config.cardinalities)
        width = 2 * config.num_numbers + config.embedding_size * len(config.cardinalities)
        self.projection = nn.Linear(width, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            perceptron(config.hidden_size, config.intermediate_size) for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size)
        self.post_init()

    def forward(self, number_values: Tensor | None = None, category_ids: Tensor | None = None) -> BaseModelOutput:
        """Encode rows, as `TableInput` prepares them.

        Args:
            number_values: (batch, 2 x `num_numbers`): the scaled numbers, then 1 for each that was empty; None without
                numbers.
            category_ids: (batch, number of category columns) int64; None without categories.

        Returns:
            `last_hidden_state`, (batch, 1, `hidden_size`).

        Raises:
            ValueError: for inputs of another width.
        """
        wanted = {"number_values": 2 * self.config.num_numbers, "category_ids": len(self.embeddings)}
        given = {"number_values": number_values, "category_ids": category_ids}
        for name, value in given.items():
            width = 0 if value is None else value.shape[-1]
            if width != wanted[name]:
                raise ValueError(f"{name} has {width} columns, but the configuration says {wanted[name]}")
        parts = [] if number_values is None else [number_values]
        if category_ids is not None:
            parts += [embedding(ids) for embedding, ids in zip(self.embeddings, category_ids.unbind(-1), strict=True)]
        states = self.dropout(self.projection(torch.cat(parts, dim=-1)))
        for layer in self.layers:
            states = states + self.dropout(layer(states))
        return BaseModelOutput(last_hidden_state=self.norm(states).unsqueeze(1))
