"""Prepare labels for the loss: class weights, label smoothing, several classes per sample, and numbers."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn
from transformers import TrainingArguments

from hf_relearn.models import MultimodalConfig
from hf_relearn.models.configuration_multimodal import REGRESSION
from hf_relearn.relearning.labels import dataset_labels, dataset_targets, is_stream
from hf_relearn.training.batches import MultimodalCollator

logger = logging.getLogger(__name__)

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


def is_regression(model: Any) -> bool:
    """Check whether a model, possibly with adapters, is one of ours that predicts a number."""
    return is_fusion_model(model) and model.config.problem_type == REGRESSION


def collator_for(model: Any, collator: Any) -> Any:
    """Let a `MultimodalCollator` read labels as the model takes them: numbers for a regression, else classes.

    Raises:
        ValueError: for a collator of numbers with a model of classes.
    """
    if not isinstance(collator, MultimodalCollator) or not is_fusion_model(model):
        return collator
    if is_regression(model):
        return replace(collator, problem_type=REGRESSION)
    if collator.problem_type == REGRESSION:
        raise ValueError(
            f"the collator reads numbers (problem_type='regression'), but the model has {model.config.num_labels} "
            "classes: build it with num_labels=1"
        )
    return collator


def refuse_classes(class_weights: Sequence[str] | None, args: TrainingArguments) -> None:
    """Refuse settings of a regression that need classes.

    Raises:
        ValueError: names the flag.
    """
    flags = {
        "--class_weights": class_weights,
        "--label_smoothing_factor": args.label_smoothing_factor,
        "--train_sampling_strategy balanced": args.train_sampling_strategy == "balanced",
        "--diagnosis_estimator purity": getattr(args, "diagnosis_estimator", None) == "purity",
    }
    if given := [flag for flag, value in flags.items() if value]:
        raise ValueError(f"{' and '.join(given)} needs classes, but the model predicts a number: leave it out")


def set_target_scale(config: Any, train_dataset: Any, names: Sequence[str]) -> None:
    """Write mean, deviation and signs of the training targets into the configuration, unless it has them.

    Args:
        config: of a regression model. One that was trained before keeps the scale that its weights know.
        train_dataset: the training part; None and streams, whose targets are not known, leave the configuration alone.
        names: the label column is the first of these that is there.

    Raises:
        ValueError: for labels that are not numbers, or are all the same.
    """
    if train_dataset is None or config.target_deviation is not None:
        return
    if is_stream(train_dataset):
        logger.warning(
            "the training set is a stream, whose targets are not known before training: set target_mean and "
            "target_deviation in the model's configuration, unless they are about 0 and 1"
        )
        return
    targets = dataset_targets(train_dataset, names)
    known = targets[~np.isnan(targets)]
    if len(known) < 2 or known.min() == known.max():
        raise ValueError(
            f"the training part has {len(known)} targets{f', all {known[0]:g}' if len(known) else ''}, so there is "
            "nothing to predict"
        )
    if config.target_mean is None:
        config.target_mean = float(known.mean())
    config.target_deviation = float(known.std())
    config.signed_targets = bool(known.min() < 0 < known.max())


def set_loss(
    model: nn.Module,
    class_weights: Sequence[str] | None,
    args: TrainingArguments,
    train_dataset: Any,
    names: Sequence[str],
) -> None:
    """Write class weights and label smoothing into the configuration of a fusion model, whose loss reads them.

    Of a regression these are refused, and the scale of the targets is written.

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
    if is_regression(model):
        refuse_classes(class_weights, args)
        set_target_scale(config, train_dataset, names)
        return
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
