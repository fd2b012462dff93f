"""The seam for methods that balance modalities in another way than re-learning, in any `transformers.Trainer`."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate.utils import reduce
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_relearn.method.tensors import is_sharded
from hf_relearn.relearning.encoders import chosen_encoders


class BalancingMethod(TrainerCallback):
    """Change the inputs, the loss or the gradients of a training step.

    Subclasses override `inputs`, `loss` and the events of `TrainerCallback`, `on_pre_optimizer_step` among them. The
    two hooks hang on the model's own forward pass while it trains. So a stock `Trainer` calls them too, whatever wraps
    the model, and evaluations and diagnoses do not see them.

    A method keeps nothing from one step to the next: what it draws follows from the seed, the step and the process. So
    a resumed run needs no state of it.

    The model is a `MultimodalForClassification`, possibly with adapters. Another one works too if it has `encoders`
    and `unimodal_heads` and gives `losses`, `unimodal_logits` and `present` (see `MultimodalClassifierOutput`).

    Attributes:
        name: how flags call the method.
        needs_heads: whether it needs a uni-modal head for each modality.
        needs_one_class: whether it needs one class per sample.
        changes_gradients: whether it changes gradients between the backward pass and the optimizer.
        needs_whole_gradients: whether it cannot do so if processes hold parts of a parameter.
    """

    name: ClassVar[str]
    needs_heads: ClassVar[bool] = True
    needs_one_class: ClassVar[bool] = False
    changes_gradients: ClassVar[bool] = False
    needs_whole_gradients: ClassVar[bool] = False

    def __init__(self) -> None:
        self.model: Any = None
        self._handles: list[Any] = []

    @property
    def heads(self) -> dict[str, nn.Module]:
        """Return the uni-modal heads by modality; those that are trained, if adapters hold copies."""
        return dict(getattr(self.model, "unimodal_heads", {}).items())

    def inputs(self, model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the inputs of a training forward pass; those given are not to be changed."""
        return inputs

    def loss(self, model: Any, outputs: Mapping[str, Any], inputs: Mapping[str, Any]) -> Tensor:
        """Return the loss of a training forward pass; the model's own weighted sum by default.

        Args:
            model: without adapters.
            outputs: of the forward pass; `losses` are the scalars by name, before weights.
            inputs: of the forward pass, with `labels`.
        """
        return outputs["loss"]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any, **kwargs: Any
    ) -> None:
        self._remove_hooks()  # an attempt before may have failed
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.check(model, args)
        self._handles = [
            model.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            model.register_forward_hook(self._after_forward, with_kwargs=True),
        ]

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._remove_hooks()

    def check(self, model: nn.Module, args: TrainingArguments) -> None:
        """Refuse a model, or a way to train it, that the method cannot work with.

        Raises:
            ValueError: says why, and what to do.
        """
        flag = f"--balancing {self.name}"
        encoders = getattr(self.model, "encoders", {})
        if len(encoders) < 2:
            raise ValueError(f"{flag} needs two modalities, but {type(self.model).__name__} has {len(encoders)}")
        if self.needs_heads and set(self.heads) != set(encoders):
            raise ValueError(
                f"{flag} needs a uni-modal head for each modality: build the model with unimodal_loss_weight > 0 "
                "(--unimodal_loss_weight 1)"
            )
        problem = getattr(self.model.config, "problem_type", None)
        if self.needs_one_class and problem in ("multi_label_classification", "regression"):
            have = "none, but a number" if problem == "regression" else "several"
            raise ValueError(f"{flag} compares scores of the true class, but samples have {have}: use detached")
        if self.changes_gradients:
            chosen_encoders(encoders, None)  # refuses a parameter that two encoders share
            self._check_gradients(flag, model, args)

    def _check_gradients(self, flag: str, model: nn.Module, args: TrainingArguments) -> None:
        if args.deepspeed_plugin is not None:
            raise ValueError(f"{flag} changes gradients, which DeepSpeed keeps to itself: use DDP")
        flattened = any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules())
        sharded = any(is_sharded(parameter) for parameter in model.parameters())
        if flattened or (sharded and self.needs_whole_gradients):
            raise ValueError(f"{flag} needs whole gradients, but FSDP divides them among processes: use DDP")

    def _before_forward(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple | None:
        return (args, self.inputs(self.model, kwargs)) if model.training else None

    def _after_forward(self, model: nn.Module, args: tuple, kwargs: dict[str, Any], outputs: Any) -> Any:
        if not model.training:
            return None
        if not outputs.get("losses"):
            raise ValueError(
                f"--balancing {self.name}: the model gave no losses by name: give it labels (a stock Trainer with "
                "label_smoothing_factor takes them out: set the model's config.label_smoothing instead)"
            )
        outputs["loss"] = self.loss(self.model, outputs, kwargs)
        return outputs

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


class ScoredMethod(BalancingMethod):
    """Compare how well the modalities do by themselves in the batches of a step.

    The score s_m is the mean probability that modality m gives to the true class, over all batches of the step and
    all processes, and over the samples that have the modality.
    """

    needs_one_class: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self._totals: Tensor | None = None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._totals = None

    def add_scores(self, logits: Mapping[str, Tensor], labels: Tensor, present: Mapping[str, Tensor]) -> None:
        """Count one batch of the step."""
        totals = score_totals(logits, labels, present)
        self._totals = totals if self._totals is None else self._totals + totals

    def ratios(self) -> dict[str, float]:
        """Compute ρ_m of the step by modality; every process has to call this."""
        return {} if self._totals is None else score_ratios(self._totals, list(self.model.encoders))


def score_totals(logits: Mapping[str, Tensor], labels: Tensor, present: Mapping[str, Tensor]) -> Tensor:
    """Sum the true class's probabilities and count their samples: (modalities, 2)."""
    labelled = labels != -100
    true = labels.where(labelled, 0)[:, None]
    rows = []
    for name, values in logits.items():
        counted = labelled & present[name]
        probability = values.detach().float().softmax(dim=-1).gather(1, true).squeeze(1)
        rows.append(torch.stack([torch.where(counted, probability, 0).sum(), counted.sum().float()]))
    return torch.stack(rows)


def score_ratios(totals: Tensor, names: list[str]) -> dict[str, float]:
    """Compute ρ_m = s_m / mean of the others' scores; empty if fewer than two modalities were seen in the step.

    Args:
        totals: `score_totals` of this process; those of all processes are added.
        names: the modalities.
    """
    sums = reduce(totals, "sum").tolist()
    scores = {name: max(total / count, 1e-8) for name, (total, count) in zip(names, sums, strict=True) if count}
    if len(scores) < 2:
        return {}
    everything = sum(scores.values())
    return {name: score * (len(scores) - 1) / (everything - score) for name, score in scores.items()}


def gradients_of(module: nn.Module) -> list[Tensor]:
    """Return the gradients of a module's parameters, as far as there are any."""
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def seeded(*numbers: int) -> np.random.Generator:
    """Make a generator from some numbers: the seed, the step and what else tells draws apart."""
    return np.random.default_rng(numbers)
