"""Writing a report's files so that none is ever half-written."""

import os
import re
from collections.abc import Mapping
from pathlib import Path


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
