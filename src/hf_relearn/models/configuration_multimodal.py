"""Configuration of a fusion model: one entry per modality, and how they are fused."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from .configuration_backbones import FeaturesConfig, check_heads
from .configuration_limits import check_settings

__all__ = ["FeaturesConfig", "ModalityConfig", "MultimodalConfig"]

# Name of the fusion -> its options with their defaults.
FUSION_OPTIONS: dict[str, dict[str, int | float]] = {
    "concat": {},
    "sum": {"hidden_size": 256},
    "gated": {"hidden_size": 256},
    "film": {"hidden_size": 256},
    "low_rank": {"hidden_size": 256, "rank": 4},
    "cross_attention": {"hidden_size": 256, "num_layers": 2, "num_attention_heads": 4, "dropout": 0.1},
    "bottleneck": {
        "hidden_size": 256,
        "num_layers": 2,
        "num_attention_heads": 4,
        "num_bottlenecks": 4,
        "dropout": 0.1,
    },
}
CUSTOM_FUSION = "custom"


def checked_fusion_kwargs(fusion: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the options of a fusion with their defaults.

    Args:
        fusion: a name in `FUSION_OPTIONS`, or `"custom"` for a module of the user's own, whose options are the user's.
        kwargs: the options that were given.

    Raises:
        ValueError: for an unknown fusion, an option that it does not take, or a value out of its range.
    """
    if fusion == CUSTOM_FUSION:
        return dict(kwargs)
    if fusion not in FUSION_OPTIONS:
        raise ValueError(f"unknown fusion {fusion!r}: use one of {', '.join(FUSION_OPTIONS)}, or a module of your own")
    defaults = FUSION_OPTIONS[fusion]
    if unknown := sorted(set(kwargs) - set(defaults)):
        takes = ", ".join(defaults) or "none"
        raise ValueError(f"the fusion {fusion!r} does not take {', '.join(unknown)}; the options it takes: {takes}")
    options = {**defaults, **kwargs}
    for name, value in options.items():
        if name == "dropout":
            if not 0 <= value < 1:
                raise ValueError(f"fusion_kwargs: dropout is {value}, but it is a probability below 1")
        elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"fusion_kwargs: {name} is {value!r}, but it is a whole number of at least 1")
    check_heads(options.get("hidden_size", 1), options.get("num_attention_heads", 1))
    return options


KINDS = ("audio", "vision", "video", "text", "features", "table")
# What a model calls its inputs tells what it looks at.
KIND_OF_INPUT = {
    "pixel_values": "vision",
    "pixel_values_videos": "video",
    "input_values": "audio",
    "input_features": "audio",
    "input_ids": "text",
    "feature_values": "features",
    "number_values": "table",
    "category_ids": "table",
}
POOLINGS = ("auto", "mean", "cls", "last", "pooler")
PLACEHOLDERS = ("zero", "learnt")
REGRESSION = "regression"
PROBLEM_TYPES = (None, "single_label_classification", "multi_label_classification", REGRESSION)
REGRESSION_LOSSES = ("mse", "l1")


@dataclass
class ModalityConfig:
    """Configure one modality of a model.

    Args:
        backbone_config: configuration of the backbone; a dictionary with a `model_type` is turned into one.
        kind: one of `KINDS`. It follows from the backbone, but an image backbone may take `"audio"` (as the paper
            does, on a one-channel log spectrogram).
        feature_size: width d of the uni-modal feature, found by running the backbone once.
        token_size: width of the tokens that the feature is pooled from, found in the same way.
        pooling: how the backbone's output becomes one vector, one of `POOLINGS` (see `pool`); `"auto"` follows the
            family, and `from_backbones` puts in its place what it found.
        num_frames: images per sample. With more than one, an image backbone sees each of them and the features are
            averaged over the frames (as in the paper). For a video backbone, the length of its clips.
        probe: which of the inputs that `probes` makes for this backbone's configuration it takes.
        pretrained: whether the backbone started from trained weights; None if that is not known.
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
    probe: int = 0
    pretrained: bool | None = None
    base_model: str | None = None
    base_model_revision: str | None = None

    def __post_init__(self) -> None:
        sizes = ("feature_size", "token_size", "num_frames")
        check_settings({name: getattr(self, name) for name in sizes}, "the modality")
        if isinstance(self.backbone_config, dict):
            settings = dict(self.backbone_config)
            check_settings(settings, "the backbone configuration")
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


# Weight of the uni-modal heads by the name of a training preset.
UNIMODAL_LOSS_WEIGHTS = {"balanced": 1.0, "paper": 0.0, "heads": 1.0}


class MultimodalConfig(PreTrainedConfig):
    """Configure `MultimodalModel` and `MultimodalForClassification`.

    Args:
        modalities: modality name -> `ModalityConfig` (or its dictionary), in the order of fusion. A name is a Python
            identifier of the user's choice (`audio`, `rgb`, `caption`); it is the prefix of that modality's inputs.
        fusion: how modalities are joined: late, from their features (`"concat"`, `"sum"`, `"gated"`, `"film"`,
            `"low_rank"`), or from their tokens (`"cross_attention"`, `"bottleneck"`); `"custom"` is a module of the
            user's own, which is handed over at building and loading.
        fusion_kwargs: options of the fusion, see `FUSION_OPTIONS` for those that each takes and their defaults, with
            which they are completed.
        missing_placeholder: what stands for a modality that a sample lacks: `"zero"`, or `"learnt"`, a parameter per
            modality outside its encoder.
        classifier_dropout: dropout probability before the classifier, 0.0 by default as in the paper.
        unimodal_loss_weight: weight of the loss of one linear head per modality, on that modality's own feature,
            which is added to the fused loss. 0.0 (the paper) builds no heads.
        class_weights: one weight per class, in the order of `id2label`, for its samples' losses; None for equal ones.
        label_smoothing: share of the target, 0.0 to 1.0, that is spread evenly over the classes.
        problem_type: None (one class per sample), `"multi_label_classification"`, or `"regression"` (one number per
            sample), which `num_labels=1` means too.
        regression_loss: `"mse"`, the mean squared error, or `"l1"`, the mean absolute error.
        target_mean: mean of a regression's targets, in their unit. None is 0; `MultimodalRelearnTrainer` puts that of
            the training part in its place.
        target_deviation: the targets' standard deviation; None is 1.
        signed_targets: whether a regression's targets lie on both sides of 0, so that their sign means something.
        modality_order: names of all modalities in the order of fusion; the order of `modalities` by default. (A
            configuration's file is sorted by key.)

    Raises:
        ValueError: for a name that cannot be a prefix, an order that leaves out or adds a modality, an unknown fusion,
            an option that the fusion does not take or a value out of its range.
    """

    model_type = "hf_relearn_multimodal"
    # `Trainer` looks here: mappings among the outputs would fill the memory in evaluation, and turn predictions into
    # tuples.
    keys_to_ignore_at_inference = ["losses", "features", "unimodal_logits", "present", "ablation_logits"]

    modalities: dict[str, Any] = field(default_factory=dict)
    modality_order: list[str] | None = None
    fusion: str = "concat"
    fusion_kwargs: dict[str, Any] = field(default_factory=dict)
    missing_placeholder: str = "zero"
    classifier_dropout: float = 0.0
    unimodal_loss_weight: float = 0.0
    class_weights: list[float] | None = None
    label_smoothing: float = 0.0
    regression_loss: str = "mse"
    target_mean: float | None = None
    target_deviation: float | None = None
    signed_targets: bool = False

    def __post_init__(self, **kwargs):
        check_settings({**kwargs, **(self.fusion_kwargs or {})}, "the configuration")
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
        self.fusion_kwargs = checked_fusion_kwargs(self.fusion, self.fusion_kwargs or {})
        if self.missing_placeholder not in PLACEHOLDERS:
            raise ValueError(
                f"unknown missing_placeholder {self.missing_placeholder!r}: use one of {', '.join(PLACEHOLDERS)}"
            )
        if self.unimodal_loss_weight < 0:
            raise ValueError(f"unimodal_loss_weight is {self.unimodal_loss_weight}, but it cannot be negative")
        if not type(self).__module__.startswith("transformers_modules"):
            # They are for those who load this code from a repository. Here the pipeline is known already, but
            # transformers would want to be trusted with the repository's.
            kwargs.pop("custom_pipelines", None)
        if self.problem_type == REGRESSION and self.id2label is None:
            kwargs.setdefault("num_labels", 1)
        super().__post_init__(**kwargs)
        if self.problem_type is None and self.num_labels == 1:
            self.problem_type = REGRESSION
        if self.id2label is not None:
            self.label2id = {label: index for index, label in self.id2label.items()}
        self.check_loss()

    def check_loss(self) -> None:
        """Refuse settings of the loss that are out of range or do not fit the number of classes, or a regression.

        Raises:
            ValueError: that names the setting, what was found and what is wanted.
        """
        if self.problem_type not in PROBLEM_TYPES:
            raise ValueError(
                f"problem_type is {self.problem_type!r}: use None for one class per sample, "
                "'multi_label_classification' or 'regression'"
            )
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}, but it is a share, from 0 to 1")
        if self.problem_type == REGRESSION:
            self._check_regression()
        if self.class_weights is None:
            return
        self.class_weights = [float(weight) for weight in self.class_weights]
        if len(self.class_weights) != self.num_labels:
            raise ValueError(
                f"class_weights holds {len(self.class_weights)} weights, but there are {self.num_labels} classes "
                f"({', '.join(map(str, (self.id2label or {}).values()))})"
            )
        if not all(0 <= weight < float("inf") for weight in self.class_weights) or not any(self.class_weights):
            raise ValueError(
                f"class_weights is {self.class_weights}, but weights are finite, not negative, and not all zero"
            )

    def _check_regression(self) -> None:
        if self.num_labels != 1:
            raise ValueError(
                f"problem_type is 'regression', which predicts one number, but num_labels is {self.num_labels}: give "
                "num_labels=1, or leave it and id2label out"
            )
        if self.regression_loss not in REGRESSION_LOSSES:
            raise ValueError(f"regression_loss is {self.regression_loss!r}: use one of {', '.join(REGRESSION_LOSSES)}")
        if self.target_deviation is not None and not 0 < self.target_deviation < float("inf"):
            raise ValueError(f"target_deviation is {self.target_deviation}, but it is a finite number above 0")
        for name in ("class_weights", "label_smoothing"):
            if getattr(self, name):
                raise ValueError(f"{name} is for classes, but problem_type is 'regression': leave it out")

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
    if hasattr(nn.ModuleDict(), name) or name in ("labels", "fused"):
        raise ValueError(f"the modality name {name!r} is reserved: choose another one")
