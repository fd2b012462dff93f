"""A transformer layer over the tokens of one modality, or from one modality's to others'."""

import torch
from torch import Tensor, nn


class AttentionLayer(nn.Module):
    """Attention and a feed-forward network, each with normalisation before and a residual path around.

    Args:
        hidden_size: width of the tokens, a multiple of the heads.
        num_attention_heads: heads.
        intermediate_size: width inside the feed-forward network.
        dropout: probability, on what each of both adds.
    """

    def __init__(self, hidden_size: int, num_attention_heads: int, intermediate_size: int, dropout: float):
        super().__init__()
        self.num_attention_heads = num_attention_heads
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size, bias=False)  # it would add the same to all keys' scores
        self.value = nn.Linear(hidden_size, hidden_size)
        self.attention_output = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(hidden_size),
            nn.Linear(hidden_size, intermediate_size),
            nn.GELU(),
            nn.Linear(intermediate_size, hidden_size),
        )

    def forward(self, states: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Update `states`.

        Args:
            states: (batch, tokens, hidden size).
            mask: (batch, tokens of the context) bool, True where a token may be attended to; at least one per row.
            context: (batch, tokens, hidden size) what is attended to; the states themselves by default.
        """
        normed = self.attention_norm(states)
        seen = normed if context is None else self.attention_norm(context)
        query, key, value = (
            layer(tokens).unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.query, normed), (self.key, seen), (self.value, seen))
        )
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        states = states + self.dropout(self.attention_output(attended.transpose(1, 2).flatten(2)))
        return states + self.dropout(self.feed_forward(states))


def attendable(mask: Tensor) -> Tensor:
    """Let rows without any token attend to their first one, since attention over nothing is NaN.

    Args:
        mask: (batch, tokens) bool.
    """
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return mask | (first & ~mask.any(dim=1, keepdim=True))
