"""Configuration of a fusion model: one entry per modality, and how they are fused."""

from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

KINDS = ("audio", "vision", "video", "text", "features")
POOLINGS = ("auto", "mean", "cls", "pooler")
FUSIONS = ("concat",)


@dataclass
class ModalityConfig:
    """What the model has to know of one modality.

    Args:
        backbone_config: configuration of the backbone; a dictionary with a `model_type` is turned into one.
        kind: one of `KINDS`. It follows from the backbone, but an image backbone may take `"audio"` (as the paper
            does, on a one-channel log spectrogram).
        feature_size: width d of the uni-modal feature, found by running the backbone once.
        token_size: width of the tokens that the feature is pooled from, found in the same way.
        pooling: how the backbone's output becomes one vector, one of `POOLINGS`; `"auto"` follows the family.
        num_frames: images per sample. With more than one, an image backbone sees each of them and the features are
            averaged over the frames (as in the paper).
        pretrained: whether the backbone started from trained weights; None where that is not known.
        base_model: Hub id that these weights came from, for the model card; None for random weights, local folders
            and model objects that do not say.
        base_model_revision: commit hash of that repository.
    """

    backbone_config: PreTrainedConfig
    kind: str
    feature_size: int
    token_size: int
    pooling: str = "auto"
    num_frames: int = 1
    pretrained: bool | None = None
    base_model: str | None = None
    base_model_revision: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.backbone_config, dict):
            settings = dict(self.backbone_config)
            model_type = settings.pop("model_type", None)
            if model_type not in CONFIG_MAPPING:
                raise ValueError(
                    f"the backbone configuration has model_type {model_type!r}, which this release of transformers "
                    "does not know; install the release that the model was saved with, or import its code first"
                )
            self.backbone_config = AutoConfig.for_model(model_type, **settings)
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of modality {self.kind!r}: use one of {', '.join(KINDS)}")
        if self.pooling not in POOLINGS:
            raise ValueError(f"unknown pooling {self.pooling!r}: use one of {', '.join(POOLINGS)}")
        if self.num_frames < 1:
            raise ValueError(f"num_frames is {self.num_frames}, but a sample has at least one image")

    def to_dict(self) -> dict[str, Any]:
        settings = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "backbone_config"}
        backbone = self.backbone_config.to_dict()
        backbone.pop("transformers_version", None)
        return {**settings, "backbone_config": backbone}


class MultimodalConfig(PreTrainedConfig):
    """Configuration of `MultimodalModel` and `MultimodalForClassification`.

    Args:
        modalities: modality name -> `ModalityConfig` (or its dictionary), in the order of fusion. A name is a Python
            identifier of the user's choice (`audio`, `rgb`, `caption`); it is the prefix of that modality's inputs.
        fusion: how the uni-modal features are joined; `"concat"`.
        classifier_dropout: dropout probability before the classifier, 0.0 by default as in the paper.
        unimodal_loss_weight: weight of the loss of one linear head per modality, on that modality's own feature,
            which is added to the fused loss. 0.0 (the paper) builds no heads.
        modality_order: names of all modalities in the order of fusion; the order of `modalities` by default. (A
            configuration's file is sorted by key.)

    Raises:
        ValueError: for a name that cannot be a prefix, an order that leaves out or adds a modality, an unknown fusion
            or a negative weight.
    """

    model_type = "hf_relearn_multimodal"
    # `Trainer` looks here: mappings among the outputs would fill the memory in evaluation, and turn predictions into
    # tuples.
    keys_to_ignore_at_inference = ["features", "unimodal_logits"]

    modalities: dict[str, Any] = field(default_factory=dict)
    modality_order: list[str] | None = None
    fusion: str = "concat"
    classifier_dropout: float = 0.0
    unimodal_loss_weight: float = 0.0

    def __post_init__(self, **kwargs):
        given = self.modalities or {}
        for name in given:
            check_modality_name(name)
        order = self.modality_order or list(given)
        if sorted(order) != sorted(given):
            raise ValueError(f"modality_order is {order}, but the modalities are {list(given)}")
        self.modality_order = order
        self.modalities = {
            name: given[name] if isinstance(given[name], ModalityConfig) else ModalityConfig(**given[name])
            for name in order
        }
        if self.fusion not in FUSIONS:
            raise ValueError(f"unknown fusion {self.fusion!r}: use one of {', '.join(FUSIONS)}")
        if self.unimodal_loss_weight < 0:
            raise ValueError(f"unimodal_loss_weight is {self.unimodal_loss_weight}, but it cannot be negative")
        super().__post_init__(**kwargs)
        if self.id2label is not None:
            self.label2id = {label: index for index, label in self.id2label.items()}

    def to_dict(self) -> dict[str, Any]:
        modalities, self.modalities = self.modalities, {}
        try:  # the parent class copies attributes deeply, and knows nothing of configurations inside a dictionary
            output = super().to_dict()
        finally:
            self.modalities = modalities
        output["modalities"] = {name: modality.to_dict() for name, modality in modalities.items()}
        output["modality_order"] = list(modalities)
        self.dict_dtype_to_str(output["modalities"])
        return output


def check_modality_name(name: str) -> None:
    """Refuse a modality name that cannot be the prefix of keyword arguments and the name of a submodule."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"the modality name {name!r} is no Python identifier, so it cannot be an input's prefix")
    if hasattr(nn.ModuleDict(), name) or name == "labels":
        raise ValueError(f"the modality name {name!r} is reserved: choose another one")
