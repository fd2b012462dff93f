"""Schedule re-learning steps: a pure function of the settings, the run's length and its record."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

# The steps of re-learning that a run has if nothing else is asked for, as shares of its optimizer steps.
DEFAULT_POINTS = (0.25, 0.5)


@dataclass(frozen=True)
class RelearnSchedule:
    """Plan the re-learning steps of a run.

    Args:
        strategy: `"no"`, `"epoch"` or `"steps"`.
        interval: epochs or steps between re-learning steps; None places them by `points`.
        max_times: re-learning steps at most, with `interval`.
        num_epochs, num_steps: the run's length; `sys.maxsize` epochs, as the Trainer has it, if the data are a
            stream of unknown length, whose epochs cannot be counted.
        points: shares of the planned optimizer steps, in (0, 1). With the strategy `"epoch"` each is moved back to
            the start of its epoch, but not to the start of the run.
        steps_per_epoch: optimizer steps of an epoch; None if it is not known.
    """

    strategy: str
    interval: int | None
    max_times: int
    num_epochs: int
    num_steps: int
    points: Sequence[float] = DEFAULT_POINTS
    steps_per_epoch: int | None = None

    @property
    def by_epoch(self) -> bool:
        """Whether positions are completed epochs, not completed optimizer steps."""
        return self.strategy == "epoch" and self.interval is not None

    def planned(self) -> list[int]:
        """Return completed epochs (or steps) that re-learning steps follow; none comes at the run's very end."""
        if self.strategy == "no" or self._uncountable:
            return []
        if self.interval is not None:
            length = self.num_epochs if self.by_epoch else self.num_steps
            return list(range(self.interval, length, self.interval))[: self.max_times]
        return sorted({step for step in map(self._step_of, self.points) if 0 < step < self.num_steps})

    def _step_of(self, share: float) -> int:
        step = round(share * self.num_steps)
        if self.strategy == "epoch" and self.steps_per_epoch:
            return step // self.steps_per_epoch * self.steps_per_epoch or step
        return step

    @property
    def _uncountable(self) -> bool:
        return self.by_epoch and self.num_epochs == sys.maxsize

    def why_no_point(self) -> str | None:
        """Say why no re-learning step will come although some are wanted; None if one comes or none is wanted."""
        if self.strategy == "no" or (self.interval is not None and self.max_times == 0) or self.planned():
            return None
        if self._uncountable:
            return (
                "no re-learning step will come: the training data are a stream of unknown length, whose epochs "
                "cannot be counted; use --relearn_strategy steps"
            )
        if self.interval is None:
            return f"no re-learning step will come: the run has {self.num_steps} optimizer steps; train longer"
        length, unit = (self.num_epochs, "epochs") if self.by_epoch else (self.num_steps, "steps")
        return (
            f"no re-learning step will come: --relearn_interval is {self.interval} {unit}, but the run has "
            f"{length}, and something has to follow it; train longer or shorten the interval"
        )

    def is_due(self, completed: int, taken: int) -> bool:
        """Check whether a re-learning step comes after `completed` epochs (or steps), if `taken` came before."""
        return completed in self.planned() and (self.interval is None or taken < self.max_times)

    def share(self, step: int) -> float:
        """Return the share of the run that has passed at an optimizer step."""
        return step / self.num_steps


def whole_epoch(epoch: float | None) -> int | None:
    """Count the completed epochs; None in the middle of an epoch (as after resuming there)."""
    return round(epoch) if epoch is not None and abs(epoch - round(epoch)) < 1e-9 else None
