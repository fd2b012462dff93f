"""MMPareto: gradients of the fused and of the uni-modal loss brought together."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from accelerate.utils import reduce
from torch import Tensor, nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_relearn.balancing.base import BalancingMethod


class MMPareto(BalancingMethod):
    """Join each encoder's gradients of the fused loss and of its own head's so that neither undoes the other.

    Of encoder m, let g_f be the gradient of CE and g_u that of w CE_m, w being the model's `unimodal_loss_weight`. If
    cos(g_f, g_u) ≥ 0 then d = ½ g_f + ½ g_u; else d is the point of least norm between the two. The encoder gets d,
    rescaled to `scale` times the norm of g_f + g_u (Wei and Hu, ICML 2024, arXiv 2405.17730). Everything else gets the
    gradient of CE + w Σ_m CE_m.

    A step costs one backward pass more through each encoder, and memory for the gradients of the encoders. Gradients
    add up over the batches of a step and over processes before they are compared.

    Args:
        scale: factor on the norm.
    """

    name: ClassVar[str] = "mmpareto"
    changes_gradients: ClassVar[bool] = True
    needs_whole_gradients: ClassVar[bool] = True

    def __init__(self, scale: float = 1.5):
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale is {scale}, but it is above 0")
        self.scale = scale
        self._own: dict[str, list[Tensor]] = {}

    def check(self, model: nn.Module, args: TrainingArguments) -> None:
        super().check(model, args)
        if args.fp16:
            raise ValueError("--balancing mmpareto takes gradients without the loss scale of --fp16: use --bf16")
        for name, head in self.heads.items():
            if not all(parameter.requires_grad for parameter in head.parameters()):
                raise ValueError(f"--balancing mmpareto needs heads that are trained, but that of {name!r} is frozen")

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._own = {}

    def loss(self, model: Any, outputs: Mapping[str, Any], inputs: Mapping[str, Any]) -> Tensor:
        for name in model.encoders:
            parameters = self._parameters(name)
            own = model.config.unimodal_loss_weight * outputs["losses"][name]
            found = torch.autograd.grad(own, parameters, retain_graph=True, materialize_grads=True)
            before = self._own.get(name)
            self._own[name] = list(found) if before is None else [a + b for a, b in zip(before, found, strict=True)]
        return outputs["loss"]

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for name in self.model.encoders:
            own = [reduce(gradient, "mean") for gradient in self._own.pop(name)]
            parameters = self._parameters(name)
            self._join(parameters, own, heads=len(list(self.heads[name].parameters())))

    def _parameters(self, name: str) -> list[nn.Parameter]:
        """Return those of a modality's head, and those of its encoder that are trained."""
        encoder = [parameter for parameter in self.model.encoders[name].parameters() if parameter.requires_grad]
        return [*self.heads[name].parameters(), *encoder]

    def _join(self, parameters: list[nn.Parameter], own: list[Tensor], heads: int) -> None:
        # The Trainer may have scaled the gradients (accumulation, processes, clipping). A head has no other gradient
        # than that of its own loss, so it tells by how much.
        head = _dot(own[:heads], own[:heads])
        if head == 0:
            return  # no labelled sample of the step has the modality
        scaled = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters[:heads]]
        factor = _dot(scaled, own[:heads]) / head
        plain, unimodal = [], []
        for parameter, gradient in zip(parameters[heads:], own[heads:], strict=True):
            if parameter.grad is not None:
                plain.append(parameter.grad)
                unimodal.append(factor * gradient)
        fused = [both - gradient for both, gradient in zip(plain, unimodal, strict=True)]
        weight = _fused_share(_dot(fused, fused), _dot(fused, unimodal), _dot(unimodal, unimodal))
        joined = [weight * f + (1 - weight) * u for f, u in zip(fused, unimodal, strict=True)]
        norm = _dot(joined, joined) ** 0.5
        length = self.scale * _dot(plain, plain) ** 0.5 / norm if norm > 0 else 0.0
        for gradient, new in zip(plain, joined, strict=True):
            gradient.copy_(new * length)


def _fused_share(fused: float, both: float, unimodal: float) -> float:
    """Compute the weight of g_f in the joined gradient; that of g_u is what is left of 1.

    Args:
        fused, both, unimodal: the products <g_f, g_f>, <g_f, g_u>, <g_u, g_u>.
    """
    if both >= 0:
        return 0.5
    return min(max((unimodal - both) / (fused - 2 * both + unimodal), 0.0), 1.0)


def _dot(first: list[Tensor], second: list[Tensor]) -> float:
    products = [(a.float() * b.float()).sum() for a, b in zip(first, second, strict=True)]
    return float(torch.stack(products).sum()) if products else 0.0
