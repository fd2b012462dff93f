"""Recipes run in this process, which has everything imported already."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="session")
def run_here() -> Callable[..., None]:
    """Run a recipe with its flags, as its own process would."""

    def run(name: str, *flags: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(RECIPES / name), "--use_cpu", "--disable_tqdm", "true", *flags])
            runpy.run_path(str(RECIPES / name), run_name="__main__")

    return run
