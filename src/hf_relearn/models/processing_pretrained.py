"""Load the preprocessor's settings or the tokenizer of a pretrained backbone."""

import json
from collections.abc import Sequence
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import transformers
from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoTokenizer,
    FeatureExtractionMixin,
    ImageProcessingMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file, is_torchvision_available

from .configuration_limits import check_settings, check_size
from .modeling_pooling import MASK_NAMES
from .modeling_towers import backbone_input_names

_PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
# What an image processor does to one image: all that is taken over from the settings of a video processor.
_PER_FRAME = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)


def load_tokenizer(source: Any, **kwargs: Any) -> PreTrainedTokenizerBase:
    """Load a tokenizer, and see that it has a vocabulary.

    Args:
        source: a Hub id or folder, or a tokenizer, which is given back.
        **kwargs: of `AutoTokenizer.from_pretrained`.

    Raises:
        ValueError: if there is none; the message says how to give one.
    """
    if isinstance(source, PreTrainedTokenizerBase):
        return source
    remedy = 'give one as option {"tokenizer": a tokenizer, Hub id or folder} of this modality'
    if source is None or isinstance(source, (PreTrainedConfig, PreTrainedModel)):
        raise ValueError(f"texts need a tokenizer, which a backbone given as {type(source).__name__} lacks: {remedy}")
    try:
        # None would ask on the terminal whether code of the repository may run.
        trust = kwargs.pop("trust_remote_code", None) or False
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust, **kwargs)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{source} has no tokenizer ({error}): {remedy}") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # which transformers makes up where there are no files
        raise ValueError(f"{source} has no tokenizer with a vocabulary: {remedy}")
    return tokenizer


def pretrained_audio_settings(source: Any) -> dict[str, Any] | None:
    """Return the settings of the feature extractor beside a pretrained backbone; None if there is none."""
    return _pretrained_settings(AutoFeatureExtractor, source)


def pretrained_image_settings(source: Any) -> dict[str, Any] | None:
    """Return the settings of the image processor beside a pretrained backbone; None if there is none."""
    return _pretrained_settings(AutoImageProcessor, source)


def pretrained_video_settings(source: Any) -> dict[str, Any] | None:
    """Return settings of an image processor that treats a frame as the pretrained backbone's own processor does."""
    own_file = "video_preprocessor_config.json"
    if not _may_hold(source, (own_file, *_PREPROCESSOR_FILES)):
        return None
    path = cached_file(source, own_file, _raise_exceptions_for_missing_entries=False)
    if path is not None:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
    else:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(source)
    chosen = {name: settings[name] for name in _PER_FRAME if settings.get(name) is not None}
    kind = settings.get("image_processor_type") or settings.get("video_processor_type") or ""
    if kind.startswith("Vivit") and settings.get("offset", True):  # which subtracts 1 before it normalises
        chosen["image_mean"] = [mean + 1 for mean in settings["image_mean"]]
    return {"image_processor_type": "ViTImageProcessorPil", **chosen}


def _pretrained_settings(auto_class: Any, source: Any) -> dict[str, Any] | None:
    if not _may_hold(source, _PREPROCESSOR_FILES):
        return None
    try:
        return json.loads(
            auto_class.from_pretrained(source, trust_remote_code=False).to_json_string()
        )  # lists, where to_dict has tuples
    except ImportError:  # some releases offer AutoImageProcessor with torchvision only; the file says enough
        settings, _ = ImageProcessingMixin.get_image_processor_dict(source)
        name = settings.get("image_processor_type") or settings.get("feature_extractor_type", "")
        name = name.removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
        return {**settings, "image_processor_type": name}


def _may_hold(source: Any, names: Sequence[str]) -> bool:
    """Check whether a preprocessor can be looked for: beside a Hub id, or a folder that has one of the files."""
    if isinstance(source, (PreTrainedConfig, PreTrainedModel, type(None))):
        return False
    return not Path(source).is_dir() or any((Path(source) / name).is_file() for name in names)


def from_settings(settings: dict[str, Any], type_key: str) -> Any:
    """Build a preprocessor of transformers from its settings; only such classes of transformers itself are built.

    Args:
        settings: arguments of the class, and its name under `type_key`.
        type_key: `"image_processor_type"` or `"feature_extractor_type"`.

    Raises:
        ValueError: if the name is that of no preprocessor.
    """
    name = settings.get(type_key)
    _refuse_strange_settings(settings, f"the {name} settings")
    names = [name] if is_torchvision_available() else [f"{name}Pil", name]
    for candidate in names:
        cls = getattr(transformers, str(candidate), None)
        if isinstance(cls, type) and issubclass(cls, (ImageProcessingMixin, FeatureExtractionMixin)):
            return cls.from_dict(dict(settings))
    raise ValueError(f"{type_key} is {name!r}, which is no preprocessor of this release of transformers")


def _refuse_strange_settings(settings: dict[str, Any], where: str) -> None:
    for key, value in settings.items():
        if value and key.endswith(("_file", "_path")) and key != "name_or_path":  # OneFormer's opens such files
            raise ValueError(f"{where} name a file, {key} = {value!r}, which is not opened: leave it out")
    check_settings(settings, where)
    bound = "image pixels" if "merge_size" in settings else "image side"  # Qwen's kind gives sizes in pixels
    for key in ("size", "crop_size", "pad_size"):
        size = settings.get(key) or {}
        for side in size.values() if isinstance(size, dict) else size if isinstance(size, (list, tuple)) else [size]:
            check_size(bound, side or 0, f"{where}: {key}")


def family_of(config: PreTrainedConfig) -> str:
    """Name a configuration's folder in transformers: `"clap"` also for the tower's `ClapAudioConfig`."""
    return type(config).__module__.split(".")[-2]


def taken_inputs(backbone: PreTrainedModel, made: Sequence[str], maker: str) -> list[str]:
    """Return those of a preprocessor's outputs that the encoder takes: inputs of the backbone's forward, and masks.

    Args:
        backbone: the backbone; its weights are not looked at.
        made: names of the preprocessor's outputs.
        maker: what to call the preprocessor in a message.

    Raises:
        ValueError: if the backbone needs an input that is not made.
    """
    parameters = signature(backbone.forward).parameters.values()
    needed = {item.name for item in parameters if item.default is Parameter.empty} | {backbone.main_input_name}
    names = backbone_input_names(backbone)
    if missing := sorted(needed & set(names) - set(made)):
        raise ValueError(
            f"{type(backbone).__name__} takes {', '.join(missing)}, but {maker} makes {', '.join(made)}: choose "
            "another backbone, or give the settings of a preprocessor that makes it"
        )
    return [name for name in made if name in (*names, *MASK_NAMES)]
