"""Parse a recipe's command line: grouped flags, presets, and a YAML file whose values flags override."""

import argparse
import dataclasses
import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml
from transformers.hf_argparser import HfArgumentParser

from hf_relearn.relearning.settings import REPLACED, RelearnSettings
from hf_relearn.training.settings import BalancingSettings, ParameterSettings, TargetSettings

_METHOD, _TRAINING = "diagnosing and re-learning", "training (transformers.TrainingArguments)"

# Environment variable with the command that runs a recipe, if it is not the recipe's own file.
TYPED_AS = "HF_RELEARN_TYPED_AS"

Defaults = Callable[[argparse.Namespace], Mapping[str, Any]]


@dataclasses.dataclass
class CommonTrainingArguments:
    """Describe the training arguments that `--help` shows; importing those of transformers takes seconds."""

    output_dir: str | None = field(default=None, metadata={"help": "Folder of the run."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "Epochs."})
    max_steps: int = field(default=-1, metadata={"help": "Steps, in place of epochs, if it is more than 0."})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "Samples per step and device."})
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "The same in evaluations."})
    gradient_accumulation_steps: int = field(
        default=1, metadata={"help": "Batches whose gradients are added up before a step."}
    )
    learning_rate: float = field(default=5e-5, metadata={"help": "Learning rate at its peak."})
    lr_scheduler_type: str = field(
        default="linear", metadata={"help": "Schedule of the learning rate: linear, cosine, constant or another."}
    )
    warmup_steps: float = field(default=0, metadata={"help": "Steps of warm-up, or below 1 their share of all."})
    weight_decay: float = field(default=0.0, metadata={"help": "Weight decay."})
    seed: int = field(default=42, metadata={"help": "Seed of the model, the data splits and the training."})
    bf16: bool = field(default=False, metadata={"help": "Train in mixed precision with bfloat16."})
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": "'last', or the folder of a checkpoint to go on from."}
    )
    push_to_hub: bool = field(default=False, metadata={"help": "Push model, card and report to the Hub."})
    report_to: str = field(default="none", metadata={"help": "Tracker: tensorboard, wandb, trackio or another."})


@dataclasses.dataclass
class RecipeFlags:
    """Choose how the recipe itself runs."""

    _argument_group_name: ClassVar[str] = "recipe"

    config: str | None = field(
        default=None,
        metadata={"help": "YAML file with values of any of these flags; flags given beside it win."},
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Begin anew in an output directory that holds an earlier run, whose files are deleted."},
    )


class RecipeArgumentParser(HfArgumentParser):
    """Show each flag once, and the training arguments in two groups, the method's first."""

    def __init__(self, types: Sequence[type], description: str, method: set[str]):
        self._method = method
        self._groups: dict[str, Any] = {}
        super().__init__(
            types,  # type: ignore[arg-type]  # dataclasses
            prog=name_of_recipe(),
            usage="%(prog)s [flags]",
            description=_as_typed(description),
            epilog="--debug shows the traceback of an error.",
            formatter_class=_HelpFormatter,
            add_help=False,
        )
        shown = self.add_argument_group("help")
        shown.add_argument("-h", "--help", action="help", help="Show the flags that people use, and exit.")
        shown.add_argument("--help_all", action="help", help="Show all flags, and exit.")

    def add_argument(self, *names: Any, **kwargs: Any) -> Any:
        name = names[0].lstrip("-")
        for title in (_METHOD, _TRAINING):
            if title not in self._groups:
                self._groups[title] = self.add_argument_group(title)
        return self._groups[_METHOD if name in self._method else _TRAINING].add_argument(*names, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Exit with one line, on one process only."""
        if os.environ.get("RANK", "0") == "0":
            print(f"{self.prog}: error: {message}", file=sys.stderr)
        sys.exit(2)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show defaults behind each flag, one spelling of it, and the recipe's own text with its commands as written."""

    def add_argument(self, action: argparse.Action) -> None:
        if not action.option_strings or not action.option_strings[0].startswith("--no_"):
            super().add_argument(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = ", ".join(name for name in action.option_strings if "-" not in name.lstrip("-"))
        if action.nargs == 0:
            return names
        if isinstance(action.default, bool):
            return f"{names} true|false"
        kind = "INT" if action.type is int else "FLOAT" if action.type is float else "TEXT"
        return f"{names} {self._format_args(action, kind)}"

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help if action.default is None else super()._get_help_string(action)
        return text and re.sub(r"(?<!%)%(?![%(])", "%%", text)  # 25 % is no format


def name_of_recipe() -> str:
    """Return how a recipe is called in its messages: by its file, or the command that runs it."""
    return os.environ.get(TYPED_AS) or Path(sys.argv[0]).name


def _as_typed(description: str) -> str:
    """Let the commands of a recipe's own text be those of the command that runs it."""
    typed = os.environ.get(TYPED_AS)
    return re.sub(r"accelerate launch (--quiet )?recipes/\w+\.py", typed, description) if typed else description


def parse_recipe_arguments(
    dataclass_types: Sequence[type],
    defaults: Defaults,
    description: str,
    argv: Sequence[str] | None = None,
) -> tuple[Any, ...]:
    """Parse a recipe's flags. Later ones win: a field's default, `defaults`, the YAML file of `--config`, flags.

    Args:
        dataclass_types: one group of flags each (`_argument_group_name` names it). `RelearnTrainingArguments` follow.
        defaults: values that depend on flags given, such as a preset's; it sees the parsed flags and YAML values.
        description: shown by `--help`.
        argv: the flags; None takes those of the process.

    Returns:
        One object of each type, the `RelearnTrainingArguments`, and the `RecipeFlags`.

    Raises:
        SystemExit: for an unknown flag or YAML key, or a value that does not fit, after one line on stderr.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    quick = not {"-h", "--help"}.isdisjoint(argv)
    settings = (RelearnSettings, BalancingSettings, ParameterSettings, TargetSettings)
    method = {item.name for kind in (RelearnSettings, BalancingSettings) for item in dataclasses.fields(kind)}
    if quick:
        types = [*dataclass_types, *settings, CommonTrainingArguments, RecipeFlags]
    else:
        from hf_relearn.training.arguments import RelearnTrainingArguments

        types = [*dataclass_types, RelearnTrainingArguments, RecipeFlags]
    parser = RecipeArgumentParser(types, description, method)
    known = {action.dest for action in parser._actions} - {"help", "help_all", "config"}
    values = _read_yaml(_flag_value(argv, "config"), None if quick else known, parser)
    parser.set_defaults(**values)
    parser.set_defaults(**{**defaults(_chosen(parser, argv)), **values})
    try:
        namespace, unknown = parser.parse_known_args(argv)
        if unknown:
            flags = [word for word in unknown if word.startswith("-")]
            parser.error("; ".join(_unknown(word, known) for word in flags) or f"{unknown[0]!r} belongs to no flag")
        return tuple(
            dtype(**{item.name: getattr(namespace, item.name) for item in dataclasses.fields(dtype) if item.init})
            for dtype in types
        )
    except ValueError as error:
        parser.error(" ".join(str(error).split()))


def _chosen(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse the flags so far, for `--help` too and if a required flag is missing."""
    required = [action for action in parser._actions if action.required]
    for action in required:
        action.required = False
    namespace, _ = parser.parse_known_args([flag for flag in argv if flag not in ("-h", "--help", "--help_all")])
    for action in required:
        action.required = True
    return namespace


def _flag_value(argv: Sequence[str], name: str) -> str | None:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument(f"--{name}")
    return getattr(finder.parse_known_args(argv)[0], name)


def _read_yaml(path: str | None, known: set[str] | None, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Read the values of a YAML file, whose keys are checked if `known` is given."""
    if path is None:
        return {}
    if not Path(path).is_file():
        parser.error(f"--config {path}: no such file")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        parser.error(f"--config {path} is not valid YAML: {' '.join(str(error).split())}")
    if not isinstance(values, dict):
        parser.error(f"--config {path} holds a {type(values).__name__}: it needs lines of the form 'flag: value'")
    for key in values:
        if known is not None and key not in known:
            parser.error(f"--config {path}: {_unknown(str(key), known)}")
    return values


def _unknown(word: str, known: set[str]) -> str:
    """Describe a flag or key that does not exist, with the one to use instead."""
    name = word.lstrip("-").partition("=")[0].replace("-", "_")
    flag = word.startswith("-")
    if name in REPLACED:
        return f"there is no {'--' + name if flag else repr(name)} any more: use {REPLACED[name]}"
    close = difflib.get_close_matches(name, known, n=1)
    found = f"unknown flag {word}" if flag else f"unknown key {word!r}"
    return found + (f"; did you mean {'--' + close[0] if flag else repr(close[0])}?" if close else "")
