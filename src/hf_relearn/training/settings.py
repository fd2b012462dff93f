"""Flags of the training arguments beside those of re-learning. Imports torch only when their values are checked."""

from dataclasses import dataclass, field


@dataclass
class ParameterSettings:
    """Which parameters train, and how fast. Both fields are flags of the recipes.

    A *selector* is the name of a modality (its whole encoder), the name of another part of the model (`classifier`,
    `fusion`, `unimodal_heads`), or a regular expression that is searched for in the parameter names
    (`"vision.*embeddings"`). Where several match a parameter, the last one counts.
    """

    learning_rates: list[str] | None = field(
        default=None,
        metadata={
            "help": "Learning rates that differ from --learning_rate, as 'selector=rate': 'text=1e-5' for the encoder "
            "of a modality, 'classifier=1e-3' for another part, 'vision.*embeddings=1e-6' for parameters in whose "
            "names the regular expression is found. The last one that matches counts; the schedule scales all alike."
        },
    )
    freeze: list[str] | None = field(
        default=None,
        metadata={
            "help": "What is not trained: modalities, other parts, or regular expressions, as in --learning_rates."
        },
    )

    def check_parameters(self) -> None:
        """Raise `ValueError` for what cannot be read as a selector and a learning rate."""
        from hf_relearn.training.parameter_groups import parse_learning_rates

        parse_learning_rates(self.learning_rates)


@dataclass
class TargetSettings:
    """How the classes count in the loss."""

    class_weights: list[str] | None = field(
        default=None,
        metadata={
            "help": "Weights of the classes in the loss: a number for each in the order of their indices, or "
            "'balanced', which makes each count alike: n / (k * count), from the training part."
        },
    )

    def check_targets(self) -> None:
        """Raise `ValueError` for weights that are no numbers of at least 0, nor 'balanced'."""
        if self.class_weights and self.class_weights != ["balanced"]:
            from hf_relearn.training.targets import parse_class_weights

            parse_class_weights(self.class_weights)
