"""Flags of the training arguments beside those of re-learning. Imports torch only when their values are checked."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hf_relearn.pairs import as_words

if TYPE_CHECKING:
    from hf_relearn.balancing import BalancingMethod


@dataclass
class ParameterSettings:
    """Choose the parameters that train, and how fast. Both fields are flags of the recipes.

    In Python a field takes a string, a list or a mapping, such as `learning_rates={"text": 1e-5}`.

    A *selector* is the name of a modality (its whole encoder), the name of another part of the model (`classifier`,
    `fusion`, `unimodal_heads`), or a regular expression that is searched for in the parameter names
    (`"vision.*embeddings"`). If several match a parameter, the last one counts.
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
            "help": "Modalities, other parts or regular expressions, as in --learning_rates, that are not trained."
        },
    )

    def check_parameters(self) -> None:
        """Bring both into the form of their flags; raise `ValueError` for a value that cannot be read."""
        from hf_relearn.training.parameter_groups import parse_learning_rates

        self.learning_rates, self.freeze = as_words(self.learning_rates), as_words(self.freeze)
        parse_learning_rates(self.learning_rates)


@dataclass
class TargetSettings:
    """Choose how the classes count in the loss."""

    class_weights: list[str] | None = field(
        default=None,
        metadata={
            "help": "Weights of the classes in the loss: a number for each in the order of their indices, or "
            "'balanced', which makes each count alike: n / (k * count), from the training part."
        },
    )

    def check_targets(self) -> None:
        """Raise `ValueError` for weights that are neither numbers of at least 0 nor 'balanced'."""
        if self.class_weights and self.class_weights != ["balanced"]:
            from hf_relearn.training.targets import parse_class_weights

            parse_class_weights(self.class_weights)


@dataclass
class BalancingSettings:
    """Choose another method that balances the modalities, beside re-learning or in its place."""

    balancing: str = field(
        default="none",
        metadata={
            "help": "Another method that balances the modalities; it goes with re-learning, or in its place with "
            "--relearn_strategy no. 'detached': the fused loss does not train the encoders, their heads do. 'ogm_ge': "
            "weaker gradients and noise for the stronger modality. 'mlb': gradients by how far a modality is behind. "
            "'modality_dropout': the stronger modality is dropped at random. 'mmpareto': gradients of fused and own "
            "loss without conflict. All but 'ogm_ge' need heads (--unimodal_loss_weight).",
            "choices": ["none", "detached", "ogm_ge", "mlb", "modality_dropout", "mmpareto"],
        },
    )
    balancing_options: list[str] | None = field(
        default=None,
        metadata={"help": "Constants of --balancing, as 'alpha=0.5'; unset, those of the method's authors."},
    )

    def build_balancing(self) -> "BalancingMethod | None":
        """Build the method that is chosen; None for none.

        Raises:
            ValueError: for an unknown method, or options that it does not take.
        """
        from hf_relearn.balancing import METHODS

        if self.balancing == "none":
            if self.balancing_options:
                raise ValueError("--balancing_options is given, but no --balancing that takes them")
            return None
        if self.balancing not in METHODS:
            raise ValueError(f"--balancing is {self.balancing!r}: choose one of none, {', '.join(METHODS)}")
        method = METHODS[self.balancing]
        options = _numbers(self.balancing_options or (), list(inspect.signature(method).parameters))
        try:
            return method(**options)
        except ValueError as error:
            raise ValueError(f"--balancing_options: {error}") from error


def _numbers(options: Sequence[str], names: list[str]) -> dict[str, float]:
    numbers = {}
    for option in options:
        name, _, value = option.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError as error:
            raise ValueError(f"--balancing_options holds {option!r}: give NAME=NUMBER") from error
        if name not in names:
            raise ValueError(f"--balancing_options names {name!r}, but the method takes {', '.join(names)}")
    return numbers
