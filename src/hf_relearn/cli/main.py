"""The command `hf-relearn`: its sub-commands, how they end, and what is said when they fail."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from hf_relearn import __version__
from hf_relearn.cli import card, compare, demo, diagnose, export, predict, report, space
from hf_relearn.cli.usage import UsageError

OK, FAILED, WRONG_USAGE = 0, 1, 2
COMMANDS = {
    "predict": predict,
    "diagnose": diagnose,
    "report": report,
    "compare": compare,
    "card": card,
    "export": export,
    "demo": demo,
    "space": space,
}

DESCRIPTION = """Use, examine and document fusion models trained with hf_relearn.

A MODEL is a folder in which one was saved, or its name on the Hub (name/model)."""

EXIT_CODES = """exit codes:
  0  everything went well
  1  the work failed; one line on stderr says why (--debug before the command shows the traceback)
  2  wrong usage: an unknown flag, a value that does not fit, a modality that the model does not have"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        The exit code: 0, 1 for a failure at work, 2 for wrong usage.
    """
    parser = build_parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as end:  # after --help, --version or wrong usage, which argparse has told of
        return end.code if isinstance(end.code, int) else WRONG_USAGE
    if args.command is None:
        parser.print_help(sys.stderr)
        return WRONG_USAGE
    try:
        COMMANDS[args.command].run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has had enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        print(f"hf-relearn {args.command}: error: {one_line(error)}", file=sys.stderr)
        return WRONG_USAGE if isinstance(error, UsageError) else FAILED
    return OK


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="hf-relearn",
        description=DESCRIPTION,
        epilog=f"'hf-relearn COMMAND --help' shows a command's flags, with examples.\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hf-relearn {__version__}")
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error, and what libraries log.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.DESCRIPTION,
            epilog=f"examples:\n{module.EXAMPLES}\n\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    return parser


def one_line(error: Exception) -> str:
    """An error as one line; what no message was written for is named by its type."""
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    message = " ".join(message.split()) or "no reason was given"
    expected = isinstance(error, (ValueError, OSError, KeyError, ImportError))
    return message if expected else f"{type(error).__name__}: {message}"
