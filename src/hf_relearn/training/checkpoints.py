"""Reading weights back from a checkpoint, under the names that the model has in memory."""

import os
from typing import TypeGuard

from transformers import PreTrainedModel


def can_reload(model: object) -> TypeGuard[PreTrainedModel]:
    """Whether `reload_weights` knows how to read this model's checkpoints (adapters of PEFT are no such model)."""
    return isinstance(model, PreTrainedModel) and not getattr(model, "_hf_peft_config_loaded", False)


def reload_weights(model: PreTrainedModel, folder: str | os.PathLike) -> None:
    """Copy the weights of a saved model into this one.

    `save_pretrained` writes the Hub's key names, which differ from those in memory for some backbones (ViT, AST);
    loading the raw file then silently leaves most tensors as they are. `from_pretrained` knows both.

    Raises:
        RuntimeError: if the folder's model has other tensors.
    """
    saved = type(model).from_pretrained(folder, dtype=model.dtype)
    model.load_state_dict(saved.state_dict())
