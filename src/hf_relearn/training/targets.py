"""Prepare labels for the loss: class weights, label smoothing, and several classes per sample."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn
from transformers import TrainingArguments

from hf_relearn.models import MultimodalConfig
from hf_relearn.relearning.labels import dataset_labels

MULTI_LABEL = "multi_label_classification"


def parse_class_weights(weights: Sequence[str]) -> list[float]:
    """Read one weight per class.

    Raises:
        ValueError: if one is not a finite number of at least 0.
    """
    try:
        numbers = [float(weight) for weight in weights]
    except ValueError:
        numbers = [math.nan]
    if not all(0 <= number < math.inf for number in numbers):
        raise ValueError(
            f"--class_weights is {' '.join(map(str, weights))!r}: give 'balanced', or a number of at least 0 for each "
            "class, in the order of their indices"
        )
    return numbers


def balanced_class_weights(labels: np.ndarray, num_classes: int) -> list[float]:
    """n / (k * count) for each class, so that a weight is 1 if all classes are as frequent.

    Args:
        labels: (n,) classes of the training part; -100 counts as no label.
        num_classes: k.

    Raises:
        ValueError: for a class without samples, or labels that are not classes.
    """
    labels = labels[labels != -100]
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"labels lie in {labels.min()} to {labels.max()}, but the model has {num_classes} classes")
    counts = np.bincount(labels, minlength=num_classes)
    if empty := [str(index) for index in np.flatnonzero(counts == 0)]:
        raise ValueError(
            f"--class_weights balanced: the training part has no sample of class {', '.join(empty)}; give numbers"
        )
    return [float(weight) for weight in len(labels) / (num_classes * counts)]


def is_fusion_model(model: Any) -> bool:
    """Check whether a model, possibly with adapters, is one of ours, whose loss follows its configuration."""
    return isinstance(getattr(model, "config", None), MultimodalConfig)


def set_loss(
    model: nn.Module,
    class_weights: Sequence[str] | None,
    args: TrainingArguments,
    train_dataset: Any,
    names: Sequence[str],
) -> None:
    """Write class weights and label smoothing into the configuration of a fusion model, whose loss reads them.

    The Trainer's own smoothing takes the labels out of the batch, so that uni-modal heads would not be trained; it is
    left to models of other classes.

    Args:
        model: before training, possibly with adapters.
        class_weights: the setting.
        args: `label_smoothing_factor` is used.
        train_dataset: the training part, which 'balanced' counts.
        names: the label column is the first of these that is there.

    Raises:
        ValueError: for weights that do not fit the model or its labels, or a model that takes none.
    """
    config: Any = getattr(model, "config", None)
    if not is_fusion_model(model):
        if class_weights:
            raise ValueError(
                f"--class_weights: {type(model).__name__} is no MultimodalForClassification, whose loss takes them; "
                "put the weights into a compute_loss_func of your own"
            )
        return
    if class_weights:
        config.class_weights = _weights(class_weights, config, train_dataset, names)
    if args.label_smoothing_factor and config.problem_type != MULTI_LABEL:  # the Trainer warns of the latter
        config.label_smoothing = args.label_smoothing_factor


def _weights(class_weights: Sequence[str], config: Any, train_dataset: Any, names: Sequence[str]) -> list[float]:
    if list(class_weights) == ["balanced"]:
        if config.problem_type == MULTI_LABEL:
            raise ValueError("--class_weights balanced counts one class per sample: give multi-label targets numbers")
        try:
            labels = dataset_labels(train_dataset, names)
        except (TypeError, ValueError) as error:
            raise ValueError(f"--class_weights balanced cannot count the training part: {error}") from error
        return balanced_class_weights(labels, config.num_labels)
    weights = parse_class_weights(class_weights)
    if len(weights) != config.num_labels:
        raise ValueError(
            f"--class_weights gives {len(weights)} weights, but the model has {config.num_labels} classes"
        )
    return weights


def refuse_multi_label_diagnosis(model: nn.Module, diagnosed: bool) -> None:
    """Refuse diagnosed strengths if samples have several classes.

    Args:
        model: its configuration's `problem_type` tells.
        diagnosed: whether re-learning steps come with diagnosed strengths.

    Raises:
        ValueError: says what works instead.
    """
    if diagnosed and getattr(getattr(model, "config", None), "problem_type", None) == MULTI_LABEL:
        raise ValueError(
            "the model has multi-label targets, and a diagnosis needs one class per sample: train with "
            "--relearn_strategy no, or with a constant --relearn_strength"
        )
