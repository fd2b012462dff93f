"""Seed the random draws of one part of a model, whatever other parts it has."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def draw_seed() -> int:
    """Draw a seed from torch's global generator, which every call moves on by the same amount."""
    return int(torch.randint(2**63 - 1, (), device="cpu"))


@contextmanager
def drawing_for(name: str, seed: int) -> Iterator[None]:
    """Seed torch's generator of the CPU by a seed and a name, and give it back as it was."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        yield
