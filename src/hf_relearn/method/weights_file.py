"""The safetensors file of initial weights: its name, its layout, its checksum."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hf_relearn.files import whole_path
from hf_relearn.method.tensors import whole_tensor

FILE_PREFIX = "_initial_weights-"
FILE_SUFFIX = ".safetensors"
_FORMAT = "hf_relearn"  # the one entry of the metadata, whose order safetensors does not keep
_NAME_DIGITS = 12

Shapes = dict[str, tuple[int, ...]]


class InitialWeightsError(ValueError):
    """A file of initial weights is damaged, was deleted, or belongs to another model."""


def weights_file_name(checksum: str) -> str:
    """Return the name of the file that holds weights with this checksum."""
    return f"{FILE_PREFIX}{checksum[:_NAME_DIGITS]}{FILE_SUFFIX}"


def read_layout(path: Path, checksum: str | None = None) -> tuple[str, Shapes, dict[str, Any]]:
    """Read what a file holds, and compare its content with a checksum if one is given.

    Returns:
        The checksum that the file notes, name -> shape of what is stored, and the layout: `aliases` and `prefixes`.

    Raises:
        FileNotFoundError: there is no such file.
        InitialWeightsError: it is damaged or truncated, holds other weights, or is not a file of initial weights.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the file of initial weights {path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:  # checks the header against the size of the file
            layout = json.loads((file.metadata() or {})[_FORMAT])
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            noted = layout["checksum"]
            if checksum is not None:
                found = checksum_of({name: file.get_tensor(name) for name in shapes}, layout)
    except (SafetensorError, OSError) as error:
        raise InitialWeightsError(
            f"the file of initial weights {path} is damaged ({error}); restore it from a copy, or delete it and "
            "start the run afresh"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise InitialWeightsError(
            f"{path} is a safetensors file, but not one of initial weights: its metadata lack them ({error})"
        ) from error
    if checksum is not None and found != checksum:
        raise InitialWeightsError(
            f"the file of initial weights {path} is damaged, or holds the weights of another run: its checksum is "
            f"{found}, and the run noted {checksum}. Restore it from a copy, or start the run afresh"
        )
    return noted, with_aliases(shapes, layout), layout


def with_aliases(shapes: Shapes, layout: Mapping[str, Any]) -> Shapes:
    """Return name -> shape with the further names of tensors that have several."""
    return shapes | {alias: shapes[name] for alias, name in layout["aliases"].items()}


def packed(tensors: Mapping[str, torch.Tensor], keep: bool = True) -> dict[str, torch.Tensor]:
    """Return whole tensors on the CPU, each with memory of its own, as safetensors wants them.

    Shards are gathered. Nothing is copied but what lies on an accelerator, or shares its memory with another tensor.
    """
    output: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        whole = whole_tensor(tensor.detach())
        if keep:
            whole = whole.cpu().contiguous()
            storage = whole.untyped_storage()
            if storage.nbytes() != whole.nbytes or storage.data_ptr() in storages:
                whole = whole.clone()
            storages.add(whole.untyped_storage().data_ptr())
            output[name] = whole
    return output


def write_weights_file(tensors: dict[str, torch.Tensor], folder: Path, layout: dict[str, Any]) -> tuple[Path, str]:
    """Write tensors of `packed`.

    They are not pressed on the disk: the checksum tells of what a loss of power may do to them.

    Returns:
        Path and checksum.
    """
    checksum = checksum_of(tensors, layout)
    path = (folder / weights_file_name(checksum)).absolute()
    with whole_path(path, durable=False) as temporary:
        try:
            save_file(tensors, temporary, {_FORMAT: json.dumps({**layout, "checksum": checksum})})
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error
    return path, checksum


def checksum_of(tensors: Mapping[str, torch.Tensor], layout: Mapping[str, Any]) -> str:
    """Hash of names, types, shapes and values, in the order of the names, and of further names and prefixes."""
    digest = xxhash.xxh3_128(json.dumps([layout["aliases"], layout["prefixes"]], sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
