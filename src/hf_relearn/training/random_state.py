"""Keeping every random generator as it was."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def preserved_random_state(seed: int | None = None, *, devices: bool = True) -> Iterator[None]:
    """Restore the generators of Python, NumPy and torch (CPU and accelerators) at the end.

    Args:
        seed: what all of them are seeded with inside; None leaves them as they are.
        devices: whether accelerators' generators are meant too; forked processes cannot reach those.
    """
    state = random_state(devices)
    try:
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            (torch if devices else torch.default_generator).manual_seed(seed)
        yield
    finally:
        restore_random_state(state)


def random_state(devices: bool = True) -> tuple[Any, ...]:
    """State of the generators of Python, NumPy and torch (CPU and, with `devices`, accelerators)."""
    device_states = _device_states() if devices else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), device_states


def restore_random_state(state: tuple[Any, ...]) -> None:
    """Put all generators back into a state that `random_state` gave."""
    python_state, numpy_state, torch_state, device_states = state
    random.setstate(python_state)
    np.random.set_state(numpy_state)
    torch.set_rng_state(torch_state)
    if device_states is not None:
        _restore_device_states(device_states)


def _device_states() -> list[torch.Tensor] | None:
    """States of all accelerators of the present kind; None where there is none."""
    if not torch.accelerator.is_available():
        return None
    module = torch.get_device_module()
    return module.get_rng_state_all() if hasattr(module, "get_rng_state_all") else [module.get_rng_state()]


def _restore_device_states(states: list[torch.Tensor]) -> None:
    module = torch.get_device_module()
    if hasattr(module, "set_rng_state_all"):
        module.set_rng_state_all(states)
    else:  # a kind of which a machine has one only
        module.set_rng_state(states[0])
