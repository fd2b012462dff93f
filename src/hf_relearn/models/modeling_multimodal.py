"""The fusion model: encoders of transformers, one per modality, fused, with a linear classifier."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .configuration_fusion import CUSTOM_FUSION
from .configuration_multimodal import MultimodalConfig
from .modeling_backbones import build_backbone, load_backbones
from .modeling_checkpointing import disable_activation_checkpointing, enable_activation_checkpointing
from .modeling_encoders import ModalityEncoder, ModalityOutput
from .modeling_fusion import LowRankFusion
from .modeling_fusion_custom import CustomFusion, FusionModule, build_fusion
from .modeling_fusion_tokens import BottleneckFusion
from .modeling_inputs import split_inputs
from .modeling_loading import SafeWeightsMixin
from .modeling_losses import classification_loss
from .modeling_missing import Placeholder, ablations, encode_present, presence
from .modeling_outputs import MultimodalClassifierOutput, MultimodalModelOutput

# Modules with parameters that no general rule of transformers knows.
SELF_INITIALISED = (BottleneckFusion, LowRankFusion, Placeholder)


class MultimodalPreTrainedModel(SafeWeightsMixin, PreTrainedModel):
    """What both models share: the configuration, and properties that live in the backbones."""

    config: MultimodalConfig
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

    @property
    def backbones(self) -> dict[str, PreTrainedModel]:
        """Modality -> backbone of its encoder."""
        encoders: Any = self.encoders
        return {name: encoder.backbone for name, encoder in encoders.items()}

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs=None, **kwargs: Any) -> None:
        """Switch activation checkpointing on in every backbone that allows it, and warn of those that do not.

        Raises:
            ValueError: if none allows it.
        """
        enable_activation_checkpointing(self.backbones, gradient_checkpointing_kwargs, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        disable_activation_checkpointing(self.backbones)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SELF_INITIALISED):
            module.initialise()

    def initialize_weights(self) -> None:
        super().initialize_weights()
        fusion = getattr(getattr(self, "multimodal", self), "fusion", None)
        if isinstance(fusion, CustomFusion):
            fusion.restore()

    def floating_point_ops(self, input_dict: Mapping[str, Any], exclude_embeddings: bool = True) -> int:
        """0: an estimate from the size of one modality's input would mislead."""
        return 0

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any):
        """As that of transformers; what is never trained by construction (position tables) stays so."""
        loaded = super().from_pretrained(*args, **kwargs)
        model: Any = loaded[0] if isinstance(loaded, tuple) else loaded  # output_loading_info=True
        for encoder in model.encoders.values():
            encoder.freeze_fixed()
        return loaded

    @classmethod
    def from_backbones(
        cls,
        backbones: Mapping[str, Any],
        *,
        fusion: str | FusionModule = "concat",
        modality_options: Mapping[str, Mapping[str, Any]] | None = None,
        backbone_kwargs: Mapping[str, Any] | None = None,
        **config_kwargs: Any,
    ):
        """Build a fusion model from backbones.

        Args:
            backbones: modality name -> Hub id, local folder (one with a configuration but no weights gives random
                weights), configuration (random weights) or model of transformers (used as it is, not copied; what
                nothing would use, such as a pooling layer, is taken off, as it is left out of the others). Of an
                encoder-decoder the encoder is taken, of a model with several towers the one of the modality's `kind`,
                see `encoder_part`.
            fusion: how modalities are joined, a name in `MultimodalConfig.fusion`; or a module of the user's own, or
                what builds one from the configuration: see `CustomFusion`. `fusion_kwargs` are its options.
            modality_options: modality name -> options of `ModalityConfig`: `kind`, `pooling`, `num_frames`; and
                `feature_size`, `token_size`, which are found in any case, and checked where they are given.
            backbone_kwargs: passed to `AutoModel.from_pretrained` (`revision`, `token`, ...); `dtype` (float32 by
                default) and `attn_implementation` reach backbones with random weights, too. Weights are read from
                safetensors files; `use_safetensors=False` reads others.
            **config_kwargs: fields of `MultimodalConfig`, such as `id2label` or `unimodal_loss_weight`.

        Returns:
            A model in evaluation mode, as `from_pretrained` gives it.

        Raises:
            ValueError: for no backbones, a name that cannot be a prefix, an unknown option or one of an unknown
                modality, a fusion or options of it that do not fit, backbones that share parameters, model objects of
                different dtypes, or a backbone that encodes nothing known, has a head, has no part that encodes one
                kind of input, or draws random numbers in evaluation mode.
            TypeError: for a backbone that is nothing of what is named above.
            OSError: if a Hub id or folder holds no model.
        """
        loaded, modalities = load_backbones(backbones, modality_options or {}, backbone_kwargs or {})
        module = None if isinstance(fusion, str) else fusion
        name = fusion if isinstance(fusion, str) else CUSTOM_FUSION
        config = MultimodalConfig(modalities=modalities, fusion=name, **config_kwargs)
        model = cls(config, backbones=loaded, fusion_module=module)
        dtype = next(iter(loaded.values())).dtype
        encoders = model.encoders
        for child in (*model.children(), *getattr(model, "multimodal", model).children()):
            if child is not encoders and not isinstance(child, MultimodalModel):  # backbones stay as they were given
                child.to(dtype)
        return model.eval()

    def loading_kwargs(self) -> dict[str, Any]:
        """What `from_pretrained` needs beside a folder that this model was saved in."""
        fusion: Any = getattr(self, "multimodal", self).fusion
        return {"fusion_module": deepcopy(fusion.module)} if self.config.fusion == CUSTOM_FUSION else {}


class MultimodalModel(MultimodalPreTrainedModel):
    """Encoders, one per modality, and their fusion.

    Inputs are flat keyword arguments, `{modality}_{argument of the backbone}`: `audio_input_values`,
    `vision_pixel_values`; and `{modality}_present`, (batch,) bool, where some rows lack a modality.

    Args:
        config: the configuration.
        backbones: modality -> backbone to use in place of a new one with random weights.
        fusion_module: the user's own fusion, where the configuration says `"custom"`.
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
            backbone = (backbones or {}).get(name)
            if backbone is None:
                backbone = build_backbone(
                    modality.backbone_config,
                    modality.kind,
                    modality.pooling,
                    dtype=torch.get_default_dtype(),  # the backbone's own would differ from the other modalities'
                    attn_implementation=attention,
                )
            self.encoders[name] = ModalityEncoder(backbone, modality)
            self.placeholders[name] = Placeholder(modality, learnt=config.missing_placeholder == "learnt")
            main_inputs.append(f"{name}_{backbone.main_input_name}")
        self.fusion = build_fusion(config, fusion_module)
        self.fused_size: int = self.fusion.fused_size
        self.main_input_name = main_inputs[0]
        self.post_init()

    def forward(self, output_ablations: bool = False, **inputs: Tensor) -> MultimodalModelOutput:
        """Encode and fuse a batch.

        Args:
            output_ablations: whether to fuse the same encodings again with each modality alone and each left out.
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
        filled, fused = self.fuse(encoded, present, masks)
        by_rest: dict[frozenset[str], Tensor] = {}  # of two modalities, one alone is the other left out
        rests = ablations(list(present)) if output_ablations else {}
        for rest in rests.values():
            if rest not in by_rest:
                kept = {name: mask if name in rest else torch.zeros_like(mask) for name, mask in present.items()}
                by_rest[rest] = self.fuse(encoded, kept, kept)[1]
        return MultimodalModelOutput(
            fused=fused,
            features={name: output["feature"] for name, output in filled.items()},
            present=present,
            ablations={name: by_rest[rest] for name, rest in rests.items()} or None,
        )

    def fuse(
        self, encoded: dict[str, ModalityOutput], present: dict[str, Tensor], masks: Mapping[str, Tensor | None]
    ) -> tuple[dict[str, ModalityOutput], Tensor]:
        """Put placeholders where a mask says so, and fuse: what was fused, and (batch, fused width)."""
        filled = {name: self.placeholders[name](output, masks[name]) for name, output in encoded.items()}
        return filled, self.fusion(filled, present)


class MultimodalForClassification(MultimodalPreTrainedModel):
    """A `MultimodalModel` with a linear classifier on the fused representation.

    With `config.unimodal_loss_weight` > 0 there is also one linear head per modality on its own feature, whose loss
    is added with that weight. The number of classes is that of `config.id2label`.
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
        **inputs: Tensor,
    ) -> MultimodalClassifierOutput:
        """Classify a batch.

        Args:
            labels: (batch,) int64 class indices, or (batch, number of classes) zeros and ones for several classes per
                sample; -100 is left out of the loss.
            num_items_in_batch: number of labels in the whole accumulated batch, which `Trainer` passes; the loss is
                then the sum over this batch divided by it, so that gradient accumulation does not change it.
            output_ablations: whether to classify again with each modality alone and each left out. Encoders run once.
            **inputs: `{modality}_{argument of the backbone}`, and `{modality}_present`, (batch,) bool, where rows lack
                a modality. The inputs of one that all rows lack may be left out.

        Raises:
            TypeError: for an input that belongs to no modality, or a modality without inputs that is not said to be
                missing.
            ValueError: for labels or a `{modality}_present` of another shape.
        """
        output = self.multimodal(output_ablations=output_ablations, **inputs)
        logits = self.classifier(self.dropout(output.fused))
        unimodal_logits = {name: head(output.features[name]) for name, head in self.unimodal_heads.items()}
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config, num_items_in_batch)
            for name, head_logits in unimodal_logits.items():
                present = output.present[name]
                head_loss = classification_loss(head_logits, labels, self.config, num_items_in_batch, present)
                loss = loss + self.config.unimodal_loss_weight * head_loss
        ablated = {name: self.classifier(self.dropout(fused)) for name, fused in (output.ablations or {}).items()}
        return MultimodalClassifierOutput(
            loss=loss,
            logits=logits,
            features=output.features,
            unimodal_logits=unimodal_logits or None,
            present=output.present,
            ablation_logits=ablated or None,
        )


def _all_rows(feature: Tensor) -> Tensor:
    return torch.ones(len(feature), dtype=torch.bool, device=feature.device)
