"""Figures of training itself: validation accuracy of one run, and several runs side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hf_relearn.records import (
    Record,
    epoch_of,
    evaluation_series,
    finite,
    modality_order,
    relearning_points,
)
from hf_relearn.report.reading import was_moved
from hf_relearn.report.theme import (
    ARM_PALETTE,
    FIGURE_WIDTH,
    INK,
    MARK,
    MUTED,
    STYLE,
    NothingToDraw,
    label_line_ends,
    modality_colors,
    set_epoch_axis,
)

Arm = Mapping[str, Any]

MOST_LINES = 25  # more re-learning points than this are short ticks, not lines
MOST_MARKERS = 12  # a curve of more evaluations carries no marks


@matplotlib.rc_context(STYLE)
def accuracy_figure(
    records: Sequence[Record], log_history: Sequence[Record], modalities: Sequence[str] | None = None
) -> Figure:
    """Validation accuracy over training, with the re-learning points and the accuracy of each modality by itself.

    Args:
        records: Diagnosis records.
        log_history: The Trainer's `state.log_history`, with `eval_accuracy` and `eval_unimodal_<modality>_accuracy`.
        modalities: Names in the order that fixes the colours; by default that of the records, then of the log.

    Returns:
        The figure.

    Raises:
        NothingToDraw: The log holds no accuracy, or that of one evaluation only.
    """
    colors = modality_colors(modalities or modality_order(records, log_history))
    curves = [("fused", INK, 2.6, *evaluation_series(log_history, "eval_accuracy"))]
    for name, color in colors.items():
        curves.append((f"{name} alone", color, 1.4, *evaluation_series(log_history, f"eval_unimodal_{name}_accuracy")))
    curves = [curve for curve in curves if curve[3].size]
    if not curves:
        raise NothingToDraw("the log holds no validation accuracy")
    if all(curve[3].size == 1 for curve in curves):
        raise NothingToDraw("the log holds one evaluation only")
    figure = Figure(figsize=(FIGURE_WIDTH, 3.7), layout="constrained")
    axes = figure.subplots()
    for _, color, width, epochs, values in reversed(curves):
        _plot_curve(axes, epochs, values, color=color, width=width)
    set_epoch_axis(axes, np.concatenate([epochs for *_, epochs, _ in curves]))
    _fit_accuracy_axis(axes, np.concatenate([values for *_, values in curves]))
    _mark_points(axes, relearning_points(records), list(colors))
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy")
    label_line_ends(
        axes, [(float(values[-1]), f"{name} {values[-1]:.2f}", color) for name, color, _, _, values in curves]
    )
    return figure


def _mark_points(axes: Axes, points: Sequence[Record], modalities: Sequence[str]) -> None:
    """Lines and filled triangles where an encoder was moved, hollow triangles where all were kept."""
    moved = [any(was_moved(point, name) for name in modalities) for point in points]
    many = len(points) > MOST_LINES
    for point, has_moved in zip(points, moved, strict=True):
        epoch = epoch_of(point) or 0.0
        if has_moved:
            axes.axvline(epoch, ymin=0.97 if many else 0, color=MARK, linewidth=1.0, zorder=1)
        axes.plot(
            epoch,
            1,
            "v",
            color=MUTED,
            markerfacecolor=MUTED if has_moved else "white",
            markersize=3 if many else 5,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
        )
    if points:
        epoch = epoch_of(points[0]) or 0.0
        label = "re-learning" if len(points) == 1 else "re-learning points"
        if not all(moved):
            label = "looked at, nothing moved" if not any(moved) else f"{label} (▽ nothing moved)"
        axes.annotate(
            label,
            xy=(epoch, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 7),
            textcoords="offset points",
            ha="left" if epoch < sum(axes.get_xlim()) / 2 else "right",
            fontsize=8,
            color=MUTED,
        )


@matplotlib.rc_context(STYLE)
def comparison_figure(arms: Mapping[str, Arm], metric: str = "accuracy") -> Figure:
    """Validation curves of several runs, and bars of their final metric, fused and for each modality alone.

    Args:
        arms: Arm name -> its `log_history`, `records` and `results` (split -> metric -> value).
        metric: Metric to compare, without `eval_`.

    Returns:
        The figure; a side without any value is left out.

    Raises:
        NothingToDraw: Neither the logs nor the results hold the metric.
    """
    colors = {name: ARM_PALETTE[place % len(ARM_PALETTE)] for place, name in enumerate(arms)}
    curves = {name: evaluation_series(arm.get("log_history") or (), f"eval_{metric}") for name, arm in arms.items()}
    curves = {name: curve for name, curve in curves.items() if curve[0].size}
    split = bar_split(arms, metric)
    if not curves and split is None:
        raise NothingToDraw(f"neither the logs nor the results hold the metric {metric!r}")
    sides = bool(curves) + (split is not None)
    rows = len(bar_rows(arms, metric, split)) * len(arms) if split is not None else 0
    figure = Figure(figsize=(FIGURE_WIDTH, max(3.7, 1.2 + 0.19 * rows)), layout="constrained")
    panels = list(figure.subplots(1, sides, squeeze=False, width_ratios=[1.25, 1] if sides == 2 else None)[0])
    if curves:
        _draw_curves(panels[0], arms, curves, colors, metric)
    if split is not None:
        _draw_bars(panels[-1], arms, colors, metric, split)
    handles = [Line2D([], [], color=color, linewidth=4) for color in colors.values()]
    figure.legend(
        handles, list(colors), loc="outside upper left", ncols=min(len(arms), 3), handlelength=1.0, columnspacing=1.8
    )
    return figure


def bar_split(arms: Mapping[str, Arm], metric: str) -> str | None:
    """The split whose metrics become bars: `test` where any arm has it, else the last one named; None without any."""
    names = [
        split
        for arm in arms.values()
        for split, values in (arm.get("results") or {}).items()
        if finite((values or {}).get(metric)) is not None
    ]
    return "test" if "test" in names else (names[-1] if names else None)


def bar_rows(arms: Mapping[str, Arm], metric: str, split: str) -> dict[str, str]:
    """Groups of bars: the key of each metric in the results -> its label."""
    records = [record for arm in arms.values() for record in arm.get("records") or ()]
    logs = [entry for arm in arms.values() for entry in arm.get("log_history") or ()]
    results = {name: (arm.get("results") or {}).get(split) or {} for name, arm in arms.items()}
    rows = {metric: "fused"}
    for name in modality_order(records, logs, results):
        rows[f"unimodal_{name}_{metric}"] = f"{name} alone"
    measured = {key for found in results.values() for key in found if finite(found[key]) is not None}
    return {key: label for key, label in rows.items() if key in measured}


def _draw_curves(
    axes: Axes,
    arms: Mapping[str, Arm],
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    colors: Mapping[str, str],
    metric: str,
) -> None:
    marked = False
    for name, (epochs, values) in curves.items():
        _plot_curve(axes, epochs, values, color=colors[name], width=2.0)
        records = relearning_points(arms[name].get("records") or ())
        points = [
            epoch_of(point) or 0.0 for point in records if any(was_moved(point, each) for each in point["modalities"])
        ]
        if points:
            marked = True
            heights = np.interp(points, epochs, values)
            axes.plot(
                points, heights, "v", color=colors[name], markersize=8, mec="white", mew=1.0, clip_on=False, zorder=4
            )
    set_epoch_axis(axes, np.concatenate([epochs for epochs, _ in curves.values()]))
    _fit_accuracy_axis(axes, np.concatenate([values for _, values in curves.values()]))
    axes.set_xlabel("epoch    (▼ re-learning point)" if marked else "epoch")
    axes.set_title(f"validation {metric.replace('_', ' ')}", color=INK)


def _draw_bars(axes: Axes, arms: Mapping[str, Arm], colors: Mapping[str, str], metric: str, split: str) -> None:
    rows = bar_rows(arms, metric, split)
    height = 0.8 / len(arms)
    for row, key in enumerate(rows):
        for place, (name, arm) in enumerate(arms.items()):
            value = finite(((arm.get("results") or {}).get(split) or {}).get(key))
            if value is None:
                continue
            y = row + (place - (len(arms) - 1) / 2) * height
            axes.barh(y, value, height=height * 0.86, color=colors[name])
            axes.annotate(
                f"{value:.3f}",
                xy=(max(value, 0), y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                color=INK,
            )
    axes.set_yticks(range(len(rows)), list(rows.values()))
    axes.tick_params(axis="y", labelcolor=INK, labelsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.12)
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", bottom=False, labelbottom=False)
    axes.set_title(f"{split} {metric.replace('_', ' ')}", color=INK)


def _plot_curve(axes: Axes, epochs: np.ndarray, values: np.ndarray, *, color: str, width: float) -> None:
    marker = "o" if epochs.size <= MOST_MARKERS else None
    axes.plot(epochs, values, color=color, linewidth=width, marker=marker, markersize=2.2 + width, zorder=3)


def _fit_accuracy_axis(axes: Axes, values: np.ndarray) -> None:
    """Let the y axis hold the values with a margin, and stay between 0 and 1 where they do."""
    low, high = float(values.min()), float(values.max())
    margin = max(0.08 * (high - low), 0.02)
    axes.set_ylim(
        max(low - margin, 0.0) if low >= 0 else low - margin, min(high + margin, 1.005) if high <= 1 else high + margin
    )
