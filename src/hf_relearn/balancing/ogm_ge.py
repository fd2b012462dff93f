"""On-the-fly gradient modulation with generalisation enhancement."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_relearn.balancing.base import ScoredMethod, gradients_of, seeded


class OgmGe(ScoredMethod):
    """Weaken the gradients of the stronger modalities' encoders, and add noise to all of them.

    With the score s_m (see `ScoredMethod`) and ρ_m = s_m / mean of the others' scores, k_m = 1 − tanh(α ρ_m) if
    ρ_m > 1, else 1, and g ← k_m g + N(0, std(g)) (Peng et al., CVPR 2022, arXiv 2203.15332). As in the paper's code
    this changes convolution weights only. An encoder whose weights are mostly no convolutions (a transformer) has it
    done to all its weight matrices.

    A modality's score is that of its head. Without heads it is that of the fused prediction from this modality alone,
    as in the paper; the fusion then runs once more per modality. The loss is the model's own.

    A step costs next to nothing beyond a joint one. The noise is the same in every process.

    Args:
        alpha: α; the paper's runs have .1 to .8.
        until: share of the run's steps after which nothing is changed any more.
    """

    name: ClassVar[str] = "ogm_ge"
    needs_heads: ClassVar[bool] = False
    changes_gradients: ClassVar[bool] = True
    needs_whole_gradients: ClassVar[bool] = True

    def __init__(self, alpha: float = 0.3, until: float = 0.5):
        super().__init__()
        if not alpha >= 0 or not 0 <= until <= 1:
            raise ValueError(f"alpha is {alpha} and until {until}, but alpha is at least 0 and until in [0, 1]")
        self.alpha = alpha
        self.until = until

    def inputs(self, model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs if self.heads else {**inputs, "output_ablations": True}

    def loss(self, model: Any, outputs: Mapping[str, Any], inputs: Mapping[str, Any]) -> Tensor:
        logits = outputs.get("unimodal_logits")
        if logits is None:
            logits = {name: outputs["ablation_logits"][f"only_{name}"] for name in model.encoders}
        self.add_scores(logits, inputs["labels"], outputs["present"])
        return outputs["loss"]

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step >= self.until * state.max_steps:
            return
        ratios = self.ratios()
        for index, (name, encoder) in enumerate(self.model.encoders.items()):
            ratio = ratios.get(name, 0.0)
            factor = 1 - math.tanh(self.alpha * ratio) if ratio > 1 else 1.0
            for number, gradient in enumerate(_modulated(encoder)):
                seed = int(seeded(args.seed, state.global_step, index, number).integers(2**63))
                generator = torch.Generator(gradient.device).manual_seed(seed)
                noise = torch.empty_like(gradient).normal_(generator=generator)
                gradient.copy_(factor * gradient + noise * gradient.std())


def _modulated(encoder: nn.Module) -> list[Tensor]:
    """Return the gradients that are changed: those of convolutions, or in another encoder those of all matrices."""
    matrices = [gradient for gradient in gradients_of(encoder) if gradient.ndim > 1 and gradient.numel() > 1]
    convolutions = [gradient for gradient in matrices if gradient.ndim > 2]
    mostly = 2 * sum(map(torch.numel, convolutions)) > sum(map(torch.numel, matrices))
    return convolutions if mostly else matrices
