"""Diagnosis of each modality's learning state from the separability of its own features."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import MinMaxScaler
from threadpoolctl import threadpool_limits

from hf_relearn.method.alpha import learning_state_alpha
from hf_relearn.method.purity import chance_purity, purity_score
from hf_relearn.method.samples import feature_matrix, label_vector, stratified_indices

Sampling = Literal["all", "matched"]

# A gap below this many purity points gives an alpha below 0.06 (lambda 3): not worth a warning.
_NEGLIGIBLE_GAP = 0.02


class DiagnosisWarning(UserWarning):
    """A diagnosis was made, but its numbers mean less than they seem to."""


@dataclass(frozen=True)
class ModalityDiagnosis:
    """What the diagnosis found for one modality. All values are plain Python numbers.

    Attributes:
        modality: its name.
        train_purity: P_D, the purity of the training part's clusters.
        val_purity: P_V, the purity of the diagnosing part's clusters.
        gap: g = |P_D - P_V|.
        alpha: strength of the re-learning, tanh(lambda * g), in [0, 1].
        train_chance_purity: purity of the training part's clusters with permuted labels.
        val_chance_purity: the same for the diagnosing part.
        train_size: number of training samples clustered.
        val_size: number of diagnosing samples clustered.
    """

    modality: str
    train_purity: float
    val_purity: float
    gap: float
    alpha: float
    train_chance_purity: float
    val_chance_purity: float
    train_size: int
    val_size: int


def diagnose(
    train_features: Mapping[str, Any],
    train_labels: Any,
    val_features: Mapping[str, Any],
    val_labels: Any,
    num_classes: int,
    *,
    relearn_lambda: float = 3.0,
    seed: int = 0,
    sampling: Sampling = "all",
    n_init: int = 1,
    max_samples: int | None = None,
) -> dict[str, ModalityDiagnosis]:
    """Diagnoses the learning state of every modality (section 3.2 of arXiv 2407.09705).

    For each modality, the training part and the diagnosing part are scaled to [-1, 1] by their own minimum and
    maximum and clustered with K-means; the gap of the two purities gives the strength of the re-learning. The
    defaults are the reference settings. float32 and float64 features are clustered as they are, 16-bit floats in
    float32. The clustering runs on one thread, so that the result does not depend on how many there are; neither
    does it depend on the order of the modalities or on any global random generator.

    Args:
        train_features: modality -> features of the training part, shape (n_train, d_m): tensors or arrays.
        train_labels: classes of the training part, any integers, shape (n_train,).
        val_features: modality -> features of the diagnosing part, shape (n_val, d_m); the same modalities.
        val_labels: classes of the diagnosing part, shape (n_val,).
        num_classes: number of clusters, >= 1.
        relearn_lambda: lambda in alpha = tanh(lambda * gap), >= 0.
        seed: of K-means, of the sampling and of the permutations behind the chance purity, 0 to 2**32 - 1.
        sampling: "all" clusters every sample; "matched" first draws a stratified part of the training samples, as
            large as the diagnosing part, so that chance lifts both purities alike.
        n_init: number of K-means starts, the best of which counts, >= 1.
        max_samples: if given, at most so many samples (stratified) of each part are clustered, >= 1.

    Returns:
        modality -> diagnosis, in the order of `train_features`.

    Raises:
        NonFiniteFeaturesError: NaN or infinity; names the modality, the part and the share of samples.
        ValueError: different modalities in the two parts, features that do not fit the labels, wrong settings.

    Warns:
        DiagnosisWarning: a part has fewer samples than classes (it is then clustered into as many clusters as it has
            samples); classes are absent from the diagnosing part; chance alone explains most of a gap.
    """
    _check_settings(num_classes, sampling, n_init, max_samples)
    learning_state_alpha(0.0, relearn_lambda)
    if not train_features or set(train_features) != set(val_features):
        raise ValueError(
            "the training part and the diagnosing part must hold features of the same modalities, at least one, but "
            f"hold {sorted(train_features)} and {sorted(val_features)}"
        )
    labels_of = {
        "training": label_vector(train_labels, "labels of the training part"),
        "diagnosing": label_vector(val_labels, "labels of the diagnosing part"),
    }
    features_of = {
        part: {m: _part_features(given[m], m, part, len(labels_of[part])) for m in train_features}
        for part, given in (("training", train_features), ("diagnosing", val_features))
    }
    absent = np.setdiff1d(labels_of["training"], labels_of["diagnosing"])
    if len(absent):
        _warn(
            f"the diagnosing part has no sample of {len(absent)} classes of the training part (labels "
            f"{_enumerate(absent)}): its purity is not comparable for them; draw a stratified diagnosing part"
        )

    sizes = {part: min(len(labels), max_samples or len(labels)) for part, labels in labels_of.items()}
    if sampling == "matched":
        sizes["training"] = min(sizes.values())
    purities: dict[str, dict[str, tuple[float, float]]] = {}
    with threadpool_limits(limits=1):
        for part, labels in labels_of.items():
            if sizes[part] < num_classes:
                _warn(
                    f"the {part} part has {sizes[part]} samples for {num_classes} classes: it is clustered into "
                    f"{sizes[part]} clusters and its purity means nothing; give more samples"
                )
            # All rows as a slice, which copies nothing.
            rows: slice | np.ndarray = slice(None)
            if sizes[part] < len(labels):
                rows = stratified_indices(labels, sizes[part], seed)
            purities[part] = {
                modality: _purity_and_chance(features[rows], labels[rows], num_classes, seed, n_init)
                for modality, features in features_of[part].items()
            }

    diagnoses = {}
    for modality in train_features:
        (train_purity, train_chance), (val_purity, val_chance) = (purities[part][modality] for part in labels_of)
        gap = abs(train_purity - val_purity)
        diagnoses[modality] = ModalityDiagnosis(
            modality=modality,
            train_purity=train_purity,
            val_purity=val_purity,
            gap=gap,
            alpha=learning_state_alpha(gap, relearn_lambda),
            train_chance_purity=train_chance,
            val_chance_purity=val_chance,
            train_size=sizes["training"],
            val_size=sizes["diagnosing"],
        )
    if message := _chance_gap_message(diagnoses, sizes):
        _warn(message)
    return diagnoses


def _check_settings(num_classes: int, sampling: str, n_init: int, max_samples: int | None) -> None:
    for name, value in (("num_classes", num_classes), ("n_init", n_init), ("max_samples", max_samples)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, but is {value}")
    if sampling not in ("all", "matched"):
        raise ValueError(f"sampling must be 'all' or 'matched', but is {sampling!r}")


def _part_features(features: Any, modality: str, part: str, num_labels: int) -> np.ndarray:
    matrix = feature_matrix(features, f"modality {modality!r}, {part} part")
    if len(matrix) != num_labels:
        raise ValueError(f"modality {modality!r}, {part} part: {len(matrix)} features but {num_labels} labels")
    return matrix


def _purity_and_chance(
    features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int, n_init: int
) -> tuple[float, float]:
    """Purity of the K-means clusters of one part's features, and that of the same clusters by chance."""
    scaled = MinMaxScaler((-1, 1)).fit_transform(features)
    # The scaled features are a copy already, so K-means need not make its own; the clusters are the same to the bit.
    kmeans = KMeans(n_clusters=min(num_classes, len(scaled)), random_state=seed, n_init=n_init, copy_x=False)
    with warnings.catch_warnings():
        # Fewer distinct points than clusters (collapsed features): the clusters are right, and the purity tells.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = kmeans.fit_predict(scaled)
    return purity_score(labels, clusters), chance_purity(labels, clusters, seed)


def _chance_gap_message(diagnoses: Mapping[str, ModalityDiagnosis], sizes: Mapping[str, int]) -> str:
    """Names the gaps at least half of which chance gives as well, with the same sign; "" if there is none.

    Chance lifts only what the features do not separate: of purity P over a floor c, the share (P - c) / (1 - c) is
    separability, and the rest of a difference between two floors remains in the gap.
    """
    by_chance = {}
    for modality, found in diagnoses.items():
        floor = found.train_chance_purity
        separability = (found.train_purity - floor) / (1 - floor) if floor < 1 else 0.0
        sign = math.copysign(1.0, found.train_purity - found.val_purity)
        chance_gap = sign * (floor - found.val_chance_purity) * (1 - max(0.0, separability))
        if found.gap >= _NEGLIGIBLE_GAP and chance_gap >= found.gap / 2:
            by_chance[modality] = f"{modality!r} (gap {found.gap:.3f}, by chance {chance_gap:.3f})"
    if not by_chance:
        return ""
    if sizes["training"] > sizes["diagnosing"]:
        remedy = 'use sampling="matched", which clusters as many training samples as diagnosing ones'
    else:
        remedy = "use a larger diagnosing part"
    return f"chance alone explains most of the purity gap of {', '.join(by_chance.values())}; {remedy}"


def _enumerate(values: np.ndarray, limit: int = 10) -> str:
    shown = ", ".join(str(value) for value in values[:limit])
    return shown + (f" and {len(values) - limit} more" if len(values) > limit else "")


def _warn(message: str) -> None:
    """Warns the caller of `diagnose`."""
    warnings.warn(message, DiagnosisWarning, stacklevel=3)
