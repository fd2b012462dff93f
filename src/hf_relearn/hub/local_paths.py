"""Keeping what only this machine knows, its folders and its user's tokens, out of what is shared."""

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

# Not inside a word, an URL or a relative path; two letters at least, so that "12 samples /s" stays.
_POSIX_PATH = re.compile(
    r"(?<![\w.:/~\\…+<])(?:~|file://)?(?:/(?:[^\s/'\"`,;()\[\]{}<>|]+/)+[^\s/'\"`,;()\[\]{}<>|]*|/[\w.-]{2,})"
)
_WINDOWS_PATH = re.compile(
    r"(?<!\w)(?:[A-Za-z]:[\\/]|\\\\)(?:[^\s\\/'\"`,;()\[\]{}<>|]+[\\/])*[^\s\\/'\"`,;()\[\]{}<>|]*"
)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
# Settings that say where something was read from or written to; a local folder's name says enough.
_PATH_SETTINGS = ("name_or_path", "_file", "_dir", "_folder", "_path")


def without_local_paths(value: Any) -> str:
    """A value as text in which every absolute path is cut down to its last component after `…/`.

    Hub ids, relative paths and URLs stay as they are.

    Args:
        value: Any value; strings and paths that are one absolute path as a whole are recognised even with blanks.

    Returns:
        The text, which tells nothing of the machine's folders or its user.
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {without_local_paths(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        return "[" + ", ".join(without_local_paths(item) for item in value) + "]"
    text = str(value)
    if isinstance(value, PurePath) or "\n" not in text:
        if PurePosixPath(text).is_absolute() or text.startswith("~/"):
            return _last_component(PurePosixPath(text).name)
        if PureWindowsPath(text).is_absolute():
            return _last_component(PureWindowsPath(text).name)
    text = _WINDOWS_PATH.sub(lambda match: _last_component(PureWindowsPath(match[0]).name), text)
    return _POSIX_PATH.sub(lambda match: _last_component(PurePosixPath(match[0]).name), text)


def _last_component(name: str) -> str:
    return f"…/{name}" if name else "…"


def local_roots(*folders: str | os.PathLike) -> tuple[str, ...]:
    """Folders below which nothing is anybody else's business: those given, the working, home and temporary ones."""
    found = []
    for folder in (*folders, Path.cwd(), Path.home(), tempfile.gettempdir()):
        found += [os.path.abspath(folder), os.path.realpath(folder)]
    return tuple(sorted({root for root in found if len(Path(root).parts) > 1}, key=len, reverse=True))


def scrub_text(text: str, roots: Sequence[str]) -> str:
    """A text in which paths below the roots are cut down to their last component after `…/`, and tokens are gone."""
    for root in roots:
        below = rf"(?<![\w.~-]){re.escape(root)}(?![\w.-])(/[^\s'\"`,;()\[\]{{}}<>|]*)?"
        text = re.sub(below, lambda match: _last_component(PurePosixPath(match[1] or "").name), text)
    return _TOKEN.sub("<token>", text)


def scrub_json(value: Any, roots: Sequence[str], key: str = "") -> Any:
    """A JSON value without local paths and tokens.

    Strings that are paths as a whole are cut down to their last component where they exist here, lie below a root, or
    belong to a setting that holds a path. Others, such as a class named `/m/0dgw9r`, stay.

    Args:
        value: of `json.loads`.
        roots: of `local_roots`.
        key: name of the setting that holds the value.
    """
    if isinstance(value, dict):
        return {name: scrub_json(item, roots, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [scrub_json(item, roots, key) for item in value]
    if not isinstance(value, str):
        return value
    if value in roots:
        return "…"
    is_path = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute() or value.startswith("~/")
    if is_path and (key.endswith(_PATH_SETTINGS) or os.path.lexists(os.path.expanduser(value))):
        return without_local_paths(value)
    return scrub_text(value, roots)
