"""The strength α of a re-learning step: gated, computed from the gap, or set as a constant."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hf_relearn.pairs import read_pairs


def learning_state_alpha(gap: float, relearn_lambda: float = 3.0) -> float:
    """Compute the strength of a purity gap: α = tanh(λ·|gap|) (arXiv 2407.09705, section 3.2).

    Args:
        gap: difference of the two parts' purities; its sign makes no difference.
        relearn_lambda: λ, at least 0.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: the gap is not finite, or λ is negative or not finite.
    """
    if not math.isfinite(gap):
        raise ValueError(f"the purity gap must be a finite number, but is {gap}")
    if not (math.isfinite(relearn_lambda) and relearn_lambda >= 0):
        raise ValueError(f"relearn_lambda must be a finite number >= 0, but is {relearn_lambda}")
    return math.tanh(float(relearn_lambda) * abs(float(gap)))


def gate_alpha(
    memorised: float,
    memorised_error: float,
    rise: float = 0.0,
    rise_error: float = 0.0,
    *,
    threshold: float = 0.3,
    alpha: float = 0.9,
    num_errors: float = 2.0,
    num_rise_errors: float = 2.0,
) -> float:
    """Re-learn a modality only if it has surely memorised, and gains nothing more on held-out samples.

    Args:
        memorised: share of the training separability above chance that held-out samples lack, 0 or more.
        memorised_error: standard error of `memorised`.
        rise: of the held-out separability since the re-learning step before, or since the start of the run.
        rise_error: standard error of the gap of the separabilities.
        threshold: the share above which a modality counts as memorised.
        alpha: strength for a modality that has memorised.
        num_errors: standard errors by which the share has to exceed the threshold.
        num_rise_errors: standard errors by which the held-out separability may rise; beyond, the modality still
            learns what holds on unseen samples, and is kept.

    Returns:
        `alpha` if `memorised - num_errors * memorised_error > threshold` and `rise <= num_rise_errors * rise_error`,
        else 0.
    """
    surely_memorised = memorised - num_errors * memorised_error > threshold
    return alpha if surely_memorised and rise <= num_rise_errors * rise_error else 0.0


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
    """Give each modality its constant strength, or None if strengths are diagnosed.

    A modality that is not named is left alone: its strength is 0.

    Raises:
        ValueError: if a strength is given for a modality that is not re-learnt.
    """
    parsed = parse_alpha(alpha)
    if parsed is None:
        return None
    if isinstance(parsed, float):
        return dict.fromkeys(modalities, parsed)
    if unknown := sorted(set(parsed) - set(modalities)):
        raise ValueError(
            f"--relearn_alpha gives a strength for {', '.join(unknown)}, but the re-learnt modalities are "
            f"{', '.join(modalities)}"
        )
    return {name: parsed.get(name, 0.0) for name in modalities}


def _strength(alpha: float) -> float:
    if not 0 <= alpha <= 1:
        raise ValueError(alpha)
    return alpha
