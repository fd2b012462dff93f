"""Values of the form `NAME=VALUE`, and the error of a command that was called wrongly."""

import argparse
from collections.abc import Collection, Sequence


class UsageError(ValueError):
    """The command was called wrongly, which shows only once the model is known."""


def named_value(text: str) -> tuple[str, str]:
    """Read `NAME=VALUE`, as the type of an argument."""
    name, equals, value = text.partition("=")
    if not name or not equals or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value


def positive(text: str) -> int:
    """Read a whole number of at least 1, as the type of an argument."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return value


def fraction(text: str) -> float:
    """Read a number between 0 and 1, as the type of an argument."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number between 0 and 1")
    return value


def by_name(pairs: Sequence[tuple[str, str]], known: Collection[str], what: str) -> dict[str, str]:
    """Pairs as a mapping.

    Raises:
        UsageError: for a name that is unknown or there twice.
    """
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise UsageError(f"{what} names {name!r}, but the model's modalities are {', '.join(known)}")
        if name in found:
            raise UsageError(f"{what} names {name!r} twice")
        found[name] = value
    return found
