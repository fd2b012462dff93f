"""Read weights from safetensors files only, whatever an index, an adapter or a configuration names."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers.utils import (
    ADAPTER_CONFIG_NAME,
    ADAPTER_SAFE_WEIGHTS_NAME,
    CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    cached_file,
    logging,
)

logger = logging.get_logger(__name__)

_PLACES = ("revision", "token", "cache_dir", "local_files_only", "force_download", "proxies", "subfolder")
_ADVICE = "a pickle (.bin, .pt) could run any code: ask for a copy that was saved with save_pretrained"


class SafeWeightsMixin:
    """`from_pretrained` that reads safetensors files only, runs no code of a repository unless told to, and tells of
    weights that the files lack."""

    missing_weights: tuple[str, ...] = ()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load a model as `PreTrainedModel.from_pretrained` does, from safetensors files.

        Weights that the files lack are new, random ones: a warning lists them, and `missing_weights` holds their names
        until the model is trained.

        Args:
            pretrained_model_name_or_path: Hub id or folder.
            *model_args, **kwargs: of `PreTrainedModel.from_pretrained`; `trust_remote_code` is False by default.

        Raises:
            ValueError: for `use_safetensors=False`, or an index, adapter or configuration that names other files.
            OSError: if there are no weights as safetensors.
        """
        if kwargs.pop("use_safetensors", None) is False:
            raise ValueError(
                f"{cls.__name__} reads weights from safetensors files only, since a pickle (.bin, .pt) could run any "
                "code: leave out use_safetensors=False, and save the weights again with save_pretrained"
            )
        if kwargs.get("trust_remote_code") is None:  # transformers would ask on the terminal
            kwargs["trust_remote_code"] = False
        check_weights(pretrained_model_name_or_path, **kwargs)
        wants_info = kwargs.pop("output_loading_info", False)
        try:
            model, info = super().from_pretrained(  # type: ignore[misc]  # of PreTrainedModel, beside this class
                pretrained_model_name_or_path, *model_args, use_safetensors=True, output_loading_info=True, **kwargs
            )
        except OSError as error:
            if "safetensors" not in str(error):
                raise
            raise OSError(
                f"{pretrained_model_name_or_path} holds no weights as safetensors (model.safetensors), and "
                f"{cls.__name__} reads no others, since a pickle (.bin, .pt) could run any code: ask for a copy that "
                f"was saved with save_pretrained. transformers said: {error}"
            ) from error
        changed = (item[0] if isinstance(item, (list, tuple)) else item for item in info["mismatched_keys"])
        model.missing_weights = tuple(sorted({*info["missing_keys"], *changed}))
        if model.missing_weights:
            logger.warning(
                "%s lacks %d weights of %s, which are new, random ones: %s",
                pretrained_model_name_or_path,
                len(model.missing_weights),
                cls.__name__,
                ", ".join(model.missing_weights),
            )
        return (model, info) if wants_info else model

    def train(self, mode: bool = True) -> Any:
        """Switch training mode on or off. A model that is trained has no missing weights any more."""
        if mode:
            self.missing_weights = ()
        return super().train(mode)  # type: ignore[misc]


def refuse_missing_weights(model: Any) -> None:
    """Refuse a model some of whose weights were in no file, and so are random.

    Raises:
        ValueError: that lists the first of them.
    """
    if missing := getattr(model, "missing_weights", ()):
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ValueError(
            f"the model's files lack {len(missing)} of its weights ({', '.join(missing[:5])}{more}), which are random "
            "now: load a folder or repository that holds all of them, or train the model first"
        )


def check_weights(source: Any, **kwargs: Any) -> None:
    """Refuse weights in other files than safetensors files of the model's own folder or repository.

    Args:
        source: Hub id or folder; None is not looked at.
        **kwargs: of `from_pretrained`, those that say where files come from, and `variant`.

    Raises:
        ValueError: that names the file that names another one.
    """
    if source is None:
        return
    source = str(source)
    places = {name: kwargs[name] for name in _PLACES if kwargs.get(name) is not None}
    if (adapter := _find(source, ADAPTER_CONFIG_NAME, places)) is not None:
        _check_adapter(source, adapter, places)
        if not os.path.isfile(os.path.join(source, CONFIG_NAME)):
            return
    index: str | None = _with_variant(SAFE_WEIGHTS_INDEX_NAME, kwargs.get("variant"))
    if (config := _find(source, CONFIG_NAME, places)) is not None:
        named = _read(config, "configuration").get("transformers_weights")
        if named is not None:
            _check_names(config, [named], (".safetensors", ".safetensors.index.json"))
            index = str(named) if str(named).endswith(".json") else None
    if index is not None and (path := _find(source, index, places)) is not None:
        shards = _read(path, "index of weights").get("weight_map")
        if not isinstance(shards, dict):
            raise ValueError(f"{path} is not an index of weights (no weight_map): download or save the model again")
        _check_names(path, shards.values(), (".safetensors",))


def _check_adapter(source: str, path: str, places: dict[str, Any]) -> None:
    if _find(source, ADAPTER_SAFE_WEIGHTS_NAME, places) is None:
        raise ValueError(
            f"{source} holds an adapter without {ADAPTER_SAFE_WEIGHTS_NAME}, and others are not read: {_ADVICE}"
        )
    base = _read(path, "adapter's configuration").get("base_model_name_or_path")
    if os.path.isfile(os.path.join(source, CONFIG_NAME)) or base is None:
        return  # the model beside the adapter is its base
    is_path = os.path.isdir(str(base)) or os.path.isabs(str(base)) or ".." in Path(str(base)).parts
    if is_path and not os.path.isdir(source):
        raise ValueError(
            f"{source}: {ADAPTER_CONFIG_NAME} names the folder {base!r} of this machine as its base: refused"
        )
    check_weights(base, **{name: value for name, value in places.items() if name not in ("revision", "subfolder")})


def _find(source: str, name: str, places: dict[str, Any]) -> str | None:
    """Return the file of a folder or repository, or None."""
    if os.path.isdir(source):
        path = os.path.join(source, places.get("subfolder", ""), name)
        return path if os.path.isfile(path) else None
    try:
        return cached_file(
            source,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **places,
        )
    except OSError:  # what is not there is told of when the model is loaded
        return None


def _read(path: str, what: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no {what} ({error!r}): download or save the model again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no {what}: it holds no object; download or save the model again")
    return content


def _check_names(path: str, names: Iterable[Any], suffixes: tuple[str, ...]) -> None:
    for name in sorted(map(str, set(names))):
        if os.path.basename(name) != name or "\\" in name:
            raise ValueError(
                f"{path} names the file {name!r}, which lies outside its folder: do not trust this model's files"
            )
        if not name.endswith(suffixes):
            raise ValueError(f"{path} names the file {name!r}, and weights are read from safetensors only: {_ADVICE}")


def _with_variant(name: str, variant: str | None) -> str:
    stem, _, rest = name.partition(".")
    return name if variant is None else f"{stem}.{rest.replace('safetensors', f'{variant}.safetensors', 1)}"
