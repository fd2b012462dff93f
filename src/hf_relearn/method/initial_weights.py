"""The store of initial weights: one safetensors file per run, read back one tensor at a time."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from hf_relearn.method.module_tensors import floating_buffers, stored_tensors
from hf_relearn.method.safetensors_stream import (
    StoredTensor,
    TensorLayout,
    content_fingerprint,
    header_bytes,
    is_complete,
    read_layout,
    read_part,
    write_file,
    write_tensors,
)
from hf_relearn.method.sharding import is_sharded, reshard_, said_by_first_process

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

    def __init__(self, path: Path, fingerprint: str, stored: dict[str, StoredTensor], prefixes: list[str] | None):
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
