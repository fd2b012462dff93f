"""Writing a report's files so that none is ever half-written, and keeping local paths out of their text."""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

# Not inside a word, an URL or a relative path; two letters at least, so that "12 samples /s" stays.
_POSIX_PATH = re.compile(
    r"(?<![\w.:/~\\…+<])(?:~|file://)?(?:/(?:[^\s/'\"`,;()\[\]{}<>|]+/)+[^\s/'\"`,;()\[\]{}<>|]*|/[\w.-]{2,})"
)
_WINDOWS_PATH = re.compile(
    r"(?<!\w)(?:[A-Za-z]:[\\/]|\\\\)(?:[^\s\\/'\"`,;()\[\]{}<>|]+[\\/])*[^\s\\/'\"`,;()\[\]{}<>|]*"
)


def write_files(output_dir: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder: all of them to temporary names first, then each put in its place at once.

    Args:
        output_dir: Folder, created where it is missing.
        contents: Path relative to the folder -> bytes; written in this order.

    Raises:
        OSError: A file cannot be written; the temporary files are removed, and no file is half-written.
    """
    staged: list[tuple[Path, Path]] = []
    try:
        for relative, content in contents.items():
            target = output_dir / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            staged.append((temporary, target))
            temporary.write_bytes(content)
        for temporary, target in staged:
            os.replace(temporary, target)
    finally:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)


def file_stem(name: str) -> str:
    """A name as part of a file name: everything but letters, digits, `.`, `_` and `-` becomes `_`."""
    return re.sub(r"[^\w.-]+", "_", name)


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
    return f"…/{name}"
