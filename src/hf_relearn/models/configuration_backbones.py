"""Configurations of the backbones that this library brings: for features, for rows of a table, for a user's module."""

import math
from dataclasses import field

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from .configuration_limits import check_size


def check_heads(hidden_size: int, num_attention_heads: int) -> None:
    """Refuse a width that attention heads cannot share evenly."""
    if hidden_size % num_attention_heads:
        raise ValueError(
            f"hidden_size is {hidden_size}, which {num_attention_heads} attention heads cannot share evenly: choose a "
            "multiple of num_attention_heads"
        )


ARCHITECTURES = ("transformer", "mlp")


class FeaturesConfig(PreTrainedConfig):
    """Configure `FeaturesModel`.

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


class TableConfig(PreTrainedConfig):
    """Configure `TableModel`; `TableInput.backbone_config` makes it of the columns.

    Args:
        num_numbers: columns with numbers.
        cardinalities: of each column with categories, its categories, with those for unknown and empty cells.
        columns: their names, those with numbers first, for whoever reads the configuration.
        embedding_size: width of a category's embedding.
        hidden_size: width of the feature.
        num_hidden_layers: layers.
        intermediate_size: width inside each layer.
        dropout: probability.

    Raises:
        ValueError: for a size out of its range.
    """

    model_type = "hf_relearn_table"

    num_numbers: int = 0
    cardinalities: list[int] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    embedding_size: int = 16
    hidden_size: int = 128
    num_hidden_layers: int = 2
    intermediate_size: int = 256
    dropout: float = 0.1

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.cardinalities, self.columns = list(self.cardinalities), list(self.columns)
        check_size("width", self.num_numbers + len(self.cardinalities), "the number of columns")
        check_size("vocabulary", sum(self.cardinalities), "the number of categories")
        for name in ("embedding_size", "hidden_size", "num_hidden_layers", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but it is at least 1")
        if self.num_numbers < 0 or any(size < 1 for size in self.cardinalities):
            raise ValueError(f"num_numbers is {self.num_numbers} and cardinalities {self.cardinalities}: wrong counts")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, but it is a probability below 1")


class ModuleConfig(PreTrainedConfig):
    """Tell what a module of the user's own takes; `ModuleBackbone` makes it. The module itself is in no file.

    Args:
        input_names: the backbone's arguments: the input, and `attention_mask` if the module takes one.
        input_shape: of one sample.
        module_class: name of the module's class, for messages.

    Raises:
        ValueError: for a shape that is not made of sizes of at least 1.
    """

    model_type = "hf_relearn_module"

    input_names: list[str] = field(default_factory=list)
    input_shape: list[int] = field(default_factory=list)
    module_class: str = ""

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if not all(isinstance(size, int) and size >= 1 for size in self.input_shape):
            raise ValueError(f"input_shape is {self.input_shape}, but it holds whole numbers of at least 1")
        check_size("image pixels", math.prod(self.input_shape), "input_shape")

    # What preprocessors ask of a configuration.

    @property
    def input_size(self) -> int:
        """Width of features."""
        return self.input_shape[-1]

    @property
    def image_size(self) -> list[int] | None:
        """Height and width of images."""
        return self.input_shape[-2:] if len(self.input_shape) >= 3 else None

    @property
    def num_channels(self) -> int | None:
        return self.input_shape[-3] if len(self.input_shape) >= 3 else None

    @property
    def num_frames(self) -> int | None:
        """Length of clips."""
        return self.input_shape[0] if len(self.input_shape) == 4 else None


# Here and not in `__init__`, which code loaded from a repository does not run; an installed package's class stays.
for _config in (FeaturesConfig, TableConfig, ModuleConfig):
    if _config.model_type not in CONFIG_MAPPING:
        AutoConfig.register(_config.model_type, _config)
