"""The figures of training itself: validation accuracy, or R², over a run, and the confusion of classes."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_relearn.records import (
    Record,
    epoch_of,
    evaluation_series,
    modality_order,
    relearning_points,
)
from hf_relearn.report.markdown import metric_label
from hf_relearn.report.reading import main_metric, was_moved
from hf_relearn.report.theme import (
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

MOST_LINES = 25  # more re-learning steps than this are short ticks, not lines
MOST_MARKERS = 12  # a curve of more evaluations carries no marks


@matplotlib.rc_context(STYLE)
def accuracy_figure(
    records: Sequence[Record], log_history: Sequence[Record], modalities: Sequence[str] | None = None
) -> Figure:
    """Validation accuracy, or R², over training, with the re-learning steps and that of each modality by itself.

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
    metric = main_metric(log_history)
    curves = [("fused", INK, 2.6, *evaluation_series(log_history, f"eval_{metric}"))]
    for name, color in colors.items():
        curves.append((f"{name} alone", color, 1.4, *evaluation_series(log_history, f"eval_unimodal_{name}_{metric}")))
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
    axes.set_ylabel(f"validation {metric_label(metric)}")
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


def _plot_curve(axes: Axes, epochs: np.ndarray, values: np.ndarray, *, color: str, width: float) -> None:
    marker = "o" if epochs.size <= MOST_MARKERS else None
    axes.plot(epochs, values, color=color, linewidth=width, marker=marker, markersize=2.2 + width, zorder=3)


def _fit_accuracy_axis(axes: Axes, values: np.ndarray) -> None:
    """Let the y axis hold the values with a margin, and stay between 0 and 1 if they do."""
    low, high = float(values.min()), float(values.max())
    margin = max(0.08 * (high - low), 0.02)
    axes.set_ylim(
        max(low - margin, 0.0) if low >= 0 else low - margin, min(high + margin, 1.005) if high <= 1 else high + margin
    )


_MOST_NUMBERS = 15  # classes, beyond which counts are too small to read


@matplotlib.rc_context(STYLE)
def confusion_figure(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Draw how often samples of each class (rows) are taken for each class (columns).

    Args:
        counts: (classes, classes) numbers of samples.
        names: Of the classes.

    Returns:
        The figure, coloured by the share of a row.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(FIGURE_WIDTH, FIGURE_WIDTH * 0.8), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = np.arange(len(names))
    axes.set_xticks(places, names, rotation=90 if len(names) > 6 else 0)
    axes.set_yticks(places, names)
    axes.grid(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(names) <= _MOST_NUMBERS:
        for row, column in np.ndindex(counts.shape):
            color = "white" if shares[row, column] > 0.5 else INK
            axes.text(column, row, f"{counts[row, column]:d}", ha="center", va="center", color=color)
    figure.colorbar(image, ax=axes, label="share of the true class")
    return figure
