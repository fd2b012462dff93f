"""Read the values of flags that name several things, also as `NAME=VALUE`."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

_BETWEEN = re.compile(r"[\s,]+(?![^{]*\})")  # not the comma of a regular expression's {1,2}


def as_words(values: Any) -> list[str] | None:
    """Bring a setting into the form that its flag has on the command line.

    Args:
        values: a string with commas or spaces between words, a sequence, or a mapping. A mapping gives `name=value`,
            or the names alone whose value is True.

    Returns:
        The words, or None for nothing.
    """
    if values is None:
        return None
    if isinstance(values, str):
        return [word for word in _BETWEEN.split(values) if word]
    if isinstance(values, Mapping):
        values = [
            str(name) if value is True else f"{name}={value}" for name, value in values.items() if value is not False
        ]
    return [str(value) for value in (values if isinstance(values, (list, tuple, set)) else [values])]


def read_pairs(flag: str, values: Sequence[str] | None, names: Collection[str] | None = None) -> dict[str, str]:
    """Read the values of a flag that takes `NAME=VALUE ...`.

    Args:
        flag: its name, for messages.
        names: the modalities that may be named; None allows any name.

    Raises:
        ValueError: for a value without `=`, a name that is given twice, or one that is not among `names`.
    """
    pairs: dict[str, str] = {}
    for value in values or ():
        name, equals, text = (part.strip() for part in value.partition("="))
        if not name or not equals or not text:
            raise ValueError(f"{flag} takes NAME=VALUE, but got {value!r}")
        if name in pairs:
            raise ValueError(f"{flag} names {name!r} twice")
        if names is not None and name not in names:
            raise ValueError(f"{flag} names {name!r}, but the modalities are {', '.join(names)}")
        pairs[name] = text
    return pairs
