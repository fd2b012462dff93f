"""Keep a machine's folders and its user's tokens out of shared files."""

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
# Settings that say where something was read from or written to; a local folder's name says enough.
_PATH_SETTINGS = ("name_or_path", "_file", "_dir", "_folder", "_path", "_checkpoint")


def _last_component(path: str) -> str:
    name = re.split(r"[\\/]", path.rstrip("\\/"))[-1]
    return f"…/{name}" if name else "…"


def local_roots(*folders: str | os.PathLike) -> tuple[str, ...]:
    """List the folders whose paths are private: those given, the working, the home and the temporary one."""
    found = []
    for folder in (*folders, Path.cwd(), Path.home(), tempfile.gettempdir()):
        found += [os.path.abspath(folder), os.path.realpath(folder)]
    return tuple(sorted({root for root in found if len(Path(root).parts) > 1}, key=len, reverse=True))


def scrub_text(text: str, roots: Sequence[str]) -> str:
    """Cut paths below the roots down to their last component after `…/`, and take tokens out.

    Other texts that look like a path, such as a class named `/m/0dgw9r`, stay.
    """
    for root in roots:
        below = rf"(?<![\w.~-]){re.escape(root)}(?![\w.-])([\\/][^\s'\"`,;()\[\]{{}}<>|]*)?"
        text = re.sub(below, lambda match: _last_component(match[1] or ""), text)
    return _TOKEN.sub("<token>", text)


def scrub_files(contents: Mapping[str, bytes], roots: Sequence[str]) -> dict[str, bytes]:
    """Scrub the Markdown and JSON files among those that are about to be written, by name -> content."""
    return {
        name: scrub_text(content.decode(), roots).encode() if name.endswith((".md", ".json")) else content
        for name, content in contents.items()
    }


def scrub_json(value: Any, roots: Sequence[str], key: str = "") -> Any:
    """Take local paths and tokens out of a JSON value; anything that JSON does not know becomes text.

    Strings that are paths as a whole are cut down to their last component if they exist here, lie below a root, or
    belong to a setting that holds a path. Others, such as a class named `/m/0dgw9r`, stay.

    Args:
        roots: of `local_roots`.
        key: name of the setting that holds the value.
    """
    if isinstance(value, Mapping):
        return {str(name): scrub_json(item, roots, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub_json(item, roots, key) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    value = str(value)
    if value in roots:
        return "…"
    is_path = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute() or value.startswith("~/")
    if is_path and (key.endswith(_PATH_SETTINGS) or os.path.lexists(os.path.expanduser(value))):
        return _last_component(value)
    return scrub_text(value, roots)
