"""Figures of the diagnosis: purity of both parts over training, and the strength of every re-learning point."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_relearn.records import (
    Record,
    diagnosis_series,
    epoch_of,
    finite,
    modality_entry,
    modality_order,
    relearning_points,
)
from hf_relearn.report.theme import (
    FAINT,
    FIGURE_WIDTH,
    INK,
    MARK,
    MUTED,
    STYLE,
    NothingToDraw,
    label_line_ends,
    modality_colors,
    set_epoch_axis,
    sparse_positions,
)

MOST_MARKERS = 25  # more records than this are drawn as plain lines
MOST_DISTANCES = 16  # more lollipops than this carry no distance
MOST_STRENGTHS = 32  # more lollipops than this carry no number at all


@matplotlib.rc_context(STYLE)
def purity_figure(records: Sequence[Record], modalities: Sequence[str] | None = None) -> Figure:
    """Purity of the training and of the held-out part over training, one panel per modality.

    The space between both curves is the gap g that the diagnosed strength α = tanh(λ·g) follows from ("Diagnosing and
    Re-learning for Balanced Multimodal Learning", ECCV 2024, arXiv 2407.09705); vertical lines are re-learning points
    with the strength applied there.

    Args:
        records: Diagnosis records.
        modalities: Names in the order that fixes the colours; by default the order of the records.

    Returns:
        The figure, with at most three panels side by side and as many rows as needed.

    Raises:
        NothingToDraw: No record holds a purity.
    """
    colors = modality_colors(modalities or modality_order(records))
    shown = [name for name in colors if diagnosis_series(records, name, "train_purity")[0].size]
    shown += [name for name in colors if name not in shown and diagnosis_series(records, name, "val_purity")[0].size]
    if not shown:
        raise NothingToDraw("no record holds a purity (a run with a set strength and no diagnosing part has none)")
    shown = [name for name in colors if name in shown]
    columns = len(shown) if len(shown) <= 3 else (2 if len(shown) == 4 else 3)
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(FIGURE_WIDTH, 0.35 + 2.95 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, sharex=True, squeeze=False)
    points = relearning_points(records)
    epochs = [epoch for record in records if (epoch := epoch_of(record)) is not None]
    for place, axes in enumerate(grid.flat):
        if place >= len(shown):
            axes.set_axis_off()
            continue
        set_epoch_axis(axes, epochs)
        axes.set_ylim(0, 1.02)
        axes.set_title(shown[place], color=colors[shown[place]], pad=20 if points else 9)
        # A panel whose row below is empty shows the epochs itself.
        if place + columns >= len(shown):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("epoch")
        if place % columns == 0:
            axes.set_ylabel("purity")
        _draw_points(axes, points, shown[place], label_distance=0.05 * columns)
        _draw_purity(axes, records, shown[place], colors[shown[place]])
    return figure


def _draw_purity(axes: Axes, records: Sequence[Record], modality: str, color: str) -> None:
    labels: list[tuple[float, str, str]] = []
    series = {part: diagnosis_series(records, modality, f"{part}_purity") for part in ("train", "val")}
    common, train_at, val_at = np.intersect1d(series["train"][0], series["val"][0], return_indices=True)
    train, val = series["train"][1][train_at], series["val"][1][val_at]
    axes.fill_between(common, val, train, color=color, alpha=0.13, linewidth=0)
    if common.size == 1:
        axes.vlines(common, val, train, color=color, alpha=0.25, linewidth=5)
    for part, label, line in (("train", "train", "-"), ("val", "held out", (0, (4, 1.6)))):
        epochs, values = series[part]
        marker = "o" if epochs.size <= MOST_MARKERS else None
        fill = color if part == "train" else "white"
        axes.plot(
            epochs,
            values,
            color=color,
            linestyle=line,
            marker=marker,
            markersize=4.5,
            markerfacecolor=fill,
            markeredgewidth=1.3,
            clip_on=False,
            zorder=3,
        )
        if values.size:
            labels.append((float(values[-1]), label, color))
    chances = [diagnosis_series(records, modality, f"{part}_chance_purity") for part in ("train", "val")]
    for epochs, values in chances:
        if epochs.size == 1:
            axes.axhline(values[0], color=FAINT, linewidth=1.1, linestyle=":")
        else:
            axes.plot(epochs, values, color=FAINT, linewidth=1.1, linestyle=":")
    last_chances = [float(values[-1]) for _, values in chances if values.size]
    if last_chances:
        labels.append((sum(last_chances) / len(last_chances), "chance", MUTED))
    label_line_ends(axes, labels)


def _draw_points(axes: Axes, points: Sequence[Record], modality: str, *, label_distance: float) -> None:
    strengths = [
        (epoch_of(point) or 0.0, alpha)
        for point in points
        if (alpha := finite(modality_entry(point, modality).get("alpha"))) is not None
    ]
    epochs = [epoch for epoch, _ in strengths]
    for epoch in epochs:
        # Many full lines would be a fence before the curves; short ticks at the upper edge say the same.
        axes.axvline(epoch, ymin=0.97 if len(epochs) > MOST_MARKERS else 0, color=MARK, linewidth=1.0, zorder=1)
    span = axes.get_xlim()[1] - axes.get_xlim()[0]
    for index in sparse_positions(epochs, label_distance * span):
        epoch, alpha = strengths[index]
        axes.annotate(
            f"α {alpha:.2f}" if index == 0 else f"{alpha:.2f}",
            xy=(epoch, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=7.5,
            color=MUTED,
        )


@matplotlib.rc_context(STYLE)
def alpha_figure(records: Sequence[Record], modalities: Sequence[str] | None = None) -> Figure:
    """Strength α of every re-learning point and modality, with the relative distance its weights moved.

    A hollow mark shows what the diagnosis asked for, where a set strength took its place.

    Args:
        records: Diagnosis records.
        modalities: Names in the order that fixes the colours; by default the order of the records.

    Returns:
        The figure: a lollipop for each point and modality, numbers beside them as long as they fit.

    Raises:
        NothingToDraw: No record is a re-learning point with a strength.
    """
    colors = modality_colors(modalities or modality_order(records))
    moved = [point for point in relearning_points(records) if any(_has_strength(point, name) for name in colors)]
    if not moved:
        raise NothingToDraw("no encoder was moved in this run")
    shown = [name for name in colors if any(_has_strength(point, name) for point in moved)]
    figure = Figure(figsize=(FIGURE_WIDTH, 3.3), layout="constrained")
    axes = figure.subplots()
    offsets = (np.arange(len(shown)) - (len(shown) - 1) / 2) * min(0.8 / len(shown), 0.28)
    lollipops = len(moved) * len(shown)
    overridden = False
    for modality, offset in zip(shown, offsets, strict=True):
        axes.plot([], [], "o", color=colors[modality], markersize=6, label=modality)
        for place, point in enumerate(moved):
            entry = modality_entry(point, modality)
            overridden |= _draw_lollipop(axes, place + float(offset), entry, colors[modality], lollipops)
    if overridden:
        axes.plot([], [], "o", markerfacecolor="white", markeredgecolor=MUTED, label="asked for by the diagnosis")
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.set_xlim(-0.6, len(moved) - 0.4)
    labelled = sparse_positions(range(len(moved)), len(moved) / 12)
    axes.set_xticks(labelled, [f"epoch {epoch_of(moved[place]):g}" for place in labelled])
    if len(labelled) > 6:
        axes.set_xticks(labelled, [f"{epoch_of(moved[place]):g}" for place in labelled])
        axes.set_xlabel("epoch of the re-learning point")
    axes.set_ylabel("strength α")
    figure.legend(loc="outside upper left", ncols=len(shown) + 1, handletextpad=0.3, columnspacing=1.6)
    return figure


def _has_strength(point: Record, modality: str) -> bool:
    return finite(modality_entry(point, modality).get("alpha")) is not None


def _draw_lollipop(axes: Axes, x: float, entry: Record, color: str, lollipops: int) -> bool:
    """Draw one lollipop, if there is a strength; True where the diagnosis asked for another strength."""
    alpha, distance = finite(entry.get("alpha")), finite(entry.get("distance"))
    if alpha is None:
        return False
    size = 9 if lollipops <= MOST_DISTANCES else (6 if lollipops <= MOST_STRENGTHS else 3.5)
    axes.vlines(x, 0, alpha, color=color, linewidth=size / 3, alpha=0.55)
    axes.plot(x, alpha, "o", color=color, markersize=size, clip_on=False, zorder=3)
    diagnosed = finite(entry.get("diagnosed_alpha"))
    overridden = False
    if diagnosed is not None and abs(diagnosed - alpha) > 0.005:
        overridden = True
        axes.plot(x, diagnosed, "o", mfc="white", mec=color, markersize=size * 0.65, clip_on=False, zorder=2.5)
    if lollipops <= MOST_STRENGTHS:
        with_distance = distance is not None and lollipops <= MOST_DISTANCES
        axes.annotate(
            f"{alpha:.2f}",
            xy=(x, alpha),
            xytext=(0, 18 if with_distance else 8),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9 if lollipops <= MOST_DISTANCES else 7,
            fontweight="bold" if lollipops <= MOST_DISTANCES else "normal",
            color=color if lollipops <= MOST_DISTANCES else INK,
        )
        if with_distance:
            axes.annotate(
                f"Δθ {100 * (distance or 0.0):.0f} %",
                xy=(x, alpha),
                xytext=(0, 8),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=7,
                color=MUTED,
            )
    return overridden
