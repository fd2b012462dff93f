"""Multi-loss gradient modulation."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_relearn.balancing.base import ScoredMethod, gradients_of


class MultiLossBalancing(ScoredMethod):
    """Scale the gradient of each encoder by how far its modality is behind the others.

    The loss is CE + w Σ_m CE_m, with the model's own w (`unimodal_loss_weight`; 1 in the paper). The gradient of
    encoder m is multiplied by 1 + tanh(α (s_other / s_m − 1)). There s_m is the score of its head (see `ScoredMethod`)
    and s_other the mean of the others' (multi-loss balanced, MLB; Kontras et al., BMVC 2024, arXiv 2405.07930).

    A step costs next to nothing beyond one with heads. Gradients are clipped before, if at all.

    Args:
        alpha: α.
    """

    name: ClassVar[str] = "mlb"
    changes_gradients: ClassVar[bool] = True

    def __init__(self, alpha: float = 0.8):
        super().__init__()
        if not alpha >= 0:
            raise ValueError(f"alpha is {alpha}, but it is at least 0")
        self.alpha = alpha

    def loss(self, model: Any, outputs: Mapping[str, Any], inputs: Mapping[str, Any]) -> Tensor:
        self.add_scores(outputs["unimodal_logits"], inputs["labels"], outputs["present"])
        return outputs["loss"]

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for name, ratio in self.ratios().items():
            factor = 1 + math.tanh(self.alpha * (1 / ratio - 1))
            for gradient in gradients_of(self.model.encoders[name]):
                gradient.mul_(factor)
