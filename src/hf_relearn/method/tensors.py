"""The tensors of a module by name, whole or shared out among processes (FSDP2)."""

from typing import Any

import torch
from torch import nn

_DISTRIBUTED = torch.distributed.is_available()
if _DISTRIBUTED:
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
    from torch.distributed.tensor import DTensor, Shard

ShardGroups = tuple[tuple[str, Any], ...]


def is_sharded(tensor: torch.Tensor) -> bool:
    """Check whether a tensor is a `DTensor`, so that this process may hold a part of it only."""
    return _DISTRIBUTED and isinstance(tensor, DTensor)


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's part of a tensor, sharing its memory: the tensor itself if it is not sharded."""
    if not is_sharded(tensor):
        return tensor
    with torch.no_grad():
        return tensor.to_local()  # type: ignore[attr-defined]


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return the whole of a tensor. If it is sharded, its parts are gathered: every process has to call this."""
    if not is_sharded(tensor):
        return tensor
    assert isinstance(tensor, DTensor)
    # Parts that were offloaded to the CPU are gathered by their accelerators.
    return tensor.to(tensor.device_mesh.device_type).full_tensor()  # type: ignore[attr-defined]


def local_index(name: str, tensor: torch.Tensor) -> tuple[slice, ...]:
    """Locate this process's part in the whole of a sharded tensor; nothing is communicated.

    Raises:
        ValueError: the tensor is divided in another way than into runs of rows (or columns); names it.
    """
    assert isinstance(tensor, DTensor)
    bounds = [(0, size) for size in tensor.shape]
    coordinate = tensor.device_mesh.get_coordinate() or [0] * tensor.device_mesh.ndim
    for mesh_dim, placement in enumerate(tensor.placements):
        if placement.is_replicate():
            continue
        if type(placement) is not Shard:
            raise ValueError(_unknown_division(name, tensor))
        begin, end = bounds[placement.dim]
        size = -(-(end - begin) // tensor.device_mesh.size(mesh_dim))
        begin = min(begin + coordinate[mesh_dim] * size, end)
        bounds[placement.dim] = (begin, min(begin + size, end))
    if tuple(local_part(tensor).shape) != tuple(end - begin for begin, end in bounds):
        raise ValueError(_unknown_division(name, tensor))
    return tuple(slice(begin, end) for begin, end in bounds)


def shard_groups(tensor: torch.Tensor) -> ShardGroups:
    """Return the process groups over which the parts of a tensor are spread, each with the type of its device."""
    if not is_sharded(tensor):
        return ()
    assert isinstance(tensor, DTensor)
    mesh = tensor.device_mesh
    spread = [dim for dim, placement in enumerate(tensor.placements) if placement.is_shard()]
    return tuple((mesh.device_type, mesh.get_group(dim)) for dim in spread)


def summed(values: list[float], groups: ShardGroups) -> list[float]:
    """Sum a few numbers over process groups, one after the other; every process of them has to call this."""
    for device, group in groups:
        total = torch.tensor(values, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(total, group=group)
        values = total.tolist()
    return values


def said_by_first_process(value: Any) -> Any:
    """Return the first process's value, on every process; every process has to call this."""
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def reshard_(module: nn.Module) -> None:
    """Make sure that a module's parameters can be stored and moved, part by part if they are sharded.

    After a forward pass without a backward pass the root module of FSDP2 keeps whole parameters, copies whose change
    would be lost: it gets its shards back. To be called with the root, since FSDP2 knows of them there.

    Raises:
        ValueError: parameters are divided in a way that cannot be moved (DeepSpeed ZeRO-3, FSDP1), or are such
            copies, which `module` itself cannot give back; names one.
    """
    if _DISTRIBUTED:
        for child in module.modules():
            if isinstance(child, FullyShardedDataParallel):
                raise ValueError(
                    "the model is sharded by FSDP version 1, which flattens parameters, so that re-learning cannot "
                    "move them: use version 2 (fsdp_config: {'version': 2}, or torch's fully_shard)"
                )
            if isinstance(child, FSDPModule):
                child.reshard()
    for prefix, child in module.named_modules():
        managed = getattr(child, "_is_fsdp_managed_module", False)
        for name, parameter in child.named_parameters(prefix, recurse=False):
            # What deepspeed itself tells its partitioned parameters by; their own shape is empty.
            if "ds_id" in parameter.__dict__:
                raise ValueError(
                    f"the parameter {name!r} is partitioned by DeepSpeed ZeRO-3, which re-learning does not support: "
                    "use ZeRO stage 1 or 2, or FSDP version 2, or train without re-learning (--relearn_strategy no)"
                )
            if managed and not is_sharded(parameter):
                raise ValueError(
                    f"FSDP holds the parameter {name!r} as a whole at the moment, a copy whose change would be lost: "
                    "call reshard() of the module that fully_shard was called with last (the root)"
                )


def _unknown_division(name: str, tensor: torch.Tensor) -> str:
    return (
        f"{name!r} is divided among processes as {tensor.placements}, which cannot be moved part by part: "  # type: ignore[attr-defined]
        "use fully_shard's own division into rows"
    )


def floating_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return persistent floating-point buffers of a module by their full names, shared ones once."""
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
    """Collect a module's tensors to store by their first names, and further names -> first names.

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
