"""Move an encoder, its buffers and the optimizer's state back towards the start."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

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

# Elements moved at a time. On a CPU the scratch memory of a chunk then stays in the cache, which makes the update
# more than twice as fast as whole tensors; on an accelerator the chunk only bounds the scratch memory.
_CPU_CHUNK = 2**17
_DEVICE_CHUNK = 2**24


def soft_reinit_(module: nn.Module, initial: Mapping[str, torch.Tensor], alpha: float) -> None:
    """Moves every trained parameter back to its initial value by the share alpha, in place.

    theta <- (1 - alpha) * theta + alpha * theta0 (section 3.3 of "Diagnosing and Re-learning for Balanced Multimodal
    Learning", arXiv 2407.09705). Computed in float32, or in the parameter's own type where that is wider; float32
    results equal the formula as written to the last bit, 16-bit results are rounded once. alpha 0 changes no bit,
    alpha 1 gives exactly the initial values, and a row (of the first dimension) that still has its initial values (a
    token that no sample held, a mask token) keeps them, where the formula would round. Parameters without
    `requires_grad`, which still have their initial values, and buffers stay as they are; a parameter that is reachable
    under several names moves once.

    Where parameters are sharded (FSDP2), each process moves its own part, reads no more than that from an
    `InitialWeights` file, and communicates nothing; the whole equals what one process computes to the last bit. If
    `module` lies inside the module that was sharded last (the root), call the root's `reshard()` before.

    Args:
        module: for instance one modality's encoder.
        initial: names of `module.named_parameters()` -> initial values, of any device and float type. Read one at a
            time, so a mapping that reads from a disk never holds more than one tensor in memory.
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
    """Does what `soft_reinit_` does, and measures how far the parameters moved.

    Where parameters are sharded, the distance is that of the whole parameters, the same on every process: two numbers
    are summed over the processes at the end.

    Args:
        module: as for `soft_reinit_`.
        initial: as for `soft_reinit_`.
        alpha: as for `soft_reinit_`.

    Returns:
        ||theta_new - theta_old|| / ||theta_old|| over the trained parameters, computed as alpha times the distance to
        the initial values, before any rounding to the storage type; 0 when nothing moved, infinity when parameters
        that were all zero did.

    Raises:
        ValueError, KeyError: as `soft_reinit_`.
    """
    squares: dict[ShardGroups, _Squares] = {}
    _move_parameters_(module, initial, alpha, squares)
    sums = [summed(found.sums(), groups) for groups, found in squares.items()]
    apart, before = (math.sqrt(sum(column)) for column in zip(*sums, strict=True)) if sums else (0.0, 0.0)
    moved = alpha * apart
    if moved == 0:
        return 0.0
    return moved / before if before else math.inf


def interpolate_buffers_(module: nn.Module, initial: Mapping[str, torch.Tensor], alpha: float) -> None:
    """Moves the floating-point statistics of a module back to their initial values by the share alpha, in place.

    The same formula and precision as `soft_reinit_`, for the buffers that `floating_buffers` gives: running means
    and variances. Integer and boolean buffers (counts, indices), non-persistent ones, and those that still equal
    their initial value stay as they are.

    Args:
        module: for instance one modality's encoder.
        initial: names of `module.named_buffers()` -> initial values.
        alpha: strength, in [0, 1].

    Raises:
        ValueError, KeyError: as `soft_reinit_`.
    """
    buffers = floating_buffers(module)
    _check(buffers, initial, alpha, "buffer")
    if alpha == 0:
        return
    with torch.no_grad():
        for name, buffer in buffers.items():
            source = _fetch(initial, name, buffer, "buffer")
            if not torch.equal(local_part(buffer), source):
                _move_(local_part(buffer), source, alpha, None)


class _Squares:
    """Sums of squares of pieces, left on their devices until the end, so that nothing waits for a device before."""

    def __init__(self) -> None:
        self.before: list[torch.Tensor] = []
        self.apart: list[torch.Tensor] = []

    def add(self, part: torch.Tensor, toward: torch.Tensor, scratch: torch.Tensor) -> None:
        """Adds a piece as it is before it moves, and its distance from where it moves to."""
        torch.sub(toward, part, out=scratch)
        self.before.append(_square_sum(part))
        self.apart.append(_square_sum(scratch))

    def sums(self) -> list[float]:
        return [sum(float(square) for square in squares) for squares in (self.apart, self.before)]


def _square_sum(piece: torch.Tensor) -> torch.Tensor:
    # A dot product is much faster than a norm in float64, and as good for pieces this short.
    flat = piece.reshape(-1)
    return torch.dot(flat, flat)


def _move_parameters_(
    module: nn.Module,
    initial: Mapping[str, torch.Tensor],
    alpha: float,
    squares: dict[ShardGroups, _Squares] | None,
) -> None:
    """Moves parameters, and enters squares under the process groups over which each parameter is spread."""
    reshard_(module)
    parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    _check(parameters, initial, alpha, "parameter")
    if alpha == 0:
        return
    with torch.no_grad():
        for name, parameter in parameters.items():
            found = None if squares is None else squares.setdefault(shard_groups(parameter), _Squares())
            _move_(local_part(parameter.detach()), _fetch(initial, name, parameter, "parameter"), alpha, found)


def _check(targets: Mapping[str, torch.Tensor], initial: Mapping[str, torch.Tensor], alpha: float, kind: str) -> None:
    """Raises what can be known without reading a tensor from a disk."""
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
        if shape_of is not None:
            _check_shape(name, target, shape_of(name), kind)
        elif isinstance(initial, dict):
            _check_shape(name, target, initial[name].shape, kind)


def _check_shape(name: str, target: torch.Tensor, shape: tuple[int, ...], kind: str) -> None:
    if tuple(target.shape) != tuple(shape):
        raise ValueError(
            f"{kind} {name!r} has the shape {tuple(target.shape)}, but its initial value has {tuple(shape)}; "
            "the initial values are those of another model"
        )


def _fetch(initial: Mapping[str, torch.Tensor], name: str, target: torch.Tensor, kind: str) -> torch.Tensor:
    """The initial value of what this process holds of `target`, on its device."""
    device = local_part(target).device
    read_part = getattr(initial, "read_part", None)
    if is_sharded(target) and read_part is not None:
        return read_part(name, local_index(name, target)).to(device)  # its shape is known and checked
    source = initial[name].detach()
    _check_shape(name, target, source.shape, kind)
    if is_sharded(target):
        source = source[local_index(name, target)]
    return source.to(device)


def _move_(target: torch.Tensor, source: torch.Tensor, alpha: float, squares: _Squares | None) -> None:
    compute_dtype = torch.promote_types(target.dtype, torch.float32)
    scratch: torch.Tensor | None = None
    unmoved = None if alpha == 1 else _unmoved_rows(target, source)
    moves = unmoved is None or len(unmoved) < len(target)
    kept = target[unmoved] if unmoved is not None and moves else None
    for part, toward in _chunks(target, source):
        if not moves and squares is None:
            break
        if scratch is None or scratch.shape != part.shape:
            scratch = torch.empty_like(part, dtype=compute_dtype)
        wide = part.to(compute_dtype)  # the piece itself where it is that wide already
        if squares is not None:
            squares.add(wide, toward.to(compute_dtype), scratch)
        if alpha == 1:
            part.copy_(toward)
        elif moves:
            # Product and sum stay separate operations: one fused multiply-add would round differently.
            torch.mul(toward.to(compute_dtype), alpha, out=scratch)
            wide.mul_(1 - alpha).add_(scratch)
            if wide is not part:
                part.copy_(wide)
    if unmoved is not None and kept is not None:
        target[unmoved] = kept


def _unmoved_rows(target: torch.Tensor, source: torch.Tensor) -> torch.Tensor | None:
    """Indices of the rows (of the first dimension) that still have their initial values; None if there are none.

    By rows, since a shard holds whole ones: what moves is then the same however a parameter is sharded.
    """
    if target.ndim == 0 or target.numel() == 0:
        return None
    if target.ndim == 1:
        rows = (target == source).nonzero()
        return rows.squeeze(1) if len(rows) else None
    target, source = target.flatten(1), source.flatten(1)
    rows = (target.select(1, 0) == source.select(1, 0)).nonzero()  # the first element rules out nearly all
    if not len(rows):
        return None
    if len(rows) == len(target) and torch.equal(target, source):
        return rows.squeeze(1)
    rows = rows.squeeze(1)
    rows = rows[(target[rows] == source[rows]).all(dim=1)]
    return rows if len(rows) else None


def _chunks(target: torch.Tensor, source: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Matching flat pieces of both; the whole tensors where the memory of either is not one run of elements."""
    if not (target.is_contiguous() and source.is_contiguous()):
        return iter([(target, source)])
    size = _CPU_CHUNK if target.device.type == "cpu" else _DEVICE_CHUNK
    return zip(target.view(-1).split(size), source.view(-1).split(size), strict=True)


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
