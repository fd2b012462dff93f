"""Read values of flags of the form `NAME=VALUE`."""

from collections.abc import Collection, Sequence


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
