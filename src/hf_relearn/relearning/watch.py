"""Watch a run for conditions under which re-learning does harm: clipping, decayed rates, late and early steps."""

import math
import time
import warnings
from collections.abc import Mapping
from typing import Any

from torch.utils.data import DataLoader
from transformers import TrainingArguments
from transformers.trainer_utils import has_length

from hf_relearn.records import Point

# Optimizer steps after a re-learning step whose gradients are looked at.
_WATCHED_STEPS = 20


class EpochClock:
    """Time the epochs of a run, as a measure for the cost of a diagnosis."""

    def __init__(self) -> None:
        self._begun: float | None = None
        self._diagnosing = 0.0
        self._last: float | None = None

    def begin_epoch(self, *, whole: bool) -> None:
        """Start an epoch; one that is resumed in its middle tells nothing."""
        self._begun = time.perf_counter() if whole else None
        self._diagnosing = 0.0

    def end_epoch(self) -> None:
        """Keep the time of an epoch, without the diagnoses in it."""
        if self._begun is not None:
            self._last = time.perf_counter() - self._begun - self._diagnosing

    def share(self, seconds: float) -> float | None:
        """Express the time of a diagnosis as a share of the last whole epoch; None before one has ended."""
        self._diagnosing += seconds
        return seconds / self._last if self._last else None


class GradientWatch:
    """Warn once if clipping takes most of the gradients that follow a re-learning step.

    Args:
        max_grad_norm: `max_grad_norm` of the Trainer; 0 clips nothing.
    """

    def __init__(self, max_grad_norm: float = 0.0):
        self.max_grad_norm = max_grad_norm
        self._left = 0
        self._warned = False

    def begin(self) -> None:
        """Look at the next steps: encoders have moved."""
        self._left = _WATCHED_STEPS

    def observe(self, norm: Any) -> None:
        """Take the norm of a step's gradients before clipping."""
        if self._left == 0 or self._warned or self.max_grad_norm <= 0:
            return
        self._left -= 1
        value = float(norm)
        if math.isfinite(value) and value > 3 * self.max_grad_norm:
            self._warned = True
            warnings.warn(
                f"--max_grad_norm {self.max_grad_norm:g} cuts gradients of norm {value:.1f} to less than a third just "
                "after a re-learning step, so the encoders that moved back learn too slowly: use --max_grad_norm 0",
                stacklevel=2,
            )


def steps_per_epoch(train_dataloader: Any, args: TrainingArguments) -> int | None:
    """Count the optimizer steps of an epoch; None for a stream of unknown length."""
    if not isinstance(train_dataloader, DataLoader) or not has_length(train_dataloader):
        return None
    return max(1, math.ceil(len(train_dataloader) / args.gradient_accumulation_steps))


def decay_of(lr_scheduler: Any) -> float | None:
    """Tell the present learning rate as a share of the scheduler's base rate; None if it does not tell."""
    base = getattr(lr_scheduler, "base_lrs", None)
    if not base or not hasattr(lr_scheduler, "get_last_lr"):
        return None
    shares = [now / rate for now, rate in zip(lr_scheduler.get_last_lr(), base, strict=True) if rate > 0]
    return max(shares, default=None)


def warn_of_constant_strength(
    point: Point, alphas: Mapping[str, float], share_of_run: float, decay: float | None
) -> None:
    """Warn of a constant strength where it was measured to do harm.

    Args:
        point: the diagnosis at this step, or one without diagnoses.
        alphas: modality -> constant strength.
        share_of_run: of the run's optimizer steps that have passed.
        decay: present learning rate as a share of the base rate, if known.
    """
    if not any(alphas.values()):
        return
    if share_of_run > 0.5:
        warnings.warn(
            f"a constant --relearn_strength after {share_of_run:.0%} of the run leaves the encoders under-trained: "
            "re-learn in the first half (--relearn_points), or use --relearn_strength gate",
            stacklevel=2,
        )
    if decay is not None and decay < 1 / 3:
        warnings.warn(
            f"the learning rate has decayed to {decay:.0%} of its start, too low to train moved encoders anew: "
            "re-learn earlier (--relearn_points), or use --relearn_strength gate",
            stacklevel=2,
        )
    for name, alpha in alphas.items():
        accuracies = point.head_accuracies.get(name)
        if alpha > 0 and accuracies is not None and point.num_classes:
            chance = 1 / point.num_classes
            if accuracies[0] < chance + 0.1 * (1 - chance):
                warnings.warn(
                    f"the uni-modal head of {name!r} has hardly learnt yet ({accuracies[0]:.0%} of the training "
                    "samples right), so there is little to re-learn: re-learn later, or use --relearn_strength gate",
                    stacklevel=2,
                )


def warn_of_difference_at_start(point: Point) -> None:
    """Warn if held-out samples differ from training samples before any training."""
    for name, diagnosis in point.diagnoses.items():
        if diagnosis.standard_error is not None and diagnosis.gap > 2 * diagnosis.standard_error:
            warnings.warn(
                f"before training the held-out samples of {name!r} already differ from the training samples (gap "
                f"{diagnosis.gap:.2f} ± {diagnosis.standard_error:.2f}), as with other speakers or subjects: part of "
                "the gaps to come is this difference",
                stacklevel=2,
            )
