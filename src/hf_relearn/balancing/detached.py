"""Detached fusion."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hf_relearn.balancing.base import BalancingMethod


class DetachedFusion(BalancingMethod):
    """Train the encoders by their own heads only, and the fusion on features without gradients.

    The loss is CE(fusion of detached features) + w Σ_m CE_m. The fused loss trains fusion and classifier, and the
    loss of each head its encoder. So no modality takes another one's gradient (disentangled gradient learning, DGL,
    ICCV 2025).

    A step costs less than a joint one: the backward pass of the fusion ends before the encoders.

    Args:
        weight: w, in place of the model's `unimodal_loss_weight`; 2 to 4 in use.
    """

    name: ClassVar[str] = "detached"

    def __init__(self, weight: float = 2.0):
        super().__init__()
        if not weight > 0:
            raise ValueError(f"weight is {weight}, but without the heads' losses nothing would train the encoders")
        self.weight = weight

    def inputs(self, model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        return {**inputs, "detach_fusion": True}

    def loss(self, model: Any, outputs: Mapping[str, Any], inputs: Mapping[str, Any]) -> Tensor:
        losses = outputs["losses"]
        return losses["fused"] + self.weight * sum(losses[name] for name in model.encoders)
