"""Fuse encoders of transformers, one per modality, and classify or predict a number by a linear layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_limits import check_size
from .configuration_multimodal import MultimodalConfig
from .modeling_backbones import given_backbone
from .modeling_encoders import ModalityEncoder, ModalityOutput
from .modeling_fusion import FusionModule, build_fusion
from .modeling_losses import in_target_unit, loss_of
from .modeling_missing import Placeholder, ablations, encode_present, presence
from .modeling_pretrained import MultimodalPreTrainedModel


@dataclass
class MultimodalModelOutput(ModelOutput):
    """Output of `MultimodalModel`.

    Attributes:
        fused: (batch, fused width) joint representation.
        features: modality -> (batch, d) uni-modal feature, before any modality has seen another; a placeholder in rows
            that lack the modality.
        present: modality -> (batch,) bool, True for rows that have it.
        ablations: `only_<modality>`, `without_<modality>` and, of more than three modalities, sets such as `a+b` ->
            (batch, fused width), with `output_ablations` only.
    """

    fused: Tensor | None = None
    features: dict[str, Tensor] | None = None
    present: dict[str, Tensor] | None = None
    ablations: dict[str, Tensor] | None = None


@dataclass
class MultimodalClassifierOutput(ModelOutput):
    """Output of `MultimodalForClassification`.

    Attributes:
        loss: scalar, with `labels` only: the fused loss and, times `unimodal_loss_weight`, those of the heads.
        logits: (batch, number of classes); of a regression (batch, 1), predictions in the targets' unit. The same
            holds for the other logits.
        features: modality -> (batch, d) uni-modal feature; a placeholder in rows that lack the modality.
        unimodal_logits: modality -> (batch, number of classes), with `unimodal_loss_weight` > 0 only.
        present: modality -> (batch,) bool, True for rows that have it.
        ablation_logits: `only_<modality>`, `without_<modality>` and, of more than three modalities, sets such as
            `a+b` -> (batch, number of classes), with `output_ablations` and two modalities or more only.
        losses: `fused` and the modalities that have a head -> scalar, before weights, with `labels` only.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    features: dict[str, Tensor] | None = None
    unimodal_logits: dict[str, Tensor] | None = None
    present: dict[str, Tensor] | None = None
    ablation_logits: dict[str, Tensor] | None = None
    losses: dict[str, Tensor] | None = None


_NOT_GIVEN = ("output_hidden_states", "output_attentions")  # of all layers, which differ by backbone


def split_inputs(inputs: Mapping[str, Tensor], encoders: nn.ModuleDict) -> dict[str, dict[str, Tensor]]:
    """Sort `{modality}_{argument}` by modality. `view` and `view_front` may stand side by side: the argument decides.

    Arguments are those of the modality's backbone, and `present`.

    Raises:
        TypeError: for an input of no modality.
    """
    by_modality: dict[str, dict[str, Tensor]] = {name: {} for name in encoders}
    known: dict[str, Any] = {name: (*encoder.input_names, "present") for name, encoder in encoders.items()}
    for key, value in inputs.items():
        if key in _NOT_GIVEN:
            if value:
                raise TypeError(
                    f"{key}=True is not for a fusion model: `features` of the output holds one feature for each "
                    "modality, and model.encoders[name].backbone(...) gives what the backbone itself does"
                )
            continue
        owners = [
            (name, key.removeprefix(f"{name}_"))
            for name, arguments in known.items()
            if key.startswith(f"{name}_") and key.removeprefix(f"{name}_") in arguments
        ]
        if not owners:
            takes = ", ".join(f"{name}_({'|'.join(arguments)})" for name, arguments in known.items())
            raise TypeError(f"the input {key!r} belongs to no modality; this model takes {takes}")
        name, argument = max(owners, key=lambda owner: len(owner[0]))
        by_modality[name][argument] = value
    return by_modality


class MultimodalModel(MultimodalPreTrainedModel):
    """Encode each modality, and fuse the features.

    Inputs are flat keyword arguments, `{modality}_{argument of the backbone}`: `audio_input_values`,
    `vision_pixel_values`; and `{modality}_present`, (batch,) bool, if some rows lack a modality.

    Args:
        config: the configuration.
        backbones: modality -> backbone to use in place of a new one with random weights; the module of a
            `ModuleBackbone`.
        fusion_module: the user's own fusion, if the configuration says `"custom"`.
    """

    def __init__(
        self,
        config: MultimodalConfig,
        backbones: Mapping[str, PreTrainedModel] | None = None,
        fusion_module: FusionModule | None = None,
    ):
        super().__init__(config)
        if not config.modalities:
            raise ValueError("a fusion model needs at least one modality: MultimodalConfig(modalities={...})")
        # "sdpa" is what transformers chose for this class: towers choose for themselves, since not all can.
        attention = config._attn_implementation if config._attn_implementation != "sdpa" else None
        self.encoders: Any = nn.ModuleDict()
        self.placeholders = nn.ModuleDict()
        main_inputs: list[str] = []
        for name, modality in config.modalities.items():
            backbone = given_backbone(name, modality, (backbones or {}).get(name), attention)
            self.encoders[name] = ModalityEncoder(backbone, modality)
            self.placeholders[name] = Placeholder(modality, learnt=config.missing_placeholder == "learnt")
            main_inputs.append(f"{name}_{backbone.main_input_name}")
            count = sum(parameter.numel() for parameter in self.encoders.parameters())
            check_size("parameters", count, "the number of parameters")
        self.fusion = build_fusion(config, fusion_module)
        self.fused_size: int = self.fusion.fused_size
        self.main_input_name = main_inputs[0]
        self.post_init()

    def forward(
        self, output_ablations: bool = False, detach_fusion: bool = False, **inputs: Tensor
    ) -> MultimodalModelOutput:
        """Encode and fuse a batch.

        Args:
            output_ablations: whether to fuse the same encodings again with each modality alone and each left out.
            detach_fusion: whether gradients of the fused representation stop before the encoders.
            **inputs: `{modality}_{argument of the backbone}` and `{modality}_present`.

        Raises:
            TypeError: for an input that belongs to no modality, or a modality without inputs that is not said to be
                missing.
            ValueError: for a `{modality}_present` of another shape than (batch,).
        """
        by_modality = split_inputs(inputs, self.encoders)
        given = {name: arguments.pop("present") for name, arguments in by_modality.items() if "present" in arguments}
        masks = presence(given, by_modality)
        encoded = {
            name: encode_present(encoder, by_modality[name], masks[name]) for name, encoder in self.encoders.items()
        }
        everyone = {name: _all_rows(output["feature"]) for name, output in encoded.items()}
        present = {name: everyone[name] if mask is None else mask for name, mask in masks.items()}
        joined = {name: _detached(output) for name, output in encoded.items()} if detach_fusion else encoded
        filled, fused = self.fuse(joined, present, masks)
        if detach_fusion:
            filled = self.fill(encoded, masks)
        by_rest: dict[frozenset[str], Tensor] = {}  # of two modalities, one alone is the other left out
        rests = ablations(list(present)) if output_ablations else {}
        for rest in rests.values():
            if rest not in by_rest:
                kept = {name: mask if name in rest else torch.zeros_like(mask) for name, mask in present.items()}
                by_rest[rest] = self.fuse(joined, kept, kept)[1]
        return MultimodalModelOutput(
            fused=fused,
            features={name: output["feature"] for name, output in filled.items()},
            present=present,
            ablations={name: by_rest[rest] for name, rest in rests.items()} or None,
        )

    def fuse(
        self, encoded: dict[str, ModalityOutput], present: dict[str, Tensor], masks: Mapping[str, Tensor | None]
    ) -> tuple[dict[str, ModalityOutput], Tensor]:
        """Put placeholders in the rows that a mask names, and fuse: what was fused, and (batch, fused width)."""
        filled = self.fill(encoded, masks)
        return filled, self.fusion(filled, present)

    def fill(
        self, encoded: Mapping[str, ModalityOutput], masks: Mapping[str, Tensor | None]
    ) -> dict[str, ModalityOutput]:
        """Put placeholders in the rows that a mask names."""
        return {name: self.placeholders[name](output, masks[name]) for name, output in encoded.items()}


class MultimodalForClassification(MultimodalPreTrainedModel):
    """Classify by a linear layer on the fused representation of a `MultimodalModel`.

    With `config.unimodal_loss_weight` > 0 there is also one linear head per modality on its own feature, whose loss
    is added with that weight. The number of classes is that of `config.id2label`. With one (`num_labels=1`, or
    `problem_type="regression"`) it predicts a number: layer and heads predict standardised targets, by `target_mean`
    and `target_deviation` of the configuration.
    """

    def __init__(
        self,
        config: MultimodalConfig,
        backbones: Mapping[str, PreTrainedModel] | None = None,
        fusion_module: FusionModule | None = None,
    ):
        super().__init__(config)
        config.check_loss()
        self.multimodal = MultimodalModel(config, backbones, fusion_module)
        num_classes = len(config.id2label or {})
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(self.multimodal.fused_size, num_classes)
        self.unimodal_heads = nn.ModuleDict()
        if config.unimodal_loss_weight > 0:
            with torch.random.fork_rng(devices=[]):  # what is drawn in `post_init` does not depend on heads
                for name, modality in config.modalities.items():
                    self.unimodal_heads[name] = nn.Linear(modality.feature_size, num_classes)
        self.main_input_name = self.multimodal.main_input_name
        self.post_init()

    @property
    def encoders(self) -> nn.ModuleDict:
        """Ordered mapping modality -> encoder."""
        return self.multimodal.encoders

    def forward(
        self,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        output_ablations: bool = False,
        detach_fusion: bool = False,
        **inputs: Tensor,
    ) -> MultimodalClassifierOutput:
        """Classify a batch.

        Args:
            labels: (batch,) int64 class indices, or (batch, number of classes) zeros and ones for several classes per
                sample; -100 is left out of the loss. Of a regression (batch,) numbers; NaN is left out.
            num_items_in_batch: number of labels in the whole accumulated batch, which `Trainer` passes; the loss is
                then the sum over this batch divided by it, so that gradient accumulation does not change it.
            output_ablations: whether to classify again with each modality alone and each left out. Encoders run once.
            detach_fusion: whether the fused loss trains fusion and classifier only; heads' losses reach encoders.
            **inputs: `{modality}_{argument of the backbone}`, and `{modality}_present`, (batch,) bool, if rows lack
                a modality. The inputs of one that all rows lack may be left out.

        Raises:
            TypeError: for an input that belongs to no modality, or a modality without inputs that is not said to be
                missing.
            ValueError: for labels or a `{modality}_present` of another shape.
        """
        output = self.multimodal(output_ablations=output_ablations, detach_fusion=detach_fusion, **inputs)
        logits = self.classifier(self.dropout(output.fused))
        unimodal_logits = {name: head(output.features[name]) for name, head in self.unimodal_heads.items()}
        loss, losses = None, {}
        if labels is not None:
            loss = losses["fused"] = loss_of(logits, labels, self.config, num_items_in_batch)
            for name, head_logits in unimodal_logits.items():
                present = output.present[name]
                losses[name] = loss_of(head_logits, labels, self.config, num_items_in_batch, present)
                loss = loss + self.config.unimodal_loss_weight * losses[name]
        ablated = {name: self.classifier(self.dropout(fused)) for name, fused in (output.ablations or {}).items()}
        return MultimodalClassifierOutput(
            loss=loss,
            logits=in_target_unit(logits, self.config),
            features=output.features,
            unimodal_logits={name: in_target_unit(each, self.config) for name, each in unimodal_logits.items()}
            or None,
            present=output.present,
            ablation_logits={name: in_target_unit(each, self.config) for name, each in ablated.items()} or None,
            losses=losses or None,
        )


def _detached(output: ModalityOutput) -> ModalityOutput:
    return ModalityOutput(output["feature"].detach(), output["tokens"].detach(), output.token_mask)


def _all_rows(feature: Tensor) -> Tensor:
    return torch.ones(feature.shape[0], dtype=torch.bool, device=feature.device)
