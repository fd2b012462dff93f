"""Run a recipe from the shell: errors as one line, an earlier run in its folder, and Ctrl+C."""

import os
import re
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hf_relearn.errors import one_line
from hf_relearn.experiments.parsing import TYPED_AS, Defaults, name_of_recipe, parse_recipe_arguments

INTERRUPTED = 130  # as shells have it for Ctrl+C
_CHECKPOINT = re.compile(r"checkpoint-\d+")
# Files that tell that a folder holds a run, and all that a run leaves there beside its figures and its card.
_MARKS = ("relearn_history.jsonl", "relearn_run.json", "trainer_state.json")
_LEFT = (
    *_MARKS,
    "_initial_weights-*",
    "_to_push",
    "*_results.json",
    "config.json",
    "model*.safetensors*",
    "processor_config.json",
    "training_arguments.json",
    "report.md",
    "report.json",
    "comparison.md",
    "comparison.json",
)
_FIGURE = re.compile(r"\((figures/[\w.-]+\.png)\)")


def run_recipe(
    main: Callable[..., None], dataclass_types: Sequence[type], defaults: Defaults, description: str | None
) -> None:
    """Parse a recipe's flags and run its `main` with them. An error ends the process with one line on stderr.

    Args:
        main: takes one object of each type, and the `RelearnTrainingArguments`.
        dataclass_types, defaults, description: of `parse_recipe_arguments`.

    Raises:
        SystemExit: 1 for an error, 2 for wrong flags, 130 after Ctrl+C.
    """
    argv, debug = _without_debug(sys.argv[1:])
    args: Any = None
    try:
        *groups, args, flags = parse_recipe_arguments(dataclass_types, defaults, description or "", argv)
        compares = any(getattr(group, "compare", False) for group in groups)
        with args.main_process_first(desc="looking at the output directory"):
            if flags.overwrite and args.resume_from_checkpoint:
                raise ValueError("--overwrite begins anew, and --resume_from_checkpoint goes on: give one of them")
            if flags.overwrite and args.process_index == 0:
                delete_run(args.output_dir)
            elif not compares and not args.resume_from_checkpoint and _checkpoints(Path(args.output_dir)):
                raise ValueError(
                    f"--output_dir {args.output_dir} holds checkpoints of an earlier run: add "
                    "--resume_from_checkpoint last to go on with it, or --overwrite to begin anew"
                )
        main(*groups, args)
    except KeyboardInterrupt:
        if args is None or args.process_index == 0:
            print(f"\nInterrupted. To go on: {_command_to_go_on(args, argv)}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if debug:
            traceback.print_exc()
        rank = os.environ.get("RANK", "0")
        who = name_of_recipe() + (f", process {rank}" if rank != "0" else "")
        print(f"{who}: error: {one_line(error)}", file=sys.stderr)
        sys.exit(1)


def delete_run(folder: str | os.PathLike) -> None:
    """Delete the files that an earlier run left in a folder, and in the folders of its arms. All others stay."""
    folder = Path(folder)
    if not _holds_run(folder) and not (folder / "comparison.md").is_file():
        return
    for arm in [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]:
        if not _CHECKPOINT.fullmatch(arm.name) and _holds_run(arm):
            delete_run(arm)
            if not any(arm.iterdir()):
                arm.rmdir()
    pages = [folder / name for name in ("report.md", "comparison.md", "README.md")]
    texts = {page: page.read_text(encoding="utf-8", errors="replace") for page in pages if page.is_file()}
    card = folder / "README.md"
    left = [folder / figure for text in texts.values() for figure in _FIGURE.findall(text)]
    left += [card] if "library_name: hf_relearn" in texts.get(card, "") else []
    left += [path for pattern in _LEFT for path in folder.glob(pattern)] + _checkpoints(folder)
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    figures = folder / "figures"
    if figures.is_dir() and not any(figures.iterdir()):
        figures.rmdir()


def _holds_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _MARKS) or bool(_checkpoints(folder))


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if path.is_dir() and _CHECKPOINT.fullmatch(path.name)]


def _without_debug(argv: Sequence[str]) -> tuple[list[str], bool]:
    """Take out `--debug` if it stands alone; with a value it is the flag of transformers."""
    words = list(argv)
    for place, word in enumerate(words):
        if word == "--debug" and (place + 1 == len(words) or words[place + 1].startswith("-")):
            return words[:place] + words[place + 1 :], True
    return words, False


def _command_to_go_on(args: Any, argv: Sequence[str]) -> str:
    """Write the command that resumes from the last checkpoint, or begins again without one."""
    if typed := os.environ.get(TYPED_AS):
        processes = os.environ.get("WORLD_SIZE", "1")
        command = [*typed.split(), *(["--num_processes", processes] if processes != "1" else [])]
    else:
        launcher = ["accelerate", "launch"] if "ACCELERATE_MIXED_PRECISION" in os.environ else ["python"]
        command = [*launcher, sys.argv[0]]
    words = [word for word in argv if word != "--overwrite"]
    saved = args is not None and (
        _checkpoints(Path(args.output_dir)) or any(Path(args.output_dir).glob("*/checkpoint-*"))
    )
    if saved and "--resume_from_checkpoint" not in words:
        words += ["--resume_from_checkpoint", "last"]
    return shlex.join([*command, *words])
