"""The model of a command: where it comes from, and loading it with its processor."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_relearn.models import MultimodalForClassification, MultimodalProcessor


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that loads a model."""
    parser.add_argument("model", metavar="MODEL", help="Folder of a saved model, or its name on the Hub.")
    parser.add_argument(
        "--revision", metavar="NAME", default="main", help="Branch, tag or commit of a model on the Hub (main)."
    )
    parser.add_argument("--cpu", action="store_true", help="Leave accelerators alone.")


def load_model(
    name_or_path: str, revision: str = "main"
) -> tuple["MultimodalForClassification", "MultimodalProcessor"]:
    """Load a fusion model and its processor.

    Raises:
        ValueError: for a model of another kind.
        OSError: if there is none.
    """
    check_model(name_or_path, revision)
    from hf_relearn.models import MultimodalForClassification, MultimodalProcessor

    model = MultimodalForClassification.from_pretrained(name_or_path, revision=revision)
    return model, MultimodalProcessor.from_pretrained(name_or_path, revision=revision)


def check_model(name_or_path: str, revision: str = "main") -> None:
    """Look whether there is a fusion model, before it is loaded.

    Raises:
        ValueError: for a model of another kind.
        OSError: if there is none.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id
    from transformers import PreTrainedConfig

    from hf_relearn.models import MultimodalConfig

    if not Path(name_or_path).is_dir():
        try:
            validate_repo_id(name_or_path)
        except HFValidationError:
            message = f"{name_or_path}: no such folder, and no name that a model on the Hub could have"
            raise FileNotFoundError(message) from None
    config, _ = PreTrainedConfig.get_config_dict(name_or_path, revision=revision)
    if config.get("model_type") != MultimodalConfig.model_type:
        code = " and brings code of its own, which is not run" if "auto_map" in config else ""
        raise ValueError(
            f"{name_or_path} holds a model of the type {config.get('model_type')!r}, which is no fusion model{code}"
        )
