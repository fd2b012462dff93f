"""The command `hf-relearn`: its sub-commands and their exit codes."""

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import typer

from hf_relearn import __version__
from hf_relearn.cli import diagnose, evaluate, folders, predict, sharing, train
from hf_relearn.cli.shared import EXIT_CODES, UsageError
from hf_relearn.errors import one_line

FAILED, WRONG_USAGE = 1, 2
COMMANDS: dict[str, tuple[Callable[..., None], str]] = {  # with the end of its help
    "train": (train.train, train.EPILOG),
    "predict": (predict.predict, predict.EPILOG),
    "evaluate": (evaluate.evaluate, evaluate.EPILOG),
    "diagnose": (diagnose.diagnose, diagnose.EPILOG),
    "report": (folders.report, folders.REPORT_EPILOG),
    "compare": (folders.compare, folders.COMPARE_EPILOG),
    "card": (folders.card, folders.CARD_EPILOG),
    "export": (sharing.export, sharing.EXPORT_EPILOG),
    "demo": (sharing.demo, sharing.DEMO_EPILOG),
    "space": (sharing.space, sharing.SPACE_EPILOG),
}
SEVERAL_VALUES = ("--columns", "--language", "--tags")

app = typer.Typer(
    help="""Train, use, examine and document fusion models.

    A MODEL is a folder in which one was saved, or its name on the Hub (name/model).""",
    epilog=f"'hf-relearn COMMAND --help' shows a command's flags, with examples.\n\n{EXIT_CODES}",
    add_completion=False,
    no_args_is_help=True,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 119},
)
for name, (command, epilog) in COMMANDS.items():
    settings = train.CONTEXT_SETTINGS if name == "train" else None
    app.command(name, epilog=epilog, context_settings=settings)(command)


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, and what libraries log.")
    ] = False,
) -> None:
    """Handle the flags before a command."""
    context.obj = debug
    if version:
        print(f"hf-relearn {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        context.fail("name a command")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 for a failure at work, 2 for wrong usage.

    Args:
        argv: the arguments; None takes those of the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if next((word for word in words if not word.startswith("-")), None) == "train":
        debug, given = False, words  # a recipe reads its own flags
    else:
        debug = "--debug" in words
        words = [word for word in words if word != "--debug"]
        given = ["--debug"] * debug + list(one_value_a_flag(words))
    try:
        app(given, prog_name="hf-relearn")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"hf-relearn {words[0]}: error: {one_line(error)}", file=sys.stderr)
        return WRONG_USAGE if isinstance(error, UsageError) else FAILED
    return 0


def one_value_a_flag(words: Sequence[str]) -> Iterator[str]:
    """Repeat a flag that takes several values before each of them, as click reads it."""
    flag = None
    for word in words:
        if word.startswith("-"):
            flag, first = (word, True) if word in SEVERAL_VALUES else (None, False)
        elif flag and not first:
            yield flag
        else:
            first = False
        yield word
