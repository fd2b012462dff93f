"""The strength α of a re-learning: computed from a gap, or set as a constant."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hf_relearn.pairs import read_pairs


def learning_state_alpha(gap: float, relearn_lambda: float = 3.0) -> float:
    """Strength of the re-learning for a purity gap: alpha = tanh(lambda * |gap|).

    Args:
        gap: difference of the two parts' purities; its sign makes no difference.
        relearn_lambda: lambda, >= 0.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: the gap is not finite, or lambda is negative or not finite.
    """
    if not math.isfinite(gap):
        raise ValueError(f"the purity gap must be a finite number, but is {gap}")
    if not (math.isfinite(relearn_lambda) and relearn_lambda >= 0):
        raise ValueError(f"relearn_lambda must be a finite number >= 0, but is {relearn_lambda}")
    return math.tanh(float(relearn_lambda) * abs(float(gap)))


def parse_alpha(alpha: str | float | Mapping[str, float] | None) -> float | dict[str, float] | None:
    """Read a constant strength: a number for every modality, or `modality=number` pairs with commas between.

    Raises:
        ValueError: if it is neither, or a number lies outside [0, 1].
    """
    if alpha is None:
        return None
    pairs: Any = dict(alpha) if isinstance(alpha, Mapping) else str(alpha)
    try:
        if isinstance(pairs, str):
            if "=" not in pairs:
                return _strength(float(pairs))
            pairs = read_pairs("--relearn_alpha", pairs.split(","))
        return {name: _strength(float(value)) for name, value in pairs.items()}
    except (TypeError, ValueError):
        raise ValueError(
            f"--relearn_alpha is {alpha!r}: give a number in [0, 1], or one per modality as 'audio=0.9,vision=0.5'"
        ) from None


def constant_alphas(alpha: Any, modalities: Sequence[str]) -> dict[str, float] | None:
    """The constant strength of each modality, or None where strengths are diagnosed.

    Raises:
        ValueError: if strengths are given per modality, but not for exactly these modalities.
    """
    parsed = parse_alpha(alpha)
    if parsed is None:
        return None
    if isinstance(parsed, float):
        return dict.fromkeys(modalities, parsed)
    if set(parsed) != set(modalities):
        raise ValueError(
            f"--relearn_alpha gives strengths for {', '.join(parsed)}, but the re-learnt modalities are "
            f"{', '.join(modalities)}: name each of them once"
        )
    return {name: parsed[name] for name in modalities}


def _strength(alpha: float) -> float:
    if not 0 <= alpha <= 1:
        raise ValueError(alpha)
    return alpha
