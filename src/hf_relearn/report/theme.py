"""Style all figures alike: colours, labels at line ends, and rendering to PNG."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK = "#1f2933"
MUTED = "#66717d"
FAINT = "#a3acb5"
MARK = "#c3cad1"

# Okabe and Ito's colours, which stay apart under the common kinds of colour blindness, strongest contrast first.
MODALITY_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b5578f", "#c28800", "#3f9fd8", "#6b4fa0", "#7a5c43")
# Petroff's ten colours (arXiv 2107.02270), made for scatter plots and checked for colour blindness.
CLASS_PALETTE = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadb",
)
FIGURE_WIDTH = 9.0  # inches, so that a point of font size is about 1.4 pixels at a width of 900 pixels

# Any, because stubs of some matplotlib versions take literal keys only.
STYLE: Any = matplotlib.rc_params_from_file(Path(__file__).with_name("figures.mplstyle"), use_default_template=False)


class NothingToDraw(ValueError):
    """Report data without anything that the figure could show, by a sentence that a report can print."""


def modality_colors(modalities: Sequence[str]) -> dict[str, str]:
    """Choose the colour of each modality by its place in the order, the same in every figure of a run.

    Args:
        modalities: Names in the order of the run.

    Returns:
        Modality -> hex colour; from the ninth modality on the colours repeat.
    """
    return {name: MODALITY_PALETTE[place % len(MODALITY_PALETTE)] for place, name in enumerate(modalities)}


def class_colors(num_classes: int) -> list[Any]:
    """Choose one colour for each class: ten distinct ones, or evenly spaced hues of one map for more classes."""
    if num_classes <= len(CLASS_PALETTE):
        return list(CLASS_PALETTE[:num_classes])
    return list(matplotlib.colormaps["turbo"](np.linspace(0.04, 0.96, num_classes)))


def spread(values: Sequence[float], minimum_distance: float) -> list[float]:
    """Move label positions apart, as little as needed and around their common centre, keeping their order.

    Args:
        values: Wished positions.
        minimum_distance: Least distance between two positions, in the same unit.

    Returns:
        Positions in the order of `values`.
    """
    order = np.argsort(np.asarray(values, dtype=float), kind="stable")
    groups: list[list[float]] = []  # [centre, count] of neighbouring labels that touch
    for index in order:
        groups.append([float(values[index]), 1])
        while len(groups) > 1:
            (lower, lower_count), (upper, upper_count) = groups[-2:]
            if upper - lower >= minimum_distance * (lower_count + upper_count) / 2:
                break
            count = lower_count + upper_count
            groups[-2:] = [[(lower * lower_count + upper * upper_count) / count, count]]
    spaced = [
        centre + (place - (count - 1) / 2) * minimum_distance
        for centre, count in groups
        for place in range(int(count))
    ]
    positions = [0.0] * len(values)
    for index, position in zip(order, spaced, strict=True):
        positions[index] = position
    return positions


def label_line_ends(
    axes: Axes, labels: Sequence[tuple[float, str, str]], *, minimum_distance: float = 0.075, size: float = 8.5
) -> None:
    """Write labels to the right of the axes, at the height of the lines they name, without overlap.

    Args:
        axes: Axes whose y limits are final.
        labels: (y in data units, text, colour) of each label.
        minimum_distance: Least distance between two labels as a share of the axes' height.
        size: Font size in points.
    """
    low, high = axes.get_ylim()
    heights = spread([(y - low) / (high - low) for y, _, _ in labels], minimum_distance)
    for height, (_, text, color) in zip(heights, labels, strict=True):
        axes.annotate(
            text,
            xy=(1, height),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=color,
            fontsize=size,
            annotation_clip=False,
        )


def set_epoch_axis(axes: Axes, epochs: Sequence[float] | np.ndarray) -> None:
    """Let the x axis run from 0 to the last epoch, with whole epochs as ticks if the range allows it."""
    last = max(epochs, default=0.0)
    axes.set_xlim(0, last * 1.02 if last > 0 else 1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def sparse_positions(positions: Sequence[float], minimum_distance: float) -> list[int]:
    """Pick the (sorted) positions that can carry a label without touching the label before."""
    kept: list[int] = []
    for index, position in enumerate(positions):
        if not kept or position - positions[kept[-1]] >= minimum_distance:
            kept.append(index)
    return kept


def render_png(figure: Figure) -> bytes:
    """Render a figure as the bytes of a PNG file, at twice the width of a README column."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that must not stop a report.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
