"""Measure how well clusters agree with classes."""

import warnings
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import MinMaxScaler

from hf_relearn.method.samples import label_vector

_CHANCE_PERMUTATIONS = 10


def purity_score(labels: Any, clusters: Any) -> float:
    """Share of samples that belong to the most frequent class of their cluster.

    P = (1/n) * sum over clusters of the count of the cluster's most frequent label (section 3.2 of "Diagnosing and
    Re-learning for Balanced Multimodal Learning", arXiv 2407.09705). Labels are names of classes: which integers
    they are, negative ones included, makes no difference. Nothing is changed in place.

    Args:
        labels: class of each sample, integers of shape (n,): tensor, array or sequence.
        clusters: cluster of each sample, integers of shape (n,).

    Returns:
        A number in (0, 1]; 1 when every cluster holds a single class.

    Raises:
        ValueError: empty, of unequal lengths, not one-dimensional, or not integers.
    """
    label_names, cluster_names = label_vector(labels), label_vector(clusters, "clusters")
    if len(label_names) != len(cluster_names):
        raise ValueError(f"{len(label_names)} labels cannot be compared with {len(cluster_names)} clusters")
    return _coded_purity(_codes(label_names), _codes(cluster_names))


def chance_purity(labels: Any, clusters: Any, seed: int = 0) -> float:
    """Return the purity that the same clusters reach with permuted labels, the mean of ten seeded permutations.

    This is the floor that the sizes of clusters and classes alone give: it grows with the number of clusters and
    falls with the number of samples. Uses a generator of its own.

    Args:
        labels: class of each sample, integers of shape (n,).
        clusters: cluster of each sample, integers of shape (n,).
        seed: of the permutations, >= 0.

    Returns:
        A number in (0, 1].

    Raises:
        ValueError: as `purity_score`.
    """
    label_names, cluster_names = label_vector(labels), label_vector(clusters, "clusters")
    if len(label_names) != len(cluster_names):
        raise ValueError(f"{len(label_names)} labels cannot be compared with {len(cluster_names)} clusters")
    label_codes, cluster_codes = _codes(label_names), _codes(cluster_names)
    generator = np.random.default_rng(seed)
    purities = [_coded_purity(generator.permutation(label_codes), cluster_codes) for _ in range(_CHANCE_PERMUTATIONS)]
    return float(np.mean(purities))


def cluster_purity(
    features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int, n_init: int
) -> tuple[float, float]:
    """Return the purity of the K-means clusters of one part's features, and that of the same clusters by chance."""
    scaled = MinMaxScaler((-1, 1)).fit_transform(features)
    # The scaled features are a copy already, so K-means need not make its own; the clusters are the same to the bit.
    kmeans = KMeans(n_clusters=min(num_classes, len(scaled)), random_state=seed, n_init=n_init, copy_x=False)
    with warnings.catch_warnings():
        # Fewer distinct points than clusters (collapsed features): the clusters are right, and the purity tells.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = kmeans.fit_predict(scaled)
    return purity_score(labels, clusters), chance_purity(labels, clusters, seed)


def _codes(names: np.ndarray) -> np.ndarray:
    """Number the distinct names from 0."""
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _coded_purity(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Compute purity from codes; counts only pairs that occur, so many classes times many clusters cost no memory."""
    num_labels = int(labels.max()) + 1
    pairs, counts = np.unique(clusters * num_labels + labels, return_counts=True)
    largest = np.zeros(int(clusters.max()) + 1, dtype=np.int64)
    np.maximum.at(largest, pairs // num_labels, counts)
    return int(largest.sum()) / len(labels)
