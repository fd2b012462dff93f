"""The store of initial weights: one safetensors file per run, read back one tensor at a time."""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from hf_relearn.files import whole_file
from hf_relearn.method.tensors import (
    floating_buffers,
    is_sharded,
    reshard_,
    said_by_first_process,
    stored_tensors,
    whole_tensor,
)

_FILE_PREFIX = "_initial_weights-"
_FILE_SUFFIX = ".safetensors"


class InitialWeightsError(ValueError):
    """A file of initial weights is damaged, or belongs to another model."""


class InitialWeights(Mapping[str, torch.Tensor]):
    """Initial values theta0 of a model's parameters and floating-point buffers, by their full names.

    A mapping that holds no tensor: each access reads that tensor from the file (to the CPU), and its memory is free
    again when the tensor is let go of. No file stays open, so the object can be copied, pickled and used after a fork.
    A tensor that the model reaches under several names is stored once, and found under each of them. Make one with
    `save` or `load`.

    Attributes:
        path: the safetensors file.
        fingerprint: 12 hexadecimal digits of a hash of the names, types, shapes and values.
    """

    def __init__(self, path: Path, fingerprint: str, stored: "dict[str, StoredTensor]", prefixes: list[str] | None):
        self.path = path
        self.fingerprint = fingerprint
        self._stored = stored
        self._prefixes = prefixes
        self._file_size = path.stat().st_size

    @classmethod
    def save(
        cls,
        source: nn.Module | Mapping[str, torch.Tensor],
        folder: str | os.PathLike[str],
        *,
        prefixes: Iterable[str] | None = None,
        include_buffers: bool = True,
    ) -> "InitialWeights":
        """Writes the present weights as initial ones to `folder/_initial_weights-<fingerprint>.safetensors`.

        The file appears complete or not at all, and one that is there already is not written again. At most one
        tensor more than the model is in memory.

        Of a model that is sharded (FSDP2) the file holds whole tensors. Every process has to call this, as each tensor
        is gathered in its turn; the first process writes, even where the file is there already.

        Args:
            source: a model on any device, or a mapping name -> tensor, of which every tensor is written.
            folder: made if absent; a run's output directory.
            prefixes: of a model, write only what lies under these module names (`"encoders.audio"`), as a rule the
                encoders; None writes everything.
            include_buffers: also write a model's persistent floating-point buffers.

        Returns:
            The store that reads this file.

        Raises:
            ValueError: nothing lies under one of the prefixes, prefixes are given for a mapping, or the model is
                divided among processes in a way that is not supported (FSDP version 1, DeepSpeed ZeRO-3).
            TypeError: a tensor has no data (meta device) or a type that safetensors does not know.
        """
        wanted = None if prefixes is None else sorted(prefixes)
        if isinstance(source, nn.Module):
            reshard_(source)
            tensors, aliases = stored_tensors(source, wanted, include_buffers)
        elif wanted is not None:
            raise ValueError("prefixes select modules of a model; filter a mapping before saving it")
        else:
            tensors, aliases = dict(source), {}
        layouts = {name: TensorLayout.of(name, tensor) for name, tensor in tensors.items()}
        fingerprint = content_fingerprint(tensors, layouts, json.dumps([aliases, wanted], sort_keys=True))
        metadata = {"aliases": json.dumps(aliases), "prefixes": json.dumps(wanted), "fingerprint": fingerprint}
        header = header_bytes(layouts, metadata)
        path = Path(folder) / f"{_FILE_PREFIX}{fingerprint}{_FILE_SUFFIX}"
        if any(is_sharded(tensor) for tensor in tensors.values()):
            if torch.distributed.get_rank() == 0:
                write_file(path, header, tensors, layouts)
            else:
                with open(os.devnull, "wb") as nowhere:  # takes part in gathering
                    write_tensors(nowhere, header, tensors, layouts)
            path = said_by_first_process(path)
        elif not is_complete(path, header, sum(layout.num_bytes for layout in layouts.values())):
            write_file(path, header, tensors, layouts)
        return cls.load(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "InitialWeights":
        """Opens a file that `save` wrote; reads its header, and no tensor.

        Args:
            path: the file.

        Returns:
            The store that reads it.

        Raises:
            FileNotFoundError: there is no such file.
            InitialWeightsError: it is damaged or truncated, or not a file of initial weights.
        """
        path = Path(path).absolute()
        if not path.is_file():
            raise FileNotFoundError(f"the file of initial weights {path} does not exist")
        try:
            with safe_open(path, framework="pt") as file:  # checks the header against the size of the file
                metadata = file.metadata() or {}
            aliases, prefixes = json.loads(metadata["aliases"]), json.loads(metadata["prefixes"])
            fingerprint = metadata["fingerprint"]
        except SafetensorError as error:
            raise InitialWeightsError(
                f"the file of initial weights {path} is damaged ({error}); restore it from a copy, or delete it and "
                "start the run afresh"
            ) from error
        except KeyError as error:
            raise InitialWeightsError(
                f"{path} is a safetensors file, but not one of initial weights: its metadata lack {error}"
            ) from error
        stored = read_layout(path)
        stored |= {alias: stored[name] for alias, name in aliases.items()}
        return cls(path, fingerprint, stored, prefixes)

    @staticmethod
    def find(folder: str | os.PathLike[str]) -> list[Path]:
        """Files of initial weights in a folder, by name; none if the folder does not exist."""
        return sorted(Path(folder).glob(f"{_FILE_PREFIX}*{_FILE_SUFFIX}"))

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.read_part(name, ())

    def read_part(self, name: str, index: tuple[slice, ...]) -> torch.Tensor:
        """Reads a part of a tensor, as a process needs that holds only this part of a sharded parameter.

        Args:
            name: as for `[name]`.
            index: one slice per dimension, without steps; () reads the whole tensor. No rows (first dimension) but
                those asked for are read.

        Returns:
            The part, on the CPU.

        Raises:
            KeyError: nothing is stored under that name.
            InitialWeightsError: the file was changed since it was opened.
        """
        stored = self._stored[name]
        # safe_open would parse the whole header again for every tensor, which takes longer than reading most of them;
        # kept open, it would count every tensor ever read as this process's memory.
        size = self.path.stat().st_size
        if size != self._file_size:
            raise InitialWeightsError(
                f"the file of initial weights {self.path} had {self._file_size} bytes when it was opened and has "
                f"{size} now; restore it from a copy"
            )
        return read_part(self.path, size, stored, index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __repr__(self) -> str:
        return f"InitialWeights({str(self.path)!r}, {len(self)} tensors)"

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return self._stored[name].shape

    def subset(self, prefix: str) -> Mapping[str, torch.Tensor]:
        """A view of what lies under one module name, under the names that this module itself uses.

        Args:
            prefix: full name of the module, `"encoders.audio"`; "" gives everything.

        Returns:
            A mapping for `soft_reinit_(module, ...)`, as lazy as this one, with `shape_of`.

        Raises:
            KeyError: nothing is stored under that name.
        """
        return _Subset(self, f"{prefix}." if prefix else "")

    def check_matches(self, module: nn.Module) -> None:
        """Makes sure that these are initial weights of this model: the same names and shapes.

        Args:
            module: the model whose weights `save` wrote (only what lies under its `prefixes` is compared).

        Raises:
            InitialWeightsError: names the first parameter that differs.
        """
        tensors, aliases = stored_tensors(module, self._prefixes, include_buffers=True)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        shapes |= {alias: shapes[name] for alias, name in aliases.items()}
        optional = set(floating_buffers(module))
        other_model = f"{self.path} holds the initial weights of another model:"
        for name, shape in shapes.items():
            if name not in self and name not in optional:
                raise InitialWeightsError(f"{other_model} it lacks this model's parameter {name!r}")
            if name in self and self.shape_of(name) != shape:
                raise InitialWeightsError(
                    f"{other_model} {name!r} has the shape {self.shape_of(name)} there and {shape} in this model"
                )
        for name in self:
            if name not in shapes:
                raise InitialWeightsError(f"{other_model} this model lacks its parameter {name!r}")


class _Subset(Mapping[str, torch.Tensor]):
    """View of a store under a prefix, which its names leave out."""

    def __init__(self, weights: InitialWeights, prefix: str):
        self._weights = weights
        self._prefix = prefix
        self._names = [name.removeprefix(prefix) for name in weights if name.startswith(prefix)]
        if not self._names:
            raise KeyError(f"{weights.path} holds no initial weights under {prefix.removesuffix('.')!r}")

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._weights[self._prefix + name]

    def read_part(self, name: str, index: tuple[slice, ...]) -> torch.Tensor:
        return self._weights.read_part(self._prefix + name, index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._prefix + name in self._weights

    def shape_of(self, name: str) -> tuple[int, ...]:
        return self._weights.shape_of(self._prefix + name)


_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
# Mapping spares the copy of a large tensor, but unmapping costs more than reading a small one.
_MAP_FROM_BYTES = 2**18
_DTYPES = {name: dtype for dtype, name in _DTYPE_NAMES.items()}


@dataclass(frozen=True)
class TensorLayout:
    """Type and shape of a tensor as the header of a file gives them."""

    dtype_name: str
    item_size: int
    shape: tuple[int, ...]
    num_bytes: int

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor) -> "TensorLayout":
        """Layout of a tensor; TypeError where it cannot be stored."""
        if tensor.is_meta:
            raise TypeError(f"{name!r} is on the meta device and holds no values to store; load the model first")
        if tensor.dtype not in _DTYPE_NAMES:
            raise TypeError(f"{name!r} has the type {tensor.dtype}, which cannot be stored")
        num_bytes = tensor.numel() * tensor.element_size()
        return cls(_DTYPE_NAMES[tensor.dtype], tensor.element_size(), tuple(tensor.shape), num_bytes)


@dataclass(frozen=True)
class StoredTensor:
    """Type, shape and place of a tensor in a file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


def content_fingerprint(tensors: Mapping[str, torch.Tensor], layouts: Mapping[str, TensorLayout], extra: str) -> str:
    """First 12 hexadecimal digits of a BLAKE2b hash over sorted names, types, shapes and bytes, and further text."""
    digest = hashlib.blake2b(extra.encode())
    for name in sorted(tensors):
        digest.update(json.dumps([name, layouts[name].dtype_name, layouts[name].shape]).encode())
        digest.update(_raw_bytes(tensors[name]))
    return digest.hexdigest()[:12]


def header_bytes(layouts: Mapping[str, TensorLayout], metadata: Mapping[str, str]) -> bytes:
    """Length and header of a file, padded so that the data begin at a multiple of 8 bytes."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name in _file_order(layouts):
        layout = layouts[name]
        end = offset + layout.num_bytes
        entries[name] = {"dtype": layout.dtype_name, "shape": list(layout.shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def write_tensors(
    file: BinaryIO, header: bytes, tensors: Mapping[str, torch.Tensor], layouts: Mapping[str, TensorLayout]
) -> None:
    """Writes a whole file: the header that `header_bytes` made, then the tensors one by one."""
    file.write(header)
    for name in _file_order(layouts):
        file.write(_raw_bytes(tensors[name]))


def write_file(
    path: Path, header: bytes, tensors: Mapping[str, torch.Tensor], layouts: Mapping[str, TensorLayout]
) -> None:
    """Writes a whole file as `write_tensors` does, or nothing: it appears under its name when it is complete."""
    with whole_file(path) as file:
        write_tensors(file, header, tensors, layouts)


def is_complete(path: Path, header: bytes, num_data_bytes: int) -> bool:
    """Whether a file is there with this header, and as long as its tensors need."""
    if not path.is_file() or path.stat().st_size != len(header) + num_data_bytes:
        return False
    with open(path, "rb") as file:
        return file.read(len(header)) == header


def read_layout(path: Path) -> dict[str, StoredTensor]:
    """Where each tensor lies in a valid file."""
    with open(path, "rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(header_size))
    stored = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            dtype = _DTYPES[entry["dtype"]]
            stored[name] = StoredTensor(dtype, tuple(entry["shape"]), 8 + header_size + begin, end - begin)
    return stored


def read_tensor(path: Path, file_size: int, stored: StoredTensor) -> torch.Tensor:
    """Reads one tensor of a file: a small one into memory of its own, a large one by mapping (copy-on-write)."""
    begin, end = stored.offset, stored.offset + stored.num_bytes
    if stored.num_bytes == 0:
        return torch.empty(stored.shape, dtype=stored.dtype)
    if stored.num_bytes < _MAP_FROM_BYTES:
        with open(path, "rb") as file:
            file.seek(begin)
            raw = torch.frombuffer(bytearray(file.read(stored.num_bytes)), dtype=torch.uint8)
    else:
        raw = torch.from_file(str(path), shared=False, size=file_size, dtype=torch.uint8)[begin:end]
    return raw.view(stored.dtype).view(stored.shape)


def read_part(path: Path, file_size: int, stored: StoredTensor, index: tuple[slice, ...]) -> torch.Tensor:
    """Reads a part of one tensor, one slice per dimension, and of a file no more than the rows that the first asks."""
    if not index:
        return read_tensor(path, file_size, stored)
    begin, end, _ = index[0].indices(stored.shape[0])
    row_bytes = stored.num_bytes // stored.shape[0] if stored.shape[0] else 0
    rows = StoredTensor(
        stored.dtype, (end - begin, *stored.shape[1:]), stored.offset + begin * row_bytes, (end - begin) * row_bytes
    )
    return read_tensor(path, file_size, rows)[(slice(None), *index[1:])]


def _file_order(layouts: Mapping[str, TensorLayout]) -> list[str]:
    """Widest types first, so that every tensor begins at a multiple of its own item size."""
    return sorted(layouts, key=lambda name: (-layouts[name].item_size, name))


def _raw_bytes(tensor: torch.Tensor) -> memoryview:
    if sys.byteorder != "little":
        raise NotImplementedError("safetensors files are little endian, and this machine is not")
    flat = whole_tensor(tensor.detach()).cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
