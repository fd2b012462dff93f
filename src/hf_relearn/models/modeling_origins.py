"""Where a backbone's weights came from, which a model card has to say."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME


def origin(source: Any, model: PreTrainedModel, backbone_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Where a backbone's weights came from, as fields of `ModalityConfig`. Nothing of a local path is kept.

    Args:
        source: what `from_backbones` was given: a Hub id, a folder, a configuration or a model object.
        model: that was made of it.
        backbone_kwargs: with which it was loaded.
    """
    if isinstance(source, PreTrainedConfig):
        return {"pretrained": False}
    if isinstance(source, PreTrainedModel):
        # Its name may be a folder's, or that of a configuration alone: only weights in the cache tell.
        for file in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME):
            if commit := _cached_commit(model.name_or_path or "", file, {}):
                return {"pretrained": True, "base_model": model.name_or_path, "base_model_revision": commit}
        return {}
    if Path(source).is_dir():
        return {"pretrained": not holds_configuration_only(Path(source))}
    commit = _cached_commit(str(source), CONFIG_NAME, backbone_kwargs)
    return {"pretrained": True, "base_model": str(source), "base_model_revision": commit}


def _cached_commit(name: str, file: str, backbone_kwargs: Mapping[str, Any]) -> str | None:
    """The commit of a repository whose file was just read from the cache; None if the cache does not have it."""
    places = {key: backbone_kwargs[key] for key in ("cache_dir", "revision") if key in backbone_kwargs}
    try:
        path = try_to_load_from_cache(name, "/".join(filter(None, (backbone_kwargs.get("subfolder"), file))), **places)
    except HFValidationError:  # a path
        return None
    found = re.search(r"snapshots[/\\]([0-9a-f]{40})[/\\]", path) if isinstance(path, str) else None
    return found[1] if found else None


def holds_configuration_only(folder: Path) -> bool:
    names = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, "pytorch_model.bin", "pytorch_model.bin.index.json")
    return folder.is_dir() and not any((folder / name).is_file() for name in names)
