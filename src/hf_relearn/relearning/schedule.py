"""When re-learning points come: a pure function of the settings, the run's length and its record."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class RelearnSchedule:
    """Points at the start of the epoch (or step) that follows each completed interval.

    Args:
        strategy: `"no"`, `"epoch"` or `"steps"`.
        interval: epochs or steps between points; None spreads `max_times` points evenly over the run.
        max_times: points at most.
        num_epochs, num_steps: the run's length; `sys.maxsize` epochs, as the Trainer has it, where the data are a
            stream of unknown length, whose epochs cannot be counted.
    """

    strategy: str
    interval: int | None
    max_times: int
    num_epochs: int
    num_steps: int

    @property
    def length(self) -> int:
        """The run's length in the schedule's unit."""
        return self.num_epochs if self.strategy == "epoch" else self.num_steps

    @property
    def every(self) -> int:
        """Epochs or steps between points."""
        return self.interval or max(1, self.length // (self.max_times + 1))

    def planned(self) -> range:
        """Completed epochs (or steps) at which points come; at the run's very end nothing would follow one."""
        if self.strategy == "no" or self._uncountable:
            return range(0)
        return range(self.every, self.length, self.every)[: self.max_times]

    @property
    def _uncountable(self) -> bool:
        return self.strategy == "epoch" and self.num_epochs == sys.maxsize

    def why_no_point(self) -> str | None:
        """What to tell where points are wanted, but none will come."""
        if self.strategy == "no" or self.max_times == 0 or self.planned():
            return None
        if self._uncountable:
            return (
                "no re-learning point will come: the training data are a stream of unknown length, whose epochs "
                "cannot be counted; use --relearn_strategy steps"
            )
        unit = "epochs" if self.strategy == "epoch" else "steps"
        return (
            f"no re-learning point will come: --relearn_interval is {self.every} {unit}, but the run has "
            f"{self.length}, and a point needs something to follow it; train longer or shorten the interval"
        )

    def is_due(self, completed: int, taken: int) -> bool:
        """Whether a point comes after `completed` epochs (or steps), when `taken` points were taken before."""
        return completed in self.planned() and taken < self.max_times


def whole_epoch(epoch: float | None) -> int | None:
    """The number of completed epochs, or None in the middle of an epoch (as after resuming there)."""
    return round(epoch) if epoch is not None and abs(epoch - round(epoch)) < 1e-9 else None
