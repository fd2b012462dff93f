"""Configuration of the encoder for features that were extracted already."""

from transformers import PreTrainedConfig

from .configuration_fusion import check_heads

ARCHITECTURES = ("transformer", "mlp")


class FeaturesConfig(PreTrainedConfig):
    """Configuration of `FeaturesModel`.

    Args:
        input_size: width of the features, one value per dimension; it has no default.
        architecture: `"transformer"`, whose tokens see each other, for sequences; `"mlp"`, which looks at each step by
            itself, for vectors (sensors, rows of a table).
        hidden_size: width of the tokens; of a transformer a multiple of the heads.
        num_hidden_layers: layers.
        num_attention_heads: heads of a transformer.
        intermediate_size: width inside each layer.
        dropout: probability.
        max_position_embeddings: steps at most that a transformer takes.

    Raises:
        ValueError: for an unknown architecture or a size out of its range.
    """

    model_type = "hf_relearn_features"

    input_size: int | None = None
    architecture: str = "transformer"
    hidden_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    intermediate_size: int = 256
    dropout: float = 0.1
    max_position_embeddings: int = 512

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {self.architecture!r}: use one of {', '.join(ARCHITECTURES)}")
        sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        for name in (*sizes, "max_position_embeddings", "input_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, but it is at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, but it is a probability below 1")
        if self.architecture == "transformer":
            check_heads(self.hidden_size, self.num_attention_heads)
