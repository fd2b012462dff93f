"""Fit a linear probe on the features of one modality."""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from hf_relearn.method.samples import feature_matrix, label_vector, stratified_indices

MAX_ITERATIONS = 100
MAX_TRAIN_SAMPLES = 10_000


def linear_probe_accuracy(
    train_features: Any, train_labels: Any, val_features: Any, val_labels: Any, *, seed: int = 0
) -> float:
    """Return the accuracy of a logistic regression on features, fitted on the training part and scored on the other.

    Features are standardised by the training part's mean and deviation; the fit is L2-regularised (C = 1), stops
    after 100 iterations at most, and runs on one thread, so that the result does not depend on how many there are.
    Of more than 10,000 training samples a stratified part of that size is used.

    Args:
        train_features: shape (n_train, d): tensor or array.
        train_labels: classes, any integers, shape (n_train,).
        val_features: shape (n_val, d).
        val_labels: classes, shape (n_val,); one that training lacks counts as an error.
        seed: of the part drawn from a large training part.

    Returns:
        Share of the second part's samples that are classified rightly, in [0, 1]. If training holds a single class,
        the share of that class.

    Raises:
        NonFiniteFeaturesError: features hold NaN or infinity.
        ValueError: empty parts, or shapes that do not fit.
    """
    fit_features, score_features = (
        feature_matrix(train_features, "training part"),
        feature_matrix(val_features, "part"),
    )
    fit_labels, score_labels = label_vector(train_labels), label_vector(val_labels)
    for part, features, labels in (
        ("training part", fit_features, fit_labels),
        ("part to score", score_features, score_labels),
    ):
        if len(features) != len(labels):
            raise ValueError(f"{part}: {len(features)} features but {len(labels)} labels")
    if fit_features.shape[1] != score_features.shape[1]:
        raise ValueError(
            f"the training part has {fit_features.shape[1]} feature dimensions, "
            f"the part to score {score_features.shape[1]}"
        )
    classes = np.unique(fit_labels)
    if len(classes) == 1:
        return float(np.mean(score_labels == classes[0]))
    if len(fit_labels) > MAX_TRAIN_SAMPLES:
        rows = stratified_indices(fit_labels, MAX_TRAIN_SAMPLES, seed)
        fit_features, fit_labels = fit_features[rows], fit_labels[rows]
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scaler = StandardScaler().fit(fit_features)
        probe = LogisticRegression(max_iter=MAX_ITERATIONS).fit(scaler.transform(fit_features), fit_labels)
        predicted = probe.predict(scaler.transform(score_features))
    return float(np.mean(predicted == score_labels))
