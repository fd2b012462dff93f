"""The safetensors file of initial weights: its name, its layout, its checksum."""

import json
import math
import mmap
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
_LARGE = 2**18  # bytes of a tensor whose pages are mapped at once, since a page fault for each takes longer
_POPULATE_READ = 22  # MADV_POPULATE_READ of Linux, which the module mmap does not name
_PENDING = "0" * 32  # in place of the checksum, while the file is written


class InitialWeightsError(ValueError):
    """A file of initial weights is damaged, was deleted, or belongs to another model."""


class Place(NamedTuple):
    """Type, shape and strides of a tensor, where it begins in its file, in elements of its type, and its bytes."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    begin: int
    nbytes: int


@dataclass(frozen=True)
class Layout:
    """Hold the layout that a file of initial weights notes.

    Attributes:
        checksum: of what was written.
        places: name -> where the tensor lies in the file.
        aliases: further names of tensors -> the names that they are stored under.
        prefixes: names of the modules whose tensors were written; None for all.
    """

    checksum: str
    places: dict[str, Place]
    aliases: dict[str, str]
    prefixes: list[str] | None


def weights_file_name(checksum: str) -> str:
    """Return the name of the file that holds weights with this checksum."""
    return f"{FILE_PREFIX}{checksum[:_NAME_DIGITS]}{FILE_SUFFIX}"


def read_layout(path: Path, checksum: str | None = None) -> Layout:
    """Read what a file holds, and compare its content with a checksum if one is given.

    Raises:
        FileNotFoundError: there is no such file.
        InitialWeightsError: it is damaged or truncated, holds other weights, or is not a file of initial weights.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the file of initial weights {path} does not exist")
    try:
        layout = _layout(path)
        if checksum is not None:
            mapped = MappedTensors(path, layout.places)
            found = checksum_of({name: mapped[name] for name in layout.places}, layout.aliases, layout.prefixes)
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
    return layout


def _layout(path: Path) -> Layout:
    with safe_open(path, framework="pt") as file:  # checks the header against the size of the file
        noted = json.loads((file.metadata() or {})[_FORMAT])
        with open(path, "rb") as plain:
            size = int.from_bytes(plain.read(8), "little")
            header = json.loads(plain.read(size))
        examples = {header[name]["dtype"]: name for name in file.keys()}
        dtypes = {code: file.get_tensor(name).dtype for code, name in examples.items()}
        places = {name: _place(header[name], dtypes[header[name]["dtype"]], 8 + size) for name in file.keys()}
    return Layout(noted["checksum"], places, noted["aliases"], noted["prefixes"])


def _place(entry: dict[str, Any], dtype: torch.dtype, offset: int) -> Place:
    shape = tuple(entry["shape"])
    stride = tuple(math.prod(shape[dim + 1 :]) for dim in range(len(shape)))
    # The values begin at a multiple of 8 bytes, and those of wider types come first.
    begin, end = entry["data_offsets"]
    return Place(dtype, shape, stride, (offset + begin) // dtype.itemsize, end - begin)


class MappedTensors:
    """The tensors of a file, as views of a mapping of it into memory: a page is read when it is looked at.

    What is written to the views does not reach the file. safetensors' own `get_tensor` takes far longer on small
    tensors, since each is given a storage of its own.
    """

    def __init__(self, path: Path, places: dict[str, Place]):
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        content, size = torch.frombuffer(self._map, dtype=torch.uint8), len(self._map)
        dtypes = {place.dtype for place in places.values()}
        self._values = {dtype: content[: size - size % dtype.itemsize].view(dtype) for dtype in dtypes}
        self._places = places

    def __getitem__(self, name: str) -> torch.Tensor:
        dtype, shape, stride, begin, nbytes = self._places[name]
        tensor = self._values[dtype].as_strided(shape, stride, begin)
        if nbytes >= _LARGE and sys.platform == "linux":
            first = begin * dtype.itemsize // mmap.PAGESIZE * mmap.PAGESIZE
            with suppress(OSError):  # before Linux 5.14
                self._map.madvise(_POPULATE_READ, first, begin * dtype.itemsize + nbytes - first)
        return tensor


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


def write_weights_file(
    tensors: dict[str, torch.Tensor], folder: Path, aliases: dict[str, str], prefixes: list[str] | None
) -> Path:
    """Write tensors of `packed`, and return the path.

    They are hashed while they are written, since each takes a while; the header gets the checksum at the end. They
    are not pressed on the disk: the checksum tells of what a loss of power may do to them.
    """
    path, checksum = (folder / weights_file_name(_PENDING)).absolute(), _PENDING
    note = json.dumps({"aliases": aliases, "prefixes": prefixes, "checksum": checksum})
    with whole_path(path, durable=False, named=lambda: weights_file_name(checksum)) as temporary:
        with ThreadPoolExecutor(1) as pool:
            hashing = pool.submit(checksum_of, tensors, aliases, prefixes)
            try:
                save_file(tensors, temporary, {_FORMAT: note})
            except SafetensorError as error:
                raise OSError(f"{path} cannot be written: {error}") from error
            checksum = hashing.result()
        with open(temporary, "r+b") as file:
            header = file.read(8 + int.from_bytes(file.read(8), "little"))
            file.seek(8 + header.index(_PENDING.encode()))
            file.write(checksum.encode())
    return path.with_name(weights_file_name(checksum))


def checksum_of(tensors: Mapping[str, torch.Tensor], aliases: dict[str, str], prefixes: list[str] | None) -> str:
    """Hash of names, types, shapes and values, in the order of the names, and of further names and prefixes."""
    digest = xxhash.xxh3_128(json.dumps([aliases, prefixes], sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
