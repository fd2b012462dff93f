"""The tensors of a module by their names: its floating-point buffers, and all that a store of its weights keeps."""

import torch
from torch import nn


def floating_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Persistent floating-point buffers of a module by their full names, shared ones once."""
    non_persistent = {
        f"{prefix}.{name}" if prefix else name
        for prefix, child in module.named_modules(remove_duplicate=False)
        for name in child._non_persistent_buffers_set
    }
    return {
        name: buffer
        for name, buffer in module.named_buffers()
        if buffer.is_floating_point() and name not in non_persistent
    }


def stored_tensors(
    module: nn.Module, prefixes: list[str] | None, include_buffers: bool
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors of a module to store by their first names, and further names of the same parameters -> first names.

    Args:
        module: the whole model.
        prefixes: names of the modules whose tensors are wanted; None for all.
        include_buffers: store `floating_buffers` too.

    Raises:
        ValueError: nothing lies under one of the prefixes.
    """
    named: list[tuple[str, torch.Tensor]] = list(module.named_parameters(remove_duplicate=False))
    if include_buffers:
        named += floating_buffers(module).items()
    if prefixes is not None:
        for prefix in prefixes:
            if not any(name.startswith(f"{prefix}.") for name, _ in named):
                raise ValueError(f"the model has no parameter under {prefix!r}")
        named = [(name, tensor) for name, tensor in named if name.startswith(tuple(f"{p}." for p in prefixes))]
    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    first_names: dict[int, str] = {}
    for name, tensor in named:
        first_name = first_names.setdefault(id(tensor), name)
        if first_name == name:
            tensors[name] = tensor
        else:
            aliases[name] = first_name
    return tensors, aliases
