"""The look that all figures share: colours, line style, labels at line ends, and rendering to PNG."""

import io
import warnings
from collections.abc import Sequence
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
GRID = "#e6e9ec"

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
STYLE: Any = {
    "figure.facecolor": "white",
    "figure.dpi": 170,
    "savefig.dpi": 170,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    # A class or modality may be called "$5": its name is text, never a formula.
    "text.parse_math": False,
    "axes.facecolor": "white",
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.major.width": 0.8,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


class NothingToDraw(ValueError):
    """The data hold nothing that the figure could show; the message is a sentence that a report can print."""


def modality_colors(modalities: Sequence[str]) -> dict[str, str]:
    """Colour of each modality, by its place in the order, so that it is the same in every figure of a run.

    Args:
        modalities: Names in the order of the run.

    Returns:
        Modality -> hex colour; from the ninth modality on the colours repeat.
    """
    return {name: MODALITY_PALETTE[place % len(MODALITY_PALETTE)] for place, name in enumerate(modalities)}


def class_colors(num_classes: int) -> list[Any]:
    """One colour for each class: ten distinct ones, or evenly spaced hues of one map where there are more."""
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
    """Let the x axis run from 0 to the last epoch, with whole epochs as ticks where the range allows it."""
    last = max(epochs, default=0.0)
    axes.set_xlim(0, last * 1.02 if last > 0 else 1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def sparse_positions(positions: Sequence[float], minimum_distance: float) -> list[int]:
    """Indices of the (sorted) positions that can carry a label without touching the label before."""
    kept: list[int] = []
    for index, position in enumerate(positions):
        if not kept or position - positions[kept[-1]] >= minimum_distance:
            kept.append(index)
    return kept


def render_png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file, at twice the width of a README column."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that must not stop a report.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
