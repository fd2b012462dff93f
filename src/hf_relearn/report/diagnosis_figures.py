"""Figures of the diagnosis: both parts over training, the memorised share, and each strength."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
from hf_relearn.report.reading import LEAST_LEARNT, Gate, was_moved
from hf_relearn.report.theme import (
    FAINT,
    FIGURE_WIDTH,
    INK,
    MUTED,
    STYLE,
    NothingToDraw,
    label_line_ends,
    modality_colors,
    set_epoch_axis,
    sparse_positions,
)

MOST_MARKERS = 12  # more records than this are drawn as plain lines, so that dashes stay visible
MOST_LINES = 25  # more points than this are short ticks, not lines
MOST_DISTANCES = 16  # more lollipops than this carry no distance
MOST_STRENGTHS = 32  # more lollipops than this carry no number at all


@dataclass(frozen=True)
class Measure:
    """Name a measure of separability as the records do."""

    label: str
    train: str
    val: str
    chances: tuple[str, ...]

    def of(self, records: Sequence[Record], modality: str) -> bool:
        """Check whether a record holds it for a modality."""
        return any(diagnosis_series(records, modality, key)[0].size for key in (self.train, self.val))


SEPARABILITY = Measure("separability", "train_separability", "val_separability", ("chance",))
R_SQUARED = Measure("R²", "train_separability", "val_separability", ("chance",))  # of a regression
PURITY = Measure("purity", "train_purity", "val_purity", ("train_chance_purity", "val_chance_purity"))


def measure_of(records: Sequence[Record], modalities: Sequence[str] | None = None) -> Measure | None:
    """Return what the records hold: separability (of numbers R²), else purity, else None."""
    first = R_SQUARED if any(record.get("num_classes") == 0 for record in records) else SEPARABILITY
    names = modalities or modality_order(records)
    return next((each for each in (first, PURITY) if any(each.of(records, name) for name in names)), None)


@matplotlib.rc_context(STYLE)
def separability_figure(records: Sequence[Record], modalities: Sequence[str] | None = None) -> Figure:
    """Draw separability, or purity, of the training and the held-out part over training, a panel per modality.

    The band around the held-out curve spans two standard errors of the gap: a training curve outside it has memorised
    something. Full vertical lines are points at which the modality was moved, short ones those at which it was kept.

    Args:
        records: diagnosis records.
        modalities: names in the order that fixes the colours; by default the order of the records.

    Raises:
        NothingToDraw: no record holds either.
    """
    colors = modality_colors(modalities or modality_order(records))
    measure = measure_of(records, list(colors))
    if measure is None:
        raise NothingToDraw("no record holds a diagnosis (a run with a set strength and no held-out samples has none)")
    shown = [name for name in colors if measure.of(records, name)]
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
            axes.set_ylabel(measure.label)
        _draw_points(axes, points, shown[place], label_distance=0.05 * columns)
        _draw_parts(axes, records, shown[place], measure, colors[shown[place]])
    return figure


def _draw_parts(axes: Axes, records: Sequence[Record], modality: str, measure: Measure, color: str) -> None:
    labels: list[tuple[float, str, str]] = []
    series = {part: diagnosis_series(records, modality, getattr(measure, part)) for part in ("train", "val")}
    if measure is not PURITY:
        _draw_band(axes, records, modality, color)
    else:
        common, train_at, val_at = np.intersect1d(series["train"][0], series["val"][0], return_indices=True)
        train, val = series["train"][1][train_at], series["val"][1][val_at]
        axes.fill_between(common, val, train, color=color, alpha=0.13, linewidth=0)
        if common.size == 1:
            axes.vlines(common, val, train, color=color, alpha=0.25, linewidth=5)
    for part, label, line in (("train", "train", "-"), ("val", "held out", (0, (4, 1.6)))):
        epochs, values = series[part]
        axes.plot(
            epochs,
            values,
            color=color,
            linestyle=line,
            marker="o" if epochs.size <= MOST_MARKERS else None,
            markersize=4.5,
            markerfacecolor=color if part == "train" else "white",
            markeredgewidth=1.3,
            clip_on=False,
            zorder=3,
        )
        if values.size:
            labels.append((float(values[-1]), label, color))
    chances = [diagnosis_series(records, modality, key) for key in measure.chances]
    for epochs, values in chances:
        if values.size and np.ptp(values) == 0:
            axes.axhline(values[0], color=FAINT, linewidth=1.1, linestyle=":")
        else:
            axes.plot(epochs, values, color=FAINT, linewidth=1.1, linestyle=":")
    last_chances = [float(values[-1]) for _, values in chances if values.size]
    if last_chances:
        labels.append((sum(last_chances) / len(last_chances), "chance", MUTED))
    label_line_ends(axes, labels)


def _draw_band(axes: Axes, records: Sequence[Record], modality: str, color: str) -> None:
    """Two standard errors of the gap around the held-out curve."""
    epochs, values, errors = _with_errors(records, modality, "val_separability", "standard_error")
    if epochs.size == 1:
        axes.errorbar(epochs, values, yerr=2 * errors, color=color, alpha=0.5, capsize=4, linewidth=1.2)
    else:
        low, high = np.clip(values - 2 * errors, 0, 1), np.clip(values + 2 * errors, 0, 1)
        axes.fill_between(epochs, low, high, color=color, alpha=0.16, linewidth=0)


def _with_errors(
    records: Sequence[Record], modality: str, key: str, error: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs, values and their errors of the records with both; of two records of an epoch the later one counts."""
    epochs, values = diagnosis_series(records, modality, key)
    error_epochs, errors = diagnosis_series(records, modality, error)
    common, value_at, error_at = np.intersect1d(epochs, error_epochs, return_indices=True)
    return common, values[value_at], errors[error_at]


def _draw_points(axes: Axes, points: Sequence[Record], modality: str, *, label_distance: float) -> None:
    strengths = [
        (epoch_of(point) or 0.0, alpha)
        for point in points
        if (alpha := finite(modality_entry(point, modality).get("alpha"))) is not None
    ]
    moved = [(epoch, alpha) for epoch, alpha in strengths if alpha > 0]
    for epoch, alpha in strengths:
        # Many full lines would be a fence before the curves; short ticks at the upper edge say the same.
        whole = alpha > 0 and len(moved) <= MOST_LINES
        style = "-" if alpha > 0 else ":"
        axes.axvline(epoch, ymin=0 if whole else 0.95, color=FAINT, linewidth=1.0, linestyle=style, zorder=1)
    span = axes.get_xlim()[1] - axes.get_xlim()[0]
    labelled = sparse_positions([epoch for epoch, _ in strengths], label_distance * span * (1.6 if moved else 1))
    first = True
    for index in labelled:
        epoch, alpha = strengths[index]
        label = "kept" if alpha == 0 else (f"α {alpha:.2f}" if first else f"{alpha:.2f}")
        first = first and alpha == 0
        axes.annotate(
            label,
            xy=(epoch, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=7.5,
            color=INK if alpha > 0 else FAINT,
        )


@matplotlib.rc_context(STYLE)
def memorised_figure(
    records: Sequence[Record], modalities: Sequence[str] | None = None, gate: Gate | None = None
) -> Figure:
    """Draw the memorised share of each modality over training, with the threshold of the gate.

    The band spans the standard errors by which the gate wants the threshold exceeded, so the gate re-learns where the
    whole band lies above it. Filled triangles are points at which a modality was moved, hollow ones those at which it
    was kept.

    Args:
        records: diagnosis records.
        modalities: names in the order that fixes the colours; by default the order of the records.
        gate: its threshold and errors; None takes the default settings.

    Raises:
        NothingToDraw: no record holds a memorised share, or all of them are 0.
    """
    gate = gate or Gate()
    colors = modality_colors(modalities or modality_order(records))
    learnt = {name: [record for record in records if _has_learnt(record, name)] for name in colors}
    found = {name: _with_errors(learnt[name], name, "memorised", "memorised_error") for name in colors}
    found = {name: series for name, series in found.items() if series[0].size}
    if not found:
        raise NothingToDraw("no record holds a memorised share")
    if not any(values.any() for _, values, _ in found.values()):
        raise NothingToDraw("nothing was memorised at any diagnosis")
    figure = Figure(figsize=(FIGURE_WIDTH, 3.5), layout="constrained")
    axes = figure.subplots()
    set_epoch_axis(axes, [epoch for record in records if (epoch := epoch_of(record)) is not None])
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.axhline(gate.threshold, color=MUTED, linewidth=1.1, linestyle=(0, (5, 3)), zorder=1.5)
    for name, (epochs, values, errors) in found.items():
        low, high = np.clip(values - gate.errors * errors, 0, 1), np.clip(values + gate.errors * errors, 0, 1)
        axes.fill_between(epochs, low, high, color=colors[name], alpha=0.15, linewidth=0)
        marker = "o" if epochs.size <= MOST_MARKERS else None
        axes.plot(epochs, np.clip(values, 0, 1), color=colors[name], marker=marker, markersize=3.2, zorder=3)
        for point in relearning_points(learnt[name]):
            share = finite(modality_entry(point, name).get("memorised"))
            if share is not None:
                moved = was_moved(point, name)
                axes.plot(
                    epoch_of(point) or 0.0,
                    min(max(share, 0.0), 1.0),
                    "v",
                    color=colors[name],
                    markerfacecolor=colors[name] if moved else "white",
                    markersize=10 if moved else 8,
                    markeredgewidth=1.5,
                    clip_on=False,
                    zorder=4,
                )
    axes.set_xlabel("epoch    (▼ re-learnt   ▽ looked at and kept)" if relearning_points(records) else "epoch")
    axes.set_ylabel("memorised share")
    ends = [
        (min(float(values[-1]), 1.0), f"{name} {100 * values[-1]:.0f} %", colors[name])
        for name, (_, values, _) in found.items()
    ]
    label_line_ends(axes, [*ends, (gate.threshold, "gate", MUTED)])
    return figure


def _has_learnt(record: Record, modality: str) -> bool:
    entry = modality_entry(record, modality)
    train, chance = finite(entry.get("train_separability")), finite(entry.get("chance"))
    return train is not None and chance is not None and train - chance >= LEAST_LEARNT


@matplotlib.rc_context(STYLE)
def alpha_figure(records: Sequence[Record], modalities: Sequence[str] | None = None) -> Figure:
    """Draw the strength α of every re-learning step and modality, with the distance its weights moved.

    A hollow mark shows what the diagnosis asked for, if a set strength took its place.

    Args:
        records: diagnosis records.
        modalities: names in the order that fixes the colours; by default the order of the records.

    Raises:
        NothingToDraw: no encoder was moved, or all were by one and the same strength.
    """
    colors = modality_colors(modalities or modality_order(records))
    moved = [point for point in relearning_points(records) if any(was_moved(point, name) for name in colors)]
    if not moved:
        raise NothingToDraw("no encoder was moved in this run")
    shown = [name for name in colors if any(_strengths(moved, [name], "alpha"))]
    applied, asked = set(_strengths(moved, shown, "alpha")), set(_strengths(moved, shown, "diagnosed_alpha"))
    if len(applied - {0.0}) == 1 and asked <= applied:
        raise NothingToDraw(f"every encoder that was moved was moved by the same α {max(applied):.2f}")
    figure = Figure(figsize=(FIGURE_WIDTH, 3.3), layout="constrained")
    axes = figure.subplots()
    offsets = (np.arange(len(shown)) - (len(shown) - 1) / 2) * min(0.8 / len(shown), 0.28)
    lollipops, overridden = len(moved) * len(shown), False
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


def _strengths(points: Sequence[Record], modalities: Sequence[str], key: str) -> Iterator[float]:
    """Yield the strengths of all re-learning steps, to two decimals."""
    for point in points:
        for name in modalities:
            strength = finite(modality_entry(point, name).get(key))
            if strength is not None:
                yield round(strength, 2)


def _draw_lollipop(axes: Axes, x: float, entry: Record, color: str, lollipops: int) -> bool:
    """Draw one lollipop, if there is a strength; True if the diagnosis asked for another strength."""
    alpha, distance = finite(entry.get("alpha")), finite(entry.get("distance"))
    if alpha is None:
        return False
    size = 9 if lollipops <= MOST_DISTANCES else (6 if lollipops <= MOST_STRENGTHS else 3.5)
    axes.vlines(x, 0, alpha, color=color, linewidth=size / 3, alpha=0.55)
    axes.plot(x, alpha, "o", color=color, markersize=size, clip_on=False, zorder=3)
    diagnosed = finite(entry.get("diagnosed_alpha"))
    overridden = diagnosed is not None and abs(diagnosed - alpha) > 0.005
    if overridden and diagnosed is not None:
        axes.plot(x, diagnosed, "o", mfc="white", mec=color, markersize=size * 0.65, clip_on=False, zorder=2.5)
    few = lollipops <= MOST_DISTANCES
    style: dict[str, Any] = {"xy": (x, alpha), "textcoords": "offset points", "ha": "center", "va": "bottom"}
    if few and distance is not None:
        axes.annotate(f"Δθ {100 * distance:.0f} %", xytext=(0, 8), fontsize=7, color=MUTED, **style)
    if lollipops <= MOST_STRENGTHS:
        axes.annotate(
            f"{alpha:.2f}",
            xytext=(0, 18 if few and distance is not None else 8),
            fontsize=9 if few else 7,
            fontweight="bold" if few else "normal",
            color=color if few else INK,
            **style,
        )
    return overridden
