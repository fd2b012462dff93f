"""The families of backbones as test parameters: twelve that differ most, and all others as slow tests."""

from collections.abc import Iterable
from typing import Any

import pytest

TWELVE = {
    "vit",
    "resnet",
    "efficientnet",
    "swin",
    "clip-vision-tower",
    "ast",
    "wav2vec2",
    "whisper",
    "bert",
    "t5",
    "gpt2",
    "videomae",
}


def families(names: Iterable[str]) -> list[Any]:
    return [name if name in TWELVE else pytest.param(name, marks=pytest.mark.slow) for name in names]
