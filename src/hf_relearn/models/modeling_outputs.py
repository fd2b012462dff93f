"""What the fusion models return."""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class MultimodalModelOutput(ModelOutput):
    """Output of `MultimodalModel`.

    Attributes:
        fused: (batch, fused width) joint representation.
        features: modality -> (batch, d) uni-modal feature, before any modality has seen another; a placeholder in rows
            that lack the modality.
        present: modality -> (batch,) bool, True for rows that have it.
        ablations: `only_<modality>` and `without_<modality>` -> (batch, fused width), with `output_ablations` only.
    """

    fused: Tensor | None = None
    features: dict[str, Tensor] | None = None
    present: dict[str, Tensor] | None = None
    ablations: dict[str, Tensor] | None = None


@dataclass
class MultimodalClassifierOutput(ModelOutput):
    """Output of `MultimodalForClassification`.

    Attributes:
        loss: scalar, with `labels` only.
        logits: (batch, number of classes).
        features: modality -> (batch, d) uni-modal feature; a placeholder in rows that lack the modality.
        unimodal_logits: modality -> (batch, number of classes), with `unimodal_loss_weight` > 0 only.
        present: modality -> (batch,) bool, True for rows that have it.
        ablation_logits: `only_<modality>` and `without_<modality>` -> (batch, number of classes), with
            `output_ablations` and two modalities or more only.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    features: dict[str, Tensor] | None = None
    unimodal_logits: dict[str, Tensor] | None = None
    present: dict[str, Tensor] | None = None
    ablation_logits: dict[str, Tensor] | None = None
