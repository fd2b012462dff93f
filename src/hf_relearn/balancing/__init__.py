"""Floor 3: methods beside re-learning that balance modalities, one file each."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field

from hf_relearn.balancing.base import BalancingMethod, ScoredMethod
from hf_relearn.balancing.detached import DetachedFusion
from hf_relearn.balancing.mlb import MultiLossBalancing
from hf_relearn.balancing.mmpareto import MMPareto
from hf_relearn.balancing.modality_dropout import ModalityDropout
from hf_relearn.balancing.ogm_ge import OgmGe

METHODS: dict[str, type[BalancingMethod]] = {
    "detached": DetachedFusion,
    "ogm_ge": OgmGe,
    "mlb": MultiLossBalancing,
    "modality_dropout": ModalityDropout,
    "mmpareto": MMPareto,
}


@dataclass
class BalancingSettings:
    """Which other method balances the modalities, beside re-learning or in its place."""

    balancing: str = field(
        default="none",
        metadata={
            "help": "Another method that balances the modalities; it goes with re-learning, or in its place with "
            "--relearn_strategy no. 'detached': the fused loss does not train the encoders, their heads do. 'ogm_ge': "
            "weaker gradients and noise for the stronger modality. 'mlb': gradients by how far a modality is behind. "
            "'modality_dropout': the stronger modality is dropped at random. 'mmpareto': gradients of fused and own "
            "loss without conflict. All but 'ogm_ge' need heads (--unimodal_loss_weight).",
            "choices": ["none", *METHODS],
        },
    )
    balancing_options: list[str] | None = field(
        default=None,
        metadata={"help": "Constants of --balancing, as 'alpha=0.5'; unset, those of the method's authors."},
    )

    def build_balancing(self) -> BalancingMethod | None:
        """The method that is chosen; None for none.

        Raises:
            ValueError: for an unknown method, or options that it does not take.
        """
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


__all__ = [
    "METHODS",
    "BalancingMethod",
    "BalancingSettings",
    "DetachedFusion",
    "MMPareto",
    "ModalityDropout",
    "MultiLossBalancing",
    "OgmGe",
    "ScoredMethod",
]
