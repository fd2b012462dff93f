"""Adaptive modality dropout."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_relearn.balancing.base import ScoredMethod, score_ratios, score_totals, seeded


class ModalityDropout(ScoredMethod):
    """Drop the stronger modalities' features from the fusion at random, the more the stronger they are.

    With ρ_m = s_m / mean of the others' scores, s_m being the score of modality m's head in the batch, the feature of
    a modality with ρ_m > 1 is dropped in each sample with probability q_m = clip(q (1 + λ tanh(ρ_m − 1)), 0, 1), in a
    share of the steps (on-the-fly prediction modulation, OPM; Wei et al., TPAMI 2024). A dropped modality is missing
    for the fusion, as in a sample that lacks it. Its head sees all samples, and each sample keeps a modality. The loss
    is the model's own.

    A step costs next to nothing beyond one with heads.

    Args:
        probability: q, .4 to .5 in use.
        scale: λ.
        share: share of the steps in which anything is dropped.
    """

    name: ClassVar[str] = "modality_dropout"
    needs_one_class: ClassVar[bool] = True

    def __init__(self, probability: float = 0.5, scale: float = 0.5, share: float = 0.7):
        super().__init__()
        if not 0 <= probability <= 1 or not 0 <= share <= 1 or not scale >= 0:
            raise ValueError(
                f"probability is {probability}, share {share} and scale {scale}, but the first two are in [0, 1] and "
                "scale is at least 0"
            )
        self.probability = probability
        self.scale = scale
        self.share = share
        self._labels: Tensor | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, model, **kwargs)
        self._handles.append(self.model.multimodal.fusion.register_forward_pre_hook(self._drop))
        self._seed, self._process = args.seed, args.process_index

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._step, self._batches = state.global_step, 0

    def inputs(self, model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        self._labels = inputs.get("labels")
        return inputs

    def _drop(self, fusion: nn.Module, args: tuple) -> tuple | None:
        """Drop features before the fusion, once per training forward pass."""
        encoded, present = args
        labels, self._labels = self._labels, None
        if labels is None:
            return None
        batch, self._batches = self._batches, self._batches + 1
        if seeded(self._seed, self._step).random() >= self.share:
            return None
        with torch.no_grad():
            logits = {name: head(encoded[name]["feature"]) for name, head in self.heads.items()}
        ratios = score_ratios(score_totals(logits, labels, present), list(logits))
        encoded, present = dict(encoded), dict(present)
        for index, name in enumerate(encoded):
            if ratios.get(name, 0) <= 1:
                continue
            probability = self.probability * (1 + self.scale * math.tanh(ratios[name] - 1))
            draws = seeded(self._seed, self._step, batch, self._process, index).random(len(labels)) < probability
            others = torch.stack([having for other, having in present.items() if other != name]).any(dim=0)
            kept = ~(torch.from_numpy(draws).to(others.device) & others)
            encoded[name] = self.model.multimodal.placeholders[name](encoded[name], kept & present[name])
            present[name] = present[name] & kept
        return encoded, present
