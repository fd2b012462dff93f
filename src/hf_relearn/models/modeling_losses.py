"""The loss of a classification: class weights, smoothed labels, several labels per sample, missing rows."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from .configuration_multimodal import MultimodalConfig


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    config: MultimodalConfig,
    num_items_in_batch: Tensor | int | None = None,
    present: Tensor | None = None,
) -> Tensor:
    """Cross-entropy, in float32; binary cross-entropy of every class where samples have several.

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
        Scalar; 0 where nothing is labelled.

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
