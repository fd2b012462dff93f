"""The figure of a comparison: one row for each arm, its paired differences and their intervals."""

from collections.abc import Mapping
from statistics import fmean

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_relearn.report.judging import Measure
from hf_relearn.report.statistics import LEVEL, Paired
from hf_relearn.report.theme import FAINT, FIGURE_WIDTH, INK, MARK, MUTED, STYLE

_GAIN, _LOSS = "#00838f", "#c2185b"


@matplotlib.rc_context(STYLE)
def forest_figure(
    values: Mapping[str, Mapping[int, float]],
    measure: Measure,
    pairs: Mapping[str, Mapping[str, Paired]],
    corrected: Mapping[str, Mapping[str, float | None]],
) -> Figure:
    """Draw each arm's paired difference to each baseline, with its 95 % interval and its single seeds.

    Args:
        values: Arm -> seed -> value.
        measure: How they are written.
        pairs: Baseline -> arm -> comparison.
        corrected: Baseline -> arm -> corrected p; below 0.05 a difference is coloured.

    Returns:
        The figure.
    """
    rows = {arm: place for place, arm in enumerate(values)}
    height = 1.1 + 0.36 * len(rows)
    figure = Figure(figsize=(FIGURE_WIDTH, height), layout="constrained")
    panels = figure.subplots(1, len(pairs), sharey=True, squeeze=False)[0]
    for axes, (baseline, found) in zip(panels, pairs.items(), strict=True):
        axes.axvline(0, color=FAINT, linewidth=1.0, zorder=1)
        for arm, row in rows.items():
            if arm in found:
                own, others = values[arm], values[baseline]
                single = [measure.factor * (own[seed] - others[seed]) for seed in own if seed in others]
                axes.plot(single, [row] * len(single), "o", color=MARK, markersize=3.5, zorder=2)
                _draw_pair(axes, row, measure, found[arm], corrected[baseline][arm])
            elif arm == baseline:
                axes.plot(0, row, "D", color=MUTED, markersize=5, zorder=3)
        axes.set_title(f"difference to {baseline}{', points' if measure.percent else ''}", color=INK)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        axes.margins(x=0.12)
    labels = [f"{arm}   {measure.value(fmean(own.values()))}" for arm, own in values.items()]
    panels[0].set_yticks(list(rows.values()), labels)
    panels[0].tick_params(axis="y", labelcolor=INK, labelsize=9)
    panels[0].set_ylim(len(rows) - 0.4, -0.7)
    figure.supxlabel(
        f"Beside each name: mean test {measure.label}{', percent' if measure.percent else ''}.  Bars: 95 % intervals "
        "of paired differences.  Small dots: seeds.\n"
        f"Coloured: a gain or a loss that chance does not explain (Holm's p below {LEVEL:g}).",
        fontsize=8,
        color=MUTED,
    )
    return figure


def _draw_pair(axes: Axes, row: int, measure: Measure, pair: Paired, p: float | None) -> None:
    told, factor = p is not None and p < LEVEL, measure.factor
    color = (_GAIN if (pair.mean < 0) == measure.lower else _LOSS) if told else MUTED
    if pair.low is not None and pair.high is not None:
        axes.plot([factor * pair.low, factor * pair.high], [row, row], color=color, linewidth=2.2, zorder=3)
    axes.plot(factor * pair.mean, row, "o", color=color, markersize=7, markeredgecolor="white", zorder=4)
    axes.annotate(
        measure.difference(pair.mean, pair.se),
        xy=(factor * pair.mean, row),
        xytext=(0, 6),
        textcoords="offset points",
        ha="center",
        fontsize=7.5,
        color=color if told else INK,
    )
