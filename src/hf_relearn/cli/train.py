"""`hf-relearn train`: the recipes, from wherever the package is installed."""

import argparse
import os
import runpy
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

import hf_relearn
from hf_relearn.cli.shared import UsageError, epilog

RECIPES = {name: f"train_{name.replace('-', '_')}.py" for name in ("cremad", "image-text", "multimodal")}
EPILOG = epilog(
    "hf-relearn train cremad",
    "hf-relearn train cremad --help",
    "hf-relearn train image-text --dataset_name memes.csv --text_column caption --from_scratch",
    "hf-relearn train multimodal --dataset_name me/my-clips --from_scratch --num_processes 2",
)
# What follows the recipe's name is the recipe's, `--help` too.
CONTEXT_SETTINGS = {"allow_interspersed_args": False}


def train(
    context: typer.Context,
    recipe: Annotated[
        Literal["cremad", "image-text", "multimodal"],
        typer.Argument(metavar="RECIPE", help="cremad, image-text or multimodal.", show_default=False),
    ],
    flags: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FLAGS]...", help="Its flags, which 'RECIPE --help' lists.", show_default=False),
    ] = None,
) -> None:
    """Train a model by a recipe.

    'cremad' trains on sounds and faces (without --data_dir on an embedded sample), 'image-text' on pictures with
    texts, 'multimodal' on any mix of modalities. The recipes are files to read and copy, and this command runs them as
    they are. With --num_processes N beside a recipe's flags, N processes share the work, one on each GPU, started by
    'accelerate launch'; on a CPU by torchrun.
    """
    path = recipes_folder() / RECIPES[recipe]
    finder = argparse.ArgumentParser(prog=f"hf-relearn train {recipe}", add_help=False, allow_abbrev=False)
    finder.add_argument("--num_processes", type=int, default=1)
    given, own = finder.parse_known_args(flags or [])
    if given.num_processes < 1:
        raise UsageError(f"--num_processes is {given.num_processes}, but it is at least 1")
    if context.obj:
        own.append("--debug")

    from hf_relearn.experiments.parsing import TYPED_AS

    os.environ[TYPED_AS] = f"hf-relearn train {recipe}"
    if given.num_processes > 1 and {"-h", "--help", "--help_all"}.isdisjoint(own):
        launcher = _launcher(given.num_processes, own)
        os.execv(sys.executable, [sys.executable, "-m", *launcher, str(path), *own])
    sys.argv = [str(path), *own]
    runpy.run_path(str(path), run_name="__main__")


def recipes_folder() -> Path:
    """Find the recipes: in an installed package, or in `recipes/` of the repository."""
    package = Path(hf_relearn.__file__).parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parents[1] / "recipes"


def _launcher(processes: int, flags: list[str]) -> list[str]:
    """Return the module that starts several processes, with its flags; accelerate starts one only on a CPU."""
    import torch

    if "--use_cpu" in flags or not torch.accelerator.is_available():
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
        return ["torch.distributed.run", "--nproc_per_node", str(processes)]
    return ["accelerate.commands.launch", "--quiet", "--num_processes", str(processes)]
