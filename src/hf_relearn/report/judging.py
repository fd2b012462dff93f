"""Judge the arms of a comparison: paired differences over seeds, and the sentences that follow from them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hf_relearn.quality import LOWER_IS_BETTER
from hf_relearn.report.markdown import listed, metric_label, plain
from hf_relearn.report.statistics import LEVEL, Paired, compare_paired, holm, visible_difference

BASELINES = ("joint", "heads")
_OF_NUMBERS = ("r2", "pearson")
_ERRORS = ("loss", "mae", "nll")


@dataclass(frozen=True)
class Measure:
    """Describe how the values of a metric are written; `Measure.of` chooses.

    Args:
        name: of the metric.
        percent: whether values are written as percent, and differences as points.
        digits: behind the decimal point.
    """

    name: str
    percent: bool = True
    digits: int = 1

    @classmethod
    def of(cls, name: str, values: Iterable[float]) -> "Measure":
        """Choose how a metric is written. A metric with a value beyond -1 and 1 is no share.

        Args:
            name: of the metric.
            values: all that are to be written; large errors need fewer digits.
        """
        largest = max(map(abs, values), default=0.0)
        if name.startswith("shapley_r2_") or name.endswith(_OF_NUMBERS):
            return cls(name, percent=False, digits=3)
        if largest <= 1 and not name.endswith(_ERRORS):
            return cls(name)
        return cls(name, percent=False, digits=max(0, 2 - math.floor(math.log10(largest or 1.0))))

    @property
    def label(self) -> str:
        """The metric in words."""
        return plain(metric_label(self.name))

    @property
    def lower(self) -> bool:
        """Whether the lower value is the better one."""
        return self.name.endswith(LOWER_IS_BETTER)

    @property
    def factor(self) -> int:
        """By which a value is multiplied before it is written."""
        return 100 if self.percent else 1

    @property
    def of_differences(self) -> str:
        """The unit of differences: `points`, or the measure itself."""
        return "points" if self.percent else f"in {self.label}"

    @property
    def units(self) -> str:
        """A sentence that tells how to read a table of values and differences."""
        shares, others = "Values are percent, differences are points.", f"Values and differences are {self.label}."
        units = shares if self.percent else others
        return f"{units} The lower value is the better one." if self.lower else units

    def value(self, value: float, spread: float | None = None) -> str:
        """Write a value, and ± its standard deviation if there is one."""
        return f"{self.factor * value:.{self.digits}f}{self._spread(spread)}"

    def difference(self, value: float, error: float | None = None) -> str:
        """Write a difference with its sign, and ± its standard error if there is one."""
        # Adding 0 turns a negative zero, which rounding may leave, into a positive one.
        rounded = round(self.factor * value, self.digits) + 0.0
        return f"{rounded:+.{self.digits}f}{self._spread(error)}"

    def changes(self, pair: Paired) -> str:
        """Tell that an arm gains or loses so much."""
        better = (pair.mean < 0) == self.lower
        verb = ("is better by" if better else "is worse by") if self.lower else ("gains" if better else "loses")
        return f"{verb} {self.value(abs(pair.mean), pair.se or 0.0)}"

    def _spread(self, value: float | None) -> str:
        return "" if value is None else f" ± {self.factor * value:.{self.digits}f}"


@dataclass(frozen=True)
class Verdict:
    """Hold the comparison of all arms over the seeds, at one choice of the epoch.

    Args:
        values: arm -> seed -> value.
        measure: how they are written, and whether lower ones are better.
        pairs: baseline -> arm -> paired comparison.
        corrected: baseline -> arm -> p of the paired t test, by Holm over all comparisons of the table.
        conclusion: sentences.
    """

    values: Mapping[str, Mapping[int, float]]
    measure: Measure
    pairs: Mapping[str, Mapping[str, Paired]]
    corrected: Mapping[str, Mapping[str, float | None]]
    conclusion: Sequence[str]


def judge(values: Mapping[str, Mapping[int, float]], metric: str = "accuracy") -> Verdict:
    """Compare every arm with joint training and with heads, over the seeds that both have.

    Args:
        values: arm -> seed -> value. If neither baseline is there, the first arm is one.
        metric: What the values are of.
    """
    measure = Measure.of(metric, (value for own in values.values() for value in own.values()))
    baselines = [name for name in BASELINES if name in values] or list(values)[:1]
    pairs: dict[str, dict[str, Paired]] = {}
    for baseline in baselines:
        others = {arm: own for arm, own in values.items() if arm != baseline}
        found = {arm: compare_paired(own, values[baseline], lower=measure.lower) for arm, own in others.items()}
        pairs[baseline] = {arm: pair for arm, pair in found.items() if pair is not None}
    # Heads to joint and joint to heads is one comparison.
    tests = {frozenset((base, arm)): pair.p_t for base, found in pairs.items() for arm, pair in found.items()}
    by_test = dict(zip(tests, holm(list(tests.values())), strict=True))
    corrected = {base: {arm: by_test[frozenset((base, arm))] for arm in found} for base, found in pairs.items()}
    return Verdict(values, measure, pairs, corrected, _conclude(values, measure, pairs, corrected))


def _conclude(
    values: Mapping[str, Mapping[int, float]],
    measure: Measure,
    pairs: Mapping[str, Mapping[str, Paired]],
    corrected: Mapping[str, Mapping[str, float | None]],
) -> list[str]:
    sentences = []
    for place, (baseline, found) in enumerate(pairs.items()):
        if not found:
            continue
        told = [arm for arm, p in corrected[baseline].items() if p is not None and p < LEVEL]
        compared = [arm for arm in found if place == 0 or arm not in list(pairs)[:place]]
        by_size = sorted(told, key=lambda arm: -abs(found[arm].mean))
        gains = [arm for arm in by_size if (found[arm].mean < 0) == measure.lower]
        if gains:
            parts = [f"{arm} {measure.changes(found[arm])}" for arm in gains]
            sentences.append(f"Over {baseline}, {listed(parts)} {measure.of_differences}.")
        elif compared:
            sentences.append(f"Nothing gains over {baseline} beyond chance.")
        losses = [arm for arm in by_size if arm not in gains and arm in compared]
        if losses:
            parts = [f"{arm} {measure.changes(found[arm])}" for arm in losses]
            sentences.append(f"Against {baseline}, {listed(parts)} {measure.of_differences}.")
    counts = sorted({len(own) for own in values.values()})
    seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else f"{counts[0]} seed" + "s" * (counts[0] != 1)
    if counts[-1] < 2:
        return [f"With {seeds}, no difference can be told from chance: give --compare_seeds 3 or more."]
    seen = visible_difference([pair for found in pairs.values() for pair in found.values()])
    if seen is not None:
        sentences.append(
            f"With {seeds}, differences below {measure.value(seen)} {measure.of_differences} cannot be seen."
        )
    return sentences
