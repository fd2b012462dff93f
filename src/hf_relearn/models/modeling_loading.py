"""Loading weights from safetensors files of the model's own folder or repository only."""

import json
import os
from pathlib import Path
from typing import Any

from transformers.utils import SAFE_WEIGHTS_INDEX_NAME


class SafeWeightsMixin:
    """`from_pretrained` that reads safetensors files only: a pickle could run any code."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load a model as `PreTrainedModel.from_pretrained` does, from safetensors files.

        Args:
            pretrained_model_name_or_path: Hub id or folder.
            *model_args, **kwargs: of `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: for `use_safetensors=False`, or an index of weights that names a file outside the folder.
            OSError: if there are no weights as safetensors.
        """
        if kwargs.pop("use_safetensors", None) is False:
            raise ValueError(
                f"{cls.__name__} reads weights from safetensors files only, since a pickle (.bin, .pt) could run any "
                "code: leave out use_safetensors=False, and save the weights again with save_pretrained"
            )
        if pretrained_model_name_or_path is not None:
            _check_index(Path(pretrained_model_name_or_path) / kwargs.get("subfolder", ""))
        try:
            return super().from_pretrained(  # type: ignore[misc]  # of PreTrainedModel, beside which this class stands
                pretrained_model_name_or_path, *model_args, use_safetensors=True, **kwargs
            )
        except OSError as error:
            if "safetensors" not in str(error):
                raise
            raise OSError(
                f"{pretrained_model_name_or_path} holds no weights as safetensors (model.safetensors), and "
                f"{cls.__name__} reads no others, since a pickle (.bin, .pt) could run any code: ask for a copy that "
                f"was saved with save_pretrained. transformers said: {error}"
            ) from error


def _check_index(folder: Path) -> None:
    """Refuse a local index of weights whose files lie elsewhere; the Hub's client checks those that it caches."""
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if not index.is_file():
        return
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weights ({error!r}): download or save the model again") from error
    for name in names:
        if not isinstance(name, str) or os.path.basename(name) != name or "\\" in name:
            raise ValueError(
                f"{index} names the file {name!r}, which lies outside its folder: do not trust this model's files"
            )
