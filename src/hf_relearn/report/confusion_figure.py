"""The figure of a confusion matrix."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hf_relearn.report.theme import FIGURE_WIDTH, INK, STYLE

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
