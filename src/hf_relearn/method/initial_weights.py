"""The store of initial weights: one safetensors file per run, read back one tensor at a time."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_relearn.method.tensors import (
    floating_buffers,
    is_sharded,
    reshard_,
    said_by_first_process,
    stored_tensors,
)
from hf_relearn.method.weights_file import (
    FILE_PREFIX,
    FILE_SUFFIX,
    InitialWeightsError,
    Layout,
    MappedTensors,
    packed,
    read_layout,
    weights_file_name,
    write_weights_file,
)

# The file is mapped, and what was read of it counts as this process's memory until the mapping is let go of.
_REOPEN_AFTER = 2**26


class InitialWeights(Mapping[str, torch.Tensor]):
    """Read a model's initial parameters and floating-point buffers θ⁰ from their file, by their full names.

    The mapping holds no tensor: each access reads that tensor from the file (to the CPU). The file is open inside
    `opened()` only, so the object can be copied, pickled and used after a fork. A tensor with several names is stored
    once, and found under each of them. Make one with `save` or `load`.

    Attributes:
        path: the safetensors file.
        checksum: 32 hexadecimal digits of an XXH3 hash of names, types, shapes and values. The first 12 stand in the
            name of the file.
    """

    def __init__(self, path: Path, layout: Layout):
        self.path = path
        self.checksum = layout.checksum
        self._layout = layout
        self._places = layout.places | {alias: layout.places[name] for alias, name in layout.aliases.items()}
        self._version = _version(path)
        self._tensors: MappedTensors | None = None  # while it is open

    @classmethod
    def save(
        cls,
        source: nn.Module | Mapping[str, torch.Tensor],
        folder: str | os.PathLike[str],
        *,
        prefixes: Iterable[str] | None = None,
        include_buffers: bool = True,
    ) -> "InitialWeights":
        """Write the present weights as initial ones to `folder/_initial_weights-<checksum>.safetensors`.

        The file appears complete or not at all. A file with the same weights is replaced, so that a damaged one is
        never taken for them.

        The file holds the whole tensors of a model that is sharded (FSDP2). Every process has to call this; the first
        process writes, and holds a copy of the tensors meanwhile.

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
            TypeError: a tensor has no data (meta device).
            OSError: the file cannot be written.
        """
        wanted = None if prefixes is None else sorted(prefixes)
        if isinstance(source, nn.Module):
            reshard_(source)
            tensors, aliases = stored_tensors(source, wanted, include_buffers)
        elif wanted is not None:
            raise ValueError("prefixes select modules of a model; filter a mapping before saving it")
        else:
            tensors, aliases = dict(source), {}
        for name, tensor in tensors.items():
            if tensor.is_meta:
                raise TypeError(f"{name!r} is on the meta device and holds no values to store; load the model first")
        if not any(is_sharded(tensor) for tensor in tensors.values()):
            return cls.load(write_weights_file(packed(tensors), Path(folder), aliases, wanted))
        first = torch.distributed.get_rank() == 0
        whole = packed(tensors, keep=first)
        outcome: InitialWeights | Exception | None = None
        if first:
            try:
                outcome = cls.load(write_weights_file(whole, Path(folder), aliases, wanted))
            except Exception as error:  # the others would wait
                outcome = error
        outcome = said_by_first_process(outcome)
        if isinstance(outcome, InitialWeights):
            return outcome
        raise outcome

    @classmethod
    def load(cls, path: str | os.PathLike[str], checksum: str | None = None) -> "InitialWeights":
        """Open a file that `save` wrote, and compare its content with a checksum.

        Args:
            path: the file.
            checksum: of the weights that are wanted; every tensor is then read once. None reads the header only.

        Returns:
            The store that reads it.

        Raises:
            FileNotFoundError: there is no such file.
            InitialWeightsError: it is damaged or truncated, holds other weights, or is not a file of initial weights.
        """
        path = Path(path).absolute()
        layout = read_layout(path, checksum)
        return cls(path, replace(layout, checksum=checksum or layout.checksum))

    @staticmethod
    def find(folder: str | os.PathLike[str], checksum: str | None = None) -> list[Path]:
        """List the files of initial weights in a folder by name: all of them, or the one with this checksum."""
        pattern = f"{FILE_PREFIX}*{FILE_SUFFIX}" if checksum is None else InitialWeights.file_name(checksum)
        return sorted(Path(folder).glob(pattern))

    @staticmethod
    def file_name(checksum: str) -> str:
        """Return the name of the file that holds weights with this checksum."""
        return weights_file_name(checksum)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Keep the file open, so that many tensors are read faster.

        Raises:
            InitialWeightsError: the file was deleted or changed.
        """
        if self._tensors is not None:
            yield
            return
        self._check_unchanged()
        self._open()
        try:
            yield
        finally:
            self._tensors = None

    def _open(self) -> None:
        self._tensors, self._bytes_read = MappedTensors(self.path, self._places), 0

    def _check_unchanged(self) -> None:
        try:
            version = _version(self.path)
        except OSError as error:
            raise InitialWeightsError(
                f"the file of initial weights {self.path} cannot be read any more ({error.strerror}): it was deleted "
                "or moved since the run began. Put it back and resume from the last checkpoint, or start afresh"
            ) from error
        if version != self._version:
            InitialWeights.load(self.path, self.checksum)  # touched only, or changed
            self._version = version

    def __getitem__(self, name: str) -> torch.Tensor:
        if self._tensors is None:
            with self.opened():
                return self[name]
        tensor = self._tensors[name]
        self._count(self._places[name].nbytes)
        return tensor

    def read_part(self, name: str, index: tuple[slice, ...]) -> torch.Tensor:
        """Read a part of a tensor, as a process needs that holds only this part of a sharded parameter.

        Args:
            name: as for `[name]`.
            index: one slice per dimension, without steps; () reads the whole tensor.

        Returns:
            The part, on the CPU.

        Raises:
            KeyError: nothing is stored under that name.
            InitialWeightsError: the file was deleted or changed.
        """
        if self._tensors is None:
            with self.opened():
                return self.read_part(name, index)
        part = self._tensors[name][index]
        self._count(part.nbytes)
        return part

    def _count(self, nbytes: int) -> None:
        self._bytes_read += nbytes
        if self._bytes_read > _REOPEN_AFTER:
            self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tensors": None}

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __repr__(self) -> str:
        return f"InitialWeights({str(self.path)!r}, {len(self)} tensors)"

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, without reading it."""
        return self._places[name].shape

    def subset(self, prefix: str) -> Mapping[str, torch.Tensor]:
        """Return a view of what lies under one module name, under the names that this module itself uses.

        Args:
            prefix: full name of the module, `"encoders.audio"`; "" gives everything.

        Returns:
            A mapping for `soft_reinit_(module, ...)`, as lazy as this one, with `shape_of`.

        Raises:
            KeyError: nothing is stored under that name.
        """
        return _Subset(self, f"{prefix}." if prefix else "")

    def check_matches(self, module: nn.Module) -> None:
        """Make sure that these are initial weights of this model: the same names and shapes.

        Args:
            module: the model whose weights `save` wrote (only what lies under its `prefixes` is compared).

        Raises:
            InitialWeightsError: names the first parameter that differs.
        """
        tensors, aliases = stored_tensors(module, self._layout.prefixes, include_buffers=True)
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
        for name in sorted(self):
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

    @contextmanager
    def opened(self) -> Iterator[None]:
        with self._weights.opened():
            yield

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._prefix + name in self._weights

    def shape_of(self, name: str) -> tuple[int, ...]:
        return self._weights.shape_of(self._prefix + name)


def _version(path: Path) -> tuple[int, int, int]:
    """Return a stamp that changes if a file is written again."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino
