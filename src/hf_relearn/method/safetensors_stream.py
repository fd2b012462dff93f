"""Writing a safetensors file tensor by tensor, and where in a file each tensor lies.

`safetensors.torch.save_file` first brings all tensors to the CPU and accepts contiguous ones only; written one by
one, the weights of a model on an accelerator never lie in main memory as a whole. The format: 8 bytes with the
header's length (little endian), the header as JSON, then the tensors' bytes without gaps.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from hf_relearn.method.sharding import whole_tensor
from hf_relearn.method.whole_file import whole_file

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
