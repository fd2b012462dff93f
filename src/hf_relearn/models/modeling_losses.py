"""Losses of classes and of numbers, and the unit of predicted numbers."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, l1_loss, mse_loss

from .configuration_multimodal import REGRESSION, MultimodalConfig


def loss_of(
    logits: Tensor,
    labels: Tensor,
    config: MultimodalConfig,
    num_items_in_batch: Tensor | int | None = None,
    present: Tensor | None = None,
) -> Tensor:
    """Return the loss that the configuration's `problem_type` asks for: `regression_loss` or `classification_loss`."""
    of_problem = regression_loss if config.problem_type == REGRESSION else classification_loss
    return of_problem(logits, labels, config, num_items_in_batch, present)


def regression_loss(
    predictions: Tensor,
    targets: Tensor,
    config: MultimodalConfig,
    num_items_in_batch: Tensor | int | None = None,
    present: Tensor | None = None,
) -> Tensor:
    """Mean squared or absolute error of standardised predictions, in float32.

    Args:
        predictions: (batch, 1), standardised.
        targets: (batch,) numbers in their own unit; NaN is left out.
        config: `regression_loss`, `target_mean` and `target_deviation` are used.
        num_items_in_batch: number of targets in the whole accumulated batch, in place of that in this one.
        present: (batch,) bool; the other rows count as if their loss was 0.

    Returns:
        Scalar; 0 if there is no target.

    Raises:
        ValueError: for targets of another shape.
    """
    if targets.shape != predictions.shape[:1]:
        raise ValueError(
            f"labels have shape {tuple(targets.shape)}, but one number per sample, {tuple(predictions.shape[:1])}, is "
            "wanted"
        )
    mean, deviation = target_scale(config)
    known = ~targets.isnan()
    wanted = torch.where(known, (targets.float() - mean) / deviation, 0)
    of_kind = l1_loss if config.regression_loss == "l1" else mse_loss
    losses = of_kind(predictions.float().squeeze(-1), wanted, reduction="none")
    losses = torch.where(known if present is None else known & present, losses, 0)
    total = known.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
    return losses.sum() / total


def target_scale(config: MultimodalConfig) -> tuple[float, float]:
    """Return mean and standard deviation of the targets; 0 and 1 if they are not known."""
    mean, deviation = config.target_mean, config.target_deviation
    return (0.0 if mean is None else mean), (1.0 if deviation is None else deviation)


def in_target_unit(logits: Tensor, config: MultimodalConfig | None) -> Tensor:
    """Turn standardised predictions into the targets' unit, in float32; those of any other model stay as they are."""
    if not isinstance(config, MultimodalConfig) or config.problem_type != REGRESSION:
        return logits
    mean, deviation = target_scale(config)
    return logits.float() * deviation + mean


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    config: MultimodalConfig,
    num_items_in_batch: Tensor | int | None = None,
    present: Tensor | None = None,
) -> Tensor:
    """Cross-entropy, in float32; binary cross-entropy of every class if samples have several.

    One class per sample: the mean over labelled rows, weighted by the class weight w of each row's label as in torch,
    Σ w l / Σ w. Several: the mean over all rows and classes, each class' terms times its weight. Where
    `num_items_in_batch` is given the sum is divided by that instead, whatever the weights: parts of a batch then add
    up exactly, and weights that average 1 over the training samples (n / (k · count)) keep the scale.

    Args:
        logits: (batch, number of classes).
        labels: (batch,) int64 class indices, or (batch, number of classes) zeros and ones for
            `config.problem_type="multi_label_classification"`; -100 is left out.
        config: `class_weights`, `label_smoothing` and `problem_type` are used.
        num_items_in_batch: number of labels in the whole accumulated batch.
        present: (batch,) bool; the other rows count as if their loss was 0, so a sample that lacks a modality neither
            teaches its head nor makes the others count more.

    Returns:
        Scalar; 0 if nothing is labelled.

    Raises:
        ValueError: for labels of another shape.
    """
    several = config.problem_type == "multi_label_classification"
    wanted = logits.shape if several else logits.shape[:1]
    if labels.shape != wanted:
        what = "one 0 or 1 per class" if several else "one class index per sample"
        hint = "" if several else "; for several classes per sample set problem_type='multi_label_classification'"
        raise ValueError(f"labels have shape {tuple(labels.shape)}, but {what}, {tuple(wanted)}, is wanted{hint}")
    logits = logits.float()
    weights = None if config.class_weights is None else logits.new_tensor(config.class_weights)
    labelled = labels != -100
    if several:
        targets = labels.to(logits.dtype) * (1 - config.label_smoothing) + config.label_smoothing / 2
        losses = binary_cross_entropy_with_logits(logits, targets, weight=weights, reduction="none")
        losses = torch.where(labelled, losses, 0).sum(dim=-1)
        total = labelled.sum()
    else:
        losses = cross_entropy(
            logits, labels, weight=weights, label_smoothing=config.label_smoothing, reduction="none"
        )
        total = labelled.sum() if weights is None else weights[labels.where(labelled, 0)].where(labelled, 0).sum()
    if present is not None:
        losses = torch.where(present, losses, 0)
    if num_items_in_batch is not None:
        return losses.sum() / num_items_in_batch
    return losses.sum() / torch.where(total > 0, total, 1)
