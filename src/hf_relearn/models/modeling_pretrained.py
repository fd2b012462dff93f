"""Build fusion models from backbones, initialise, save and load them."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from .configuration_multimodal import CUSTOM_FUSION, UNIMODAL_LOSS_WEIGHTS, MultimodalConfig
from .modeling_backbones import load_backbones
from .modeling_fusion import FusionModule, LowRankFusion
from .modeling_fusion_tokens import BottleneckFusion
from .modeling_missing import Placeholder
from .modeling_modules import ModuleBackbone, OwnWeights
from .modeling_seeds import draw_seed, drawing_for
from .modeling_weights import SafeWeightsMixin

logger = logging.get_logger(__name__)


def enable_activation_checkpointing(backbones: Mapping[str, PreTrainedModel], *args: Any, **kwargs: Any) -> None:
    """Switch activation checkpointing on in every backbone that allows it, and name those that do not.

    Args:
        backbones: modality -> backbone.
        *args, **kwargs: of `activation_checkpointing_enable` of transformers.

    Raises:
        ValueError: if no backbone allows it; names them.
    """
    refused = []
    for name, backbone in backbones.items():
        try:
            _switch(backbone, "enable", *args, **kwargs)
        except ValueError:  # some say so beforehand, and some only when they are asked
            refused.append(f"{name} ({type(backbone).__name__})")
    if len(refused) == len(backbones):
        raise ValueError(
            f"no encoder supports activation checkpointing: {', '.join(refused)}; leave gradient_checkpointing off"
        )
    if refused:
        logger.warning("activation checkpointing saves no memory in %s, which does not support it", ", ".join(refused))


def disable_activation_checkpointing(backbones: Mapping[str, PreTrainedModel]) -> None:
    """Switch it off again everywhere."""
    for backbone in backbones.values():
        if backbone.supports_gradient_checkpointing:
            _switch(backbone, "disable")


def _switch(backbone: PreTrainedModel, to: str, *args: Any, **kwargs: Any) -> None:
    # The name since transformers 5.20 or so; the older one warns there.
    method = getattr(backbone, f"activation_checkpointing_{to}", None) or getattr(
        backbone, f"gradient_checkpointing_{to}"
    )
    method(*args, **kwargs)


# Modules with parameters that no general rule of transformers knows.
SELF_INITIALISED = (BottleneckFusion, LowRankFusion, Placeholder)


class MultimodalPreTrainedModel(SafeWeightsMixin, PreTrainedModel):
    """Base of both models: the configuration, and properties that live in the backbones."""

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
        for module in self.modules():
            if isinstance(module, OwnWeights):
                module.restore()

    def floating_point_ops(self, input_dict: Mapping[str, Any], exclude_embeddings: bool = True) -> int:
        """0: an estimate from the size of one modality's input would mislead."""
        return 0

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any):
        """Load as transformers does; what is never trained by construction (position tables) stays so."""
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
        preset: str | None = None,
        **config_kwargs: Any,
    ):
        """Build a fusion model from backbones.

        Args:
            backbones: modality name -> Hub id, local folder (one with a configuration but no weights gives random
                weights), configuration (random weights) or model of transformers (used as it is, not copied; what
                nothing would use, such as a pooling layer, is taken off, as it is left out of the others), or a
                `ModuleBackbone` of a torch module, which is handed over again at loading
                (`from_pretrained(folder, backbones={name: module})`). Of an
                encoder-decoder the encoder is taken, of a model with several towers the one of the modality's `kind`,
                see `encoder_part`.
            fusion: how modalities are joined, a name in `MultimodalConfig.fusion`; or a module of the user's own, or
                what builds one from the configuration: see `CustomFusion`. `fusion_kwargs` are its options.
            modality_options: modality name -> options of `ModalityConfig`: `kind`, `pooling`, `num_frames`; and
                `feature_size`, `token_size`, which are found in any case, and checked if they are given.
            backbone_kwargs: passed to `AutoModel.from_pretrained` (`revision`, `token`, ...); `dtype` (float32 by
                default) and `attn_implementation` reach backbones with random weights, too. Weights are read from
                safetensors files; `use_safetensors=False` reads others.
            preset: `"balanced"`, `"paper"` or `"heads"`, as `RelearnTrainingArguments.from_preset` takes it; sets
                `unimodal_loss_weight` unless that is given.
            **config_kwargs: fields of `MultimodalConfig`, such as `id2label` or `unimodal_loss_weight`.

        Returns:
            A model in evaluation mode, as `from_pretrained` gives it. From one state of torch's generator, models with
            and without uni-modal heads start with the same weights, and so do encoders that are fused with others.

        Raises:
            ValueError: for no backbones, a name that cannot be a prefix, an unknown option or one of an unknown
                modality, a fusion or options of it that do not fit, backbones that share parameters, model objects of
                different dtypes, or a backbone that encodes nothing known, has a head, has no part that encodes one
                kind of input, or draws random numbers in evaluation mode.
            TypeError: for a backbone that is not one of those above.
            OSError: if a Hub id or folder holds no model.
        """
        if preset is not None:
            if preset not in UNIMODAL_LOSS_WEIGHTS:
                raise ValueError(f"there is no preset {preset!r}: choose one of {', '.join(UNIMODAL_LOSS_WEIGHTS)}")
            config_kwargs.setdefault("unimodal_loss_weight", UNIMODAL_LOSS_WEIGHTS[preset])
        seed = draw_seed()  # of each part by its name: an encoder starts the same, whatever it is fused with
        loaded, modalities = load_backbones(backbones, modality_options or {}, backbone_kwargs or {}, seed)
        module = None if isinstance(fusion, str) else fusion
        name = fusion if isinstance(fusion, str) else CUSTOM_FUSION
        config = MultimodalConfig(modalities=modalities, fusion=name, **config_kwargs)
        with drawing_for("fusion and classifier", seed):
            model = cls(config, backbones=loaded, fusion_module=module)
        dtype = next(iter(loaded.values())).dtype
        inner = getattr(model, "multimodal", model)
        for child in (*model.children(), *inner.children()):
            if child is not inner and child is not model.encoders:  # backbones stay as they were given
                child.to(dtype)
        return model.eval()

    def loading_kwargs(self) -> dict[str, Any]:
        """Return the arguments that `from_pretrained` needs beside the folder that this model was saved in."""
        fusion: Any = getattr(self, "multimodal", self).fusion
        own: dict[str, Any] = {
            name: deepcopy(backbone.module)
            for name, backbone in self.backbones.items()
            if isinstance(backbone, ModuleBackbone)
        }
        kwargs: dict[str, Any] = {"backbones": own} if own else {}
        return {**kwargs, "fusion_module": deepcopy(fusion.module)} if self.config.fusion == CUSTOM_FUSION else kwargs
