"""Move an encoder, its buffers and the optimizer's state back towards the start."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from hf_relearn.method.initial_weights import InitialWeights
from hf_relearn.method.tensors import (
    ShardGroups,
    floating_buffers,
    is_sharded,
    local_index,
    local_part,
    reshard_,
    shard_groups,
    summed,
)

# Elements moved at a time. On a CPU a chunk stays in the cache; on an accelerator it only bounds the scratch memory.
_CPU_CHUNK = 2**17
_DEVICE_CHUNK = 2**24


def soft_reinit_(module: nn.Module, initial: Mapping[str, torch.Tensor], alpha: float) -> None:
    """Move every trained parameter back to its initial value by the share alpha, in place.

    θ ← (1 - α)·θ + α·θ⁰ (section 3.3 of "Diagnosing and Re-learning for Balanced Multimodal Learning",
    arXiv 2407.09705), as `torch.lerp` computes it: in float32, or in the parameter's own type if that is wider. The
    result is rounded once to the storage type. Alpha 0 changes no bit, alpha 1 gives exactly the initial values, and
    a value that still equals its initial one stays. Parameters without `requires_grad` and buffers stay as they are.
    A parameter with several names moves once.

    Each process moves its own part of a sharded parameter (FSDP2), reads only that part from an `InitialWeights` file,
    and communicates nothing. The result equals that of one process to the last bit. If `module` lies inside the module
    that was sharded last (the root), call the root's `reshard()` before.

    Args:
        module: for instance one modality's encoder.
        initial: names of `module.named_parameters()` -> initial values, of any device and float type.
        alpha: strength, in [0, 1].

    Raises:
        ValueError: alpha is outside [0, 1], a shape differs, or the parameters are divided among processes in
            another way (FSDP version 1, DeepSpeed ZeRO-3).
        KeyError: a trained parameter is missing in `initial`.
            Either is raised before anything moves, except a shape that a mapping other than `dict` or one with
            `shape_of(name)` shows only when it is read.
    """
    _move_parameters_(module, initial, alpha, None)


def soft_reinit_with_distance_(module: nn.Module, initial: Mapping[str, torch.Tensor], alpha: float) -> float:
    """Do what `soft_reinit_` does, and measure how far the parameters moved.

    The distance of sharded parameters is that of the whole ones, the same on every process: two numbers are summed
    over the processes at the end.

    Returns:
        ||θ_new - θ_old|| / ||θ_old|| over the trained parameters, computed as alpha times the distance to the initial
        values, before any rounding to the storage type; 0 if nothing moved, infinity if parameters that were all zero
        did.

    Raises:
        ValueError, KeyError: as `soft_reinit_`.
    """
    squares: Squares = {}
    _move_parameters_(module, initial, alpha, squares)
    sums = [summed([float(sum(map(float, part))) for part in parts], groups) for groups, parts in squares.items()]
    apart, before = (math.sqrt(sum(column)) for column in zip(*sums, strict=True)) if sums else (0.0, 0.0)
    moved = alpha * apart
    if moved == 0:
        return 0.0
    return moved / before if before else math.inf


def interpolate_buffers_(module: nn.Module, initial: Mapping[str, torch.Tensor], alpha: float) -> None:
    """Move the floating-point statistics of a module back to their initial values by the share alpha, in place.

    The same formula and precision as `soft_reinit_`, for the buffers that `floating_buffers` gives: running means
    and variances. Integer and boolean buffers (counts, indices) and non-persistent ones stay as they are.

    Args:
        module: for instance one modality's encoder.
        initial: names of `module.named_buffers()` -> initial values.
        alpha: strength, in [0, 1].

    Raises:
        ValueError, KeyError: as `soft_reinit_`.
    """
    _move_(floating_buffers(module), initial, alpha, "buffer", None)


# Process groups over which parameters are spread -> squares of the distances to the initial values, and of the norms.
# They stay on their devices until the end, so that nothing waits for a device before.
Squares = dict[ShardGroups, tuple[list[torch.Tensor], list[torch.Tensor]]]


class _Group:
    """Small tensors of one kind, to be moved together."""

    def __init__(self) -> None:
        self.pieces: list[torch.Tensor] = []
        self.toward: list[torch.Tensor] = []
        self.size = 0  # in elements


def _lerp_(pieces: list[torch.Tensor], toward: list[torch.Tensor], alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Move pieces of one type; returns the squares of distance and norm before the move."""
    before = _as_one(pieces)
    wide = before.to(torch.promote_types(before.dtype, torch.float32))
    target = _as_one(toward).to(wide)
    apart = target - wide
    squares = torch.dot(apart, apart), torch.dot(wide, wide)
    if alpha == 1:
        torch._foreach_copy_(pieces, toward)
    elif wide.dtype == pieces[0].dtype == toward[0].dtype:
        torch._foreach_lerp_(pieces, toward, alpha)
    else:
        torch._foreach_copy_(pieces, list(_unflatten_dense_tensors(wide.lerp_(target, alpha), pieces)))
    return squares


def _as_one(pieces: list[torch.Tensor]) -> torch.Tensor:
    """Return the elements of pieces as one run; a single piece is not copied."""
    return _flatten_dense_tensors(pieces) if len(pieces) > 1 else pieces[0].reshape(-1)


def _move_parameters_(
    module: nn.Module, initial: Mapping[str, torch.Tensor], alpha: float, squares: Squares | None
) -> None:
    reshard_(module)
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    _move_(trained, initial, alpha, "parameter", squares)


def _move_(
    targets: Mapping[str, torch.Tensor],
    initial: Mapping[str, torch.Tensor],
    alpha: float,
    kind: str,
    squares: Squares | None,
) -> None:
    """Move tensors, and enter the squares under the process groups over which each of them is spread."""
    _check(targets, initial, alpha, kind)
    if alpha == 0:
        return
    with getattr(initial, "opened", nullcontext)(), torch.no_grad():
        for groups, pieces, toward in _chunks(targets, initial, kind):
            apart, before = _lerp_(pieces, toward, alpha)
            if squares is not None:
                found = squares.setdefault(groups, ([], []))
                found[0].append(apart)
                found[1].append(before)


def _chunks(
    targets: Mapping[str, torch.Tensor], initial: Mapping[str, torch.Tensor], kind: str
) -> Iterator[tuple[ShardGroups, list[torch.Tensor], list[torch.Tensor]]]:
    """Yield matching pieces of one type, device and division: parts of a large tensor, or many small ones together."""
    waiting: dict[tuple[ShardGroups, torch.dtype, torch.dtype, torch.device], _Group] = {}
    for name, whole in targets.items():
        if is_sharded(whole):
            groups, target = shard_groups(whole), local_part(whole)
            source = _fetch_part(initial, name, whole, kind)
        else:
            groups, target, source = (), whole, initial[name]
            if target.shape != source.shape:
                raise _other_shape(name, target, source.shape, kind)
        device = target.device
        if source.device != device:
            source = source.to(device)
        size = target.numel()
        limit = _CPU_CHUNK if target.is_cpu else _DEVICE_CHUNK
        if size > limit and target.is_contiguous():
            for piece, its_source in zip(target.view(-1).split(limit), source.reshape(-1).split(limit), strict=True):
                yield groups, [piece], [its_source]
            continue
        key = groups, target.dtype, source.dtype, device
        group = waiting.get(key)
        if group is None or group.size + size > limit:
            if group is not None:
                yield groups, group.pieces, group.toward
            group = waiting[key] = _Group()
        group.pieces.append(target)
        group.toward.append(source)
        group.size += size
    for (groups, *_), group in waiting.items():
        yield groups, group.pieces, group.toward


def _check(targets: Mapping[str, torch.Tensor], initial: Mapping[str, torch.Tensor], alpha: float, kind: str) -> None:
    """Raise what can be known without reading a tensor from a disk."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha, the share of the way back to the initial weights, must be in [0, 1], but is {alpha}")
    available = set(initial)
    shape_of = getattr(initial, "shape_of", None)
    for name, target in targets.items():
        if name not in available:
            found = f"{len(available)} names such as {min(available)!r}" if available else "nothing"
            raise KeyError(
                f"{kind} {name!r} has no initial value: `initial` must map the names of this module's {kind}s to "
                f"tensors, but holds {found}"
            )
        shape = shape_of(name) if shape_of else initial[name].shape if isinstance(initial, dict) else target.shape
        if target.shape != shape:
            raise _other_shape(name, target, shape, kind)


def _other_shape(name: str, target: torch.Tensor, shape: tuple[int, ...], kind: str) -> ValueError:
    return ValueError(
        f"{kind} {name!r} has the shape {tuple(target.shape)}, but its initial value has {tuple(shape)}; "
        "the initial values are those of another model"
    )


def _fetch_part(initial: Mapping[str, torch.Tensor], name: str, target: torch.Tensor, kind: str) -> torch.Tensor:
    """Return the initial value of this process's part of `target`."""
    index, read_part = local_index(name, target), getattr(initial, "read_part", None)
    if read_part is not None:
        return read_part(name, index)  # its shape is known and checked
    source = initial[name]
    if target.shape != source.shape:
        raise _other_shape(name, target, source.shape, kind)
    return source[index]


def relearn_encoders(
    encoders: Mapping[str, nn.Module],
    names: Mapping[str, str],
    initial: InitialWeights,
    alphas: Mapping[str, float],
    interpolate_buffers: bool,
) -> dict[str, float]:
    """Move every encoder by its strength.

    Args:
        encoders: modality -> encoder.
        names: modality -> full name of the encoder in the model, under which its initial weights are stored.
        initial: the store of initial weights.
        alphas: modality -> strength in [0, 1].
        interpolate_buffers: move floating-point buffers too.

    Returns:
        modality -> relative distance moved, ||θ_new - θ_old|| / ||θ_old||.
    """
    moved = {}
    for modality, encoder in encoders.items():
        own = initial.subset(names[modality])
        with initial.opened():  # one encoder at a time, so that no more of the file than that stays in memory
            moved[modality] = soft_reinit_with_distance_(encoder, own, alphas[modality])
            if interpolate_buffers:
                interpolate_buffers_(encoder, own, alphas[modality])
    return moved


def renew_master_weights(optimizer: Any) -> None:
    """Let an optimizer with float32 copies of the weights (DeepSpeed, ZeRO stage 1 or 2) copy them anew.

    Its next step would otherwise write the copies, from before the point, over the moved weights. The copies hold
    what the weights hold, so digits beyond the weights' own type are lost at a point.
    """
    renew = getattr(getattr(optimizer, "optimizer", optimizer), "refresh_fp32_params", None)
    if renew is not None:
        renew()


def check_optimizer_state(optimizer: Any, encoders: Mapping[str, nn.Module]) -> None:
    """Make sure that the optimizer keeps its state by the encoders' own parameters, so that it can be reset.

    Raises:
        ValueError: it trains other tensors in their place, such as the flat float32 copies of DeepSpeed.
    """
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps the optimizer
    known = {id(parameter) for group in inner.param_groups for parameter in group["params"]}
    for modality, encoder in encoders.items():
        trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        if trained and not any(id(parameter) in known for parameter in trained):
            raise ValueError(
                f"--relearn_optimizer_state is 'reset', but the optimizer {type(inner).__name__} knows no parameter "
                f"of the {modality!r} encoder: it trains other tensors in their place, as DeepSpeed's flat copies, "
                "whose state cannot be told apart by parameter; use 'keep', or train by DDP or FSDP version 2"
            )


def reset_optimizer_state(optimizer: Any, modules: Iterable[nn.Module]) -> None:
    """Drop the optimizer's state (momentum and the like) of the trained parameters of some modules."""
    state = getattr(optimizer, "optimizer", optimizer).state  # accelerate wraps the optimizer
    for module in modules:
        for parameter in module.parameters():
            if parameter.requires_grad:
                state.pop(parameter, None)
