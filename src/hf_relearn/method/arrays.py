"""Checked conversion of what callers hand over (tensors, arrays, lists) to NumPy arrays."""

from typing import Any

import numpy as np
import torch


class NonFiniteFeaturesError(ValueError):
    """Features hold NaN or infinite values, so nothing can be clustered or fitted on them."""


def label_vector(labels: Any, name: str = "labels") -> np.ndarray:
    """Turns class or cluster names into a vector of integers, without changing the input.

    Args:
        labels: integers (any, also negative ones) or booleans, shape (n,), n >= 1: tensor, array or sequence.
        name: what to call them in an error message.

    Returns:
        An integer array of shape (n,); the caller's own memory where no conversion was needed.

    Raises:
        ValueError: not one-dimensional, empty, or not integers.
    """
    if isinstance(labels, torch.Tensor):
        labels = labels.detach().cpu().numpy()
    vector = np.asarray(labels)
    if vector.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, one integer per sample, but the shape is {vector.shape}")
    if len(vector) == 0:
        raise ValueError(f"{name} must hold at least one sample, but there is none")
    if vector.dtype.kind not in "iub":
        raise ValueError(f"{name} must be integers, but the type is {vector.dtype}; map class names to integers first")
    return vector.astype(np.int64) if vector.dtype.kind == "b" else vector


def feature_matrix(features: Any, name: str = "features") -> np.ndarray:
    """Turns the features of one modality into a floating-point matrix of finite numbers.

    float32 and float64 keep their type, 16-bit floats become float32, integers become float64: the types in which
    scikit-learn scales and clusters.

    Args:
        features: shape (n, d), n >= 1, d >= 1: tensor of any device and float type, array or nested sequence.
        name: what to call them in an error message, e.g. "modality 'audio', training part".

    Returns:
        A float32 or float64 array of shape (n, d).

    Raises:
        NonFiniteFeaturesError: some samples hold NaN or infinity; says how many.
        ValueError: not two-dimensional, empty, or not numbers.
    """
    if isinstance(features, torch.Tensor):
        features = features.detach().cpu()
        if features.dtype not in (torch.float32, torch.float64):
            features = features.to(torch.float32 if features.is_floating_point() else torch.float64)
        features = features.numpy()
    matrix = np.asarray(features)
    if matrix.dtype.kind not in "fiub":
        raise ValueError(f"{name}: features must be numbers, but the type is {matrix.dtype}")
    if matrix.ndim != 2:
        raise ValueError(
            f"{name}: features must have the shape (samples, dimensions), but the shape is {matrix.shape}; "
            "pool or flatten each sample to one vector"
        )
    if matrix.size == 0:
        raise ValueError(f"{name}: features are empty, the shape is {matrix.shape}")
    if matrix.dtype not in (np.float32, np.float64):
        matrix = matrix.astype(np.float32 if matrix.dtype == np.float16 else np.float64)
    affected = len(matrix) - int(np.isfinite(matrix).all(axis=1).sum())
    if affected:
        raise NonFiniteFeaturesError(
            f"{name}: features of {affected} of {len(matrix)} samples ({affected / len(matrix):.1%}) are NaN or "
            "infinite; lower the learning rate or leave half precision, and check the inputs of that modality"
        )
    return matrix
