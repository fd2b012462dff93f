"""A two-dimensional picture of each modality's features: classes as colours, training beside held-out part."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from hf_relearn.report.theme import CLASS_PALETTE, FAINT, FIGURE_WIDTH, MUTED, STYLE, NothingToDraw, class_colors

MOST_SAMPLES = 750  # of each part; t-SNE of two such parts takes a few seconds on one core
FEWEST_FOR_TSNE = 60  # of both parts together; neighbourhoods of fewer samples mean nothing

PART_TITLES = {"train": "training part", "held-out": "held-out part"}

Part = tuple[Mapping[str, Any], Any]


def project(features: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, str]:
    """Project features to two dimensions: t-SNE, or PCA if samples or dimensions are few.

    Every dimension is first scaled to [-1, 1], as the diagnosis does; constant ones are dropped.

    Args:
        features: (n, d) finite floats, n at least 2.
        seed: Seed of a private generator.

    Returns:
        (n, 2) float64 coordinates and the name of the method.

    Raises:
        NothingToDraw: All samples have the same features.
    """
    values = np.asarray(features, dtype=np.float64)
    low, span = values.min(axis=0), np.ptp(values, axis=0)
    values = values[:, span > 0]
    if not values.shape[1]:
        raise NothingToDraw("all samples have the same features")
    values = 2 * (values - low[span > 0]) / span[span > 0] - 1
    if values.shape[1] == 1:
        return np.hstack([values, np.zeros_like(values)]), "its one dimension"
    if len(values) < FEWEST_FOR_TSNE or values.shape[1] == 2:
        return PCA(2, random_state=seed).fit_transform(values), "PCA"
    # Fifty principal components hold what neighbourhoods need, at a fraction of the cost for wide features.
    reduced = PCA(min(50, *values.shape), random_state=seed).fit_transform(values)
    perplexity = min(30.0, (len(values) - 1) / 4)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced), "t-SNE"


@matplotlib.rc_context(STYLE)
def features_figure(
    modality: str,
    features: Mapping[str, Part],
    *,
    class_names: Mapping[int, str] | Sequence[str] | None = None,
    scores: Mapping[str, str] | None = None,
    most_samples: int = MOST_SAMPLES,
    seed: int = 0,
) -> Figure:
    """Panels with the features of one modality, one panel per part, in one projection of all parts together.

    Args:
        modality: Name of the modality.
        features: Part (`train`, `held-out`) -> ({modality: (n, d) array}, (n,) integer labels).
        class_names: Names by label, as a mapping or a sequence; by default the labels themselves.
        scores: Part -> what its panel's title says of the features, such as `separability 0.83`.
        most_samples: Samples drawn of each part at most (a seeded choice); more are not shown.
        seed: Seed of a private generator.

    Returns:
        The figure.

    Raises:
        NothingToDraw: Fewer than two samples have finite features, or all have the same ones.
        ValueError: Features and labels do not fit together; names the modality and the part.
    """
    parts = {
        name: _finite_part(modality, name, part, most_samples, seed)
        for name, part in features.items()
        if modality in part[0]
    }
    parts = {name: part for name, part in parts.items() if len(part[1])}
    if sum(len(labels) for _, labels, _ in parts.values()) < 2:
        raise NothingToDraw(f"fewer than two samples have finite {modality} features")
    if len({values.shape[1] for values, _, _ in parts.values()}) > 1:
        widths = ", ".join(f"{name}: {values.shape[1]}" for name, (values, _, _) in parts.items())
        raise ValueError(f"modality {modality!r}: the parts' features differ in width ({widths})")
    points, method = project(np.concatenate([values for values, _, _ in parts.values()]), seed=seed)
    classes = np.unique(np.concatenate([labels for _, labels, _ in parts.values()]))
    palette = np.asarray([to_rgba(color) for color in class_colors(len(classes))])

    figure = Figure(figsize=(FIGURE_WIDTH, 4.3), layout="constrained")
    panels = figure.subplots(1, len(parts), sharex=True, sharey=True, squeeze=False)[0]
    start = 0
    for axes, (name, (_, labels, total)) in zip(panels, parts.items(), strict=True):
        shown = points[start : start + len(labels)]
        start += len(labels)
        size = float(np.clip(9000 / max(len(points), 1), 9, 45))
        colors = palette[np.searchsorted(classes, labels)]
        axes.scatter(shown[:, 0], shown[:, 1], c=colors, s=size, alpha=0.8, linewidths=0.3, edgecolors="white")
        title = PART_TITLES.get(name, name)
        axes.set_title(", ".join([title, *([scores[name]] if scores and name in scores else [])]))
        count = f"{len(labels):,} samples" if len(labels) == total else f"{len(labels):,} of {total:,} samples"
        axes.set_xlabel(count)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set(visible=True, color=FAINT, linewidth=0.6)
    panels[0].set_ylabel(f"{modality} features, {method}")
    _add_class_legend(figure, classes, palette, class_names)
    return figure


def _finite_part(
    modality: str, name: str, part: Part, most_samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Features and labels of at most `most_samples` samples with finite features, and how many samples there were."""
    values, labels = np.asarray(part[0][modality], dtype=np.float64), np.asarray(part[1])
    if values.ndim != 2 or labels.shape != (len(values),):
        raise ValueError(
            f"modality {modality!r}, {name} part: features must be (n, d) with labels (n,), "
            f"but their shapes are {values.shape} and {labels.shape}"
        )
    kept = np.flatnonzero(np.isfinite(values).all(axis=1))
    if len(kept) > most_samples:
        kept = np.sort(np.random.default_rng(seed).choice(kept, most_samples, replace=False))
    return values[kept], labels[kept], len(labels)


def _add_class_legend(
    figure: Figure,
    classes: np.ndarray,
    palette: np.ndarray,
    class_names: Mapping[int, str] | Sequence[str] | None,
) -> None:
    if len(classes) > len(CLASS_PALETTE):
        figure.supxlabel(f"{len(classes)} classes, one hue each", fontsize=8.5, color=MUTED)
        return
    handles = [Line2D([], [], marker="o", linestyle="", color=color, markersize=6.5) for color in palette]
    names = [_class_name(int(label), class_names) for label in classes]
    last = figure.axes[-1]
    last.legend(handles, names, loc="upper left", bbox_to_anchor=(1.01, 1.02), handletextpad=0.2, borderaxespad=0.2)


def _class_name(label: int, class_names: Mapping[int, str] | Sequence[str] | None) -> str:
    """Name of a label, shortened to 24 characters; the label itself if it has no name."""
    if isinstance(class_names, Mapping):
        name = str(class_names.get(label, label))
    elif class_names is not None and 0 <= label < len(class_names):
        name = str(class_names[label])
    else:
        name = str(label)
    return name if len(name) <= 24 else name[:23] + "…"
