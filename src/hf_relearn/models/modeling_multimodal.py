"""The fusion model: encoders of transformers, one per modality, concatenated, with a linear classifier."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_multimodal import MultimodalConfig
from .modeling_backbones import build_backbone, load_backbones
from .modeling_encoders import ModalityEncoder
from .modeling_loading import SafeWeightsMixin


@dataclass
class MultimodalModelOutput(ModelOutput):
    """Output of `MultimodalModel`.

    Attributes:
        fused: (batch, fused width) joint representation.
        features: modality -> (batch, d) uni-modal feature, before any modality has seen another.
    """

    fused: Tensor | None = None
    features: dict[str, Tensor] | None = None


@dataclass
class MultimodalClassifierOutput(ModelOutput):
    """Output of `MultimodalForClassification`.

    Attributes:
        loss: scalar, with `labels` only.
        logits: (batch, number of classes).
        features: modality -> (batch, d) uni-modal feature.
        unimodal_logits: modality -> (batch, number of classes), with `unimodal_loss_weight` > 0 only.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    features: dict[str, Tensor] | None = None
    unimodal_logits: dict[str, Tensor] | None = None


class MultimodalPreTrainedModel(SafeWeightsMixin, PreTrainedModel):
    """What both models share: the configuration, and properties that live in the backbones."""

    config_class = MultimodalConfig
    base_model_prefix = "multimodal"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def post_init(self) -> None:
        super().post_init()
        # transformers collects these from direct children only, and backbones sit deeper.
        for name, module in self.named_modules():
            if module is self or not isinstance(module, PreTrainedModel):
                continue
            for attribute in ("_no_split_modules", "_keep_in_fp32_modules", "_keep_in_fp32_modules_strict"):
                setattr(self, attribute, set(getattr(self, attribute)) | set(getattr(module, attribute) or ()))
            tied = {f"{name}.{key}": f"{name}.{value}" for key, value in module.all_tied_weights_keys.items()}
            self.all_tied_weights_keys.update(tied)

    def floating_point_ops(self, input_dict: Mapping[str, Any], exclude_embeddings: bool = True) -> int:
        """0: an estimate from the size of one modality's input would mislead."""
        return 0

    @classmethod
    def from_backbones(
        cls,
        backbones: Mapping[str, Any],
        *,
        fusion: str = "concat",
        modality_options: Mapping[str, Mapping[str, Any]] | None = None,
        backbone_kwargs: Mapping[str, Any] | None = None,
        **config_kwargs: Any,
    ):
        """Build a fusion model from backbones.

        Args:
            backbones: modality name -> Hub id, local folder (one with a configuration but no weights gives random
                weights), configuration (random weights) or model of transformers (used as it is, not copied; a
                pooling layer that nothing would use is taken off, as it is left out of the others).
            fusion: how features are joined; `"concat"`.
            modality_options: modality name -> options of `ModalityConfig`: `kind`, `pooling`, `num_frames`.
            backbone_kwargs: passed to `AutoModel.from_pretrained` (`revision`, `token`, ...); `dtype` (float32 by
                default) and `attn_implementation` reach backbones with random weights, too. Weights are read from
                safetensors files; `use_safetensors=False` reads others.
            **config_kwargs: fields of `MultimodalConfig`, such as `id2label` or `unimodal_loss_weight`.

        Returns:
            A model in evaluation mode, as `from_pretrained` gives it.

        Raises:
            ValueError: for no backbones, a name that cannot be a prefix, an unknown option or one of an unknown
                modality, one model object under two names, model objects of different dtypes, or a backbone that
                encodes neither sounds nor images, has a head, or takes several kinds of input.
            TypeError: for a backbone that is nothing of what is named above.
            OSError: if a Hub id or folder holds no model.
        """
        loaded, modalities = load_backbones(backbones, modality_options or {}, backbone_kwargs or {})
        config = MultimodalConfig(modalities=modalities, fusion=fusion, **config_kwargs)
        model = cls(config, backbones=loaded)
        dtype = next(iter(loaded.values())).dtype
        for name, child in model.named_children():
            if name not in ("multimodal", "encoders"):  # the new layers; backbones stay as they were given
                child.to(dtype)
        return model.eval()


class MultimodalModel(MultimodalPreTrainedModel):
    """Encoders, one per modality, and their fusion.

    Inputs are flat keyword arguments, `{modality}_{argument of the backbone}`: `audio_input_values`,
    `vision_pixel_values`.

    Args:
        config: the configuration.
        backbones: modality -> backbone to use in place of a new one with random weights.
    """

    def __init__(self, config: MultimodalConfig, backbones: Mapping[str, PreTrainedModel] | None = None):
        super().__init__(config)
        if not config.modalities:
            raise ValueError("a fusion model needs at least one modality: MultimodalConfig(modalities={...})")
        # "sdpa" is what transformers chose for this class: towers choose for themselves, since not all can.
        attention = config._attn_implementation if config._attn_implementation != "sdpa" else None
        self.encoders = nn.ModuleDict()
        main_inputs: list[str] = []
        for name, modality in config.modalities.items():
            backbone = (backbones or {}).get(name)
            if backbone is None:
                backbone = build_backbone(
                    modality.backbone_config,
                    modality.pooling,
                    dtype=torch.get_default_dtype(),  # the backbone's own would differ from the other modalities'
                    attn_implementation=attention,
                )
            self.encoders[name] = ModalityEncoder(backbone, modality)
            main_inputs.append(f"{name}_{backbone.main_input_name}")
        self.fused_size = sum(modality.feature_size for modality in config.modalities.values())
        self.main_input_name = main_inputs[0]
        self.post_init()

    def forward(self, **inputs: Tensor) -> MultimodalModelOutput:
        by_modality = split_inputs(inputs, self.encoders)
        features = {name: self.encoders[name](**by_modality[name]).feature for name in self.encoders}
        return MultimodalModelOutput(fused=torch.cat(list(features.values()), dim=-1), features=features)


class MultimodalForClassification(MultimodalPreTrainedModel):
    """A `MultimodalModel` with a linear classifier on the fused representation.

    With `config.unimodal_loss_weight` > 0 there is also one linear head per modality on its own feature, whose loss
    is added with that weight. The number of classes is that of `config.id2label`.
    """

    def __init__(self, config: MultimodalConfig, backbones: Mapping[str, PreTrainedModel] | None = None):
        super().__init__(config)
        self.multimodal = MultimodalModel(config, backbones)
        num_classes = len(config.id2label or {})
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(self.multimodal.fused_size, num_classes)
        self.unimodal_heads = nn.ModuleDict()
        if config.unimodal_loss_weight > 0:
            for name, modality in config.modalities.items():
                self.unimodal_heads[name] = nn.Linear(modality.feature_size, num_classes)
        self.main_input_name = self.multimodal.main_input_name
        self.post_init()

    @property
    def encoders(self) -> nn.ModuleDict:
        """Ordered mapping modality -> encoder."""
        return self.multimodal.encoders

    def forward(
        self, labels: Tensor | None = None, num_items_in_batch: Tensor | int | None = None, **inputs: Tensor
    ) -> MultimodalClassifierOutput:
        """Classify a batch.

        Args:
            labels: (batch,) int64 class indices; -100 leaves a sample out of the loss.
            num_items_in_batch: number of labels in the whole accumulated batch, which `Trainer` passes; the loss is
                then the sum over this batch divided by it, so that gradient accumulation does not change it.
            **inputs: `{modality}_{argument of the backbone}`.

        Raises:
            TypeError: for an input that belongs to no modality, or a modality without inputs.
        """
        output = self.multimodal(**inputs)
        logits = self.classifier(self.dropout(output.fused))
        unimodal_logits = {name: head(output.features[name]) for name, head in self.unimodal_heads.items()}
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, num_items_in_batch)
            for head_logits in unimodal_logits.values():
                head_loss = classification_loss(head_logits, labels, num_items_in_batch)
                loss = loss + self.config.unimodal_loss_weight * head_loss
        return MultimodalClassifierOutput(
            loss=loss, logits=logits, features=output.features, unimodal_logits=unimodal_logits or None
        )


def classification_loss(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    """Cross-entropy in float32: the mean over the batch, or the sum over `num_items_in_batch` where that is given."""
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = nn.functional.cross_entropy(logits.float(), labels, reduction=reduction)
    return loss if num_items_in_batch is None else loss / num_items_in_batch


def split_inputs(inputs: Mapping[str, Tensor], encoders: nn.ModuleDict) -> dict[str, dict[str, Tensor]]:
    """Sort `{modality}_{argument}` by modality. `view` and `view_front` may stand side by side: the argument decides.

    Raises:
        TypeError: for an input of no modality, or a modality without any input.
    """
    by_modality: dict[str, dict[str, Tensor]] = {name: {} for name in encoders}
    known: dict[str, Any] = {name: encoder.input_names for name, encoder in encoders.items()}
    for key, value in inputs.items():
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
    if missing := [name for name, arguments in by_modality.items() if not arguments]:
        raise TypeError(
            f"no input for the modality {', '.join(map(repr, missing))}: got {', '.join(inputs) or 'nothing'}"
        )
    return by_modality
