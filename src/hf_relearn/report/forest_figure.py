"""The figure of a comparison: one row for each arm, its paired differences and their intervals."""

from collections.abc import Mapping
from statistics import fmean

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_relearn.report.statistics import LEVEL, Paired
from hf_relearn.report.theme import FAINT, FIGURE_WIDTH, INK, MARK, MUTED, STYLE

_GAIN, _LOSS = "#00838f", "#c2185b"


@matplotlib.rc_context(STYLE)
def forest_figure(
    values: Mapping[str, Mapping[int, float]],
    pairs: Mapping[str, Mapping[str, Paired]],
    corrected: Mapping[str, Mapping[str, float | None]],
    metric: str,
) -> Figure:
    """Draw each arm's paired difference to each baseline, in points, with its 95 % interval and its single seeds.

    Args:
        values: Arm -> seed -> value.
        pairs: Baseline -> arm -> comparison.
        corrected: Baseline -> arm -> corrected p; below 0.05 a difference is coloured.
        metric: For the title.

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
                single = [100 * (own[seed] - others[seed]) for seed in own if seed in others]
                axes.plot(single, [row] * len(single), "o", color=MARK, markersize=3.5, zorder=2)
                _draw_pair(axes, row, found[arm], corrected[baseline][arm])
            elif arm == baseline:
                axes.plot(0, row, "D", color=MUTED, markersize=5, zorder=3)
        axes.set_title(f"difference to {baseline}, points", color=INK)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        axes.margins(x=0.12)
    labels = [f"{arm}   {100 * fmean(own.values()):.1f}" for arm, own in values.items()]
    panels[0].set_yticks(list(rows.values()), labels)
    panels[0].tick_params(axis="y", labelcolor=INK, labelsize=9)
    panels[0].set_ylim(len(rows) - 0.4, -0.7)
    figure.supxlabel(
        f"Beside each name: mean test {metric}, percent.  Bars: 95 % intervals of paired differences.  Small dots: "
        "seeds.\nColoured: a gain or a loss that chance does not explain (Holm's p below "
        f"{LEVEL:g}).",
        fontsize=8,
        color=MUTED,
    )
    return figure


def _draw_pair(axes: Axes, row: int, pair: Paired, p: float | None) -> None:
    told = p is not None and p < LEVEL
    color = (_GAIN if pair.mean > 0 else _LOSS) if told else MUTED
    if pair.low is not None and pair.high is not None:
        axes.plot([100 * pair.low, 100 * pair.high], [row, row], color=color, linewidth=2.2, zorder=3)
    axes.plot(100 * pair.mean, row, "o", color=color, markersize=7, markeredgecolor="white", zorder=4)
    error = "" if pair.se is None else f" ± {100 * pair.se:.1f}"
    axes.annotate(
        f"{round(100 * pair.mean, 1) + 0.0:+.1f}{error}",
        xy=(100 * pair.mean, row),
        xytext=(0, 6),
        textcoords="offset points",
        ha="center",
        fontsize=7.5,
        color=color if told else INK,
    )
