"""A recipe's command line: grouped flags, presets, and a YAML file whose values flags override."""

import argparse
import dataclasses
import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from hf_relearn.relearning.settings import REPLACED

_METHOD, _TRAINING = "diagnosing and re-learning", "training (transformers.TrainingArguments)"


class RecipeArgumentParser(HfArgumentParser):
    """`HfArgumentParser` that shows the training arguments in two groups, those of the method first."""

    def __init__(self, *args: Any, **kwargs: Any):
        self._groups: dict[str, Any] = {}
        super().__init__(*args, **kwargs)

    def add_argument(self, *names: Any, **kwargs: Any) -> Any:
        if not names[0].startswith("--") or names[0] == "--config":
            return super().add_argument(*names, **kwargs)
        for title in (_METHOD, _TRAINING):
            if title not in self._groups:
                self._groups[title] = self.add_argument_group(title)
        of_method = names[0].startswith(("--relearn_", "--diagnosis_", "--balancing"))
        return self._groups[_METHOD if of_method else _TRAINING].add_argument(*names, **kwargs)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind each flag, and the recipe's own text with its commands as written."""


def parse_recipe_arguments(
    dataclass_types: Sequence[type],
    defaults: Callable[[argparse.Namespace], Mapping[str, Any]],
    description: str,
    argv: Sequence[str] | None = None,
) -> tuple[Any, ...]:
    """Parse a recipe's flags. Later ones win: a field's default, `defaults`, the YAML file of `--config`, flags.

    Args:
        dataclass_types: one group of flags each (`_argument_group_name` names it).
        defaults: values that depend on flags given, such as a preset's; it sees the parsed flags and YAML values.
        description: shown by `--help`.
        argv: the flags; None takes those of the process.

    Returns:
        One object of each type.

    Raises:
        SystemExit: for an unknown flag or YAML key, or a value that does not fit, after one message on stderr.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = RecipeArgumentParser(
        dataclass_types,
        usage="%(prog)s [flags]",
        description=description,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file with values of any of these flags; flags given beside it win."
    )
    for flag in argv:
        if (name := flag.removeprefix("--").partition("=")[0]) in REPLACED and flag.startswith("--"):
            parser.error(f"there is no --{name} any more: use {REPLACED[name]}")
    known = {action.dest for action in parser._actions} - {"help", "config"}
    values = _read_yaml(_flag_value(argv, "config"), known, parser)
    parser.set_defaults(**values)
    parser.set_defaults(**{**defaults(_chosen(parser, argv)), **values})
    try:
        namespace = parser.parse_args(argv)
        return tuple(
            dtype(**{field.name: getattr(namespace, field.name) for field in dataclasses.fields(dtype) if field.init})
            for dtype in dataclass_types
        )
    except ValueError as error:
        parser.error(str(error))


def _chosen(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """What the flags say so far, for `--help` too and where a required flag is missing."""
    required = [action for action in parser._actions if action.required]
    for action in required:
        action.required = False
    namespace, _ = parser.parse_known_args([flag for flag in argv if flag not in ("-h", "--help")])
    for action in required:
        action.required = True
    return namespace


def _flag_value(argv: Sequence[str], name: str) -> str | None:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument(f"--{name}")
    return getattr(finder.parse_known_args(argv)[0], name)


def _read_yaml(path: str | None, known: set[str], parser: argparse.ArgumentParser) -> dict[str, Any]:
    if path is None:
        return {}
    if not Path(path).is_file():
        parser.error(f"--config {path}: no such file")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        parser.error(f"--config {path} is not valid YAML: {error}")
    if not isinstance(values, dict):
        parser.error(f"--config {path} holds a {type(values).__name__}: it needs lines of the form 'flag: value'")
    for key in values:
        if key in REPLACED:
            parser.error(f"--config {path}: there is no {key!r} any more: use {REPLACED[key]}")
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            parser.error(f"--config {path}: unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    return values
