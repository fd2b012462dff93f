"""Write files so that they appear whole or not at all."""

import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path to write to; the file gets its name when it is complete, or else is deleted.

    Args:
        path: of the file; a missing folder is created.
        durable: wait until the content is on the disk.

    Raises:
        OSError: if it cannot be written; the error names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        give_default_mode(temporary)
        if durable:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error  # a full disk names no file
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write to, which appears under its name when it is complete and on the disk, or else never.

    Raises:
        OSError: if it cannot be written; the error names the file.
    """
    with whole_path(path) as temporary, open(temporary, "xb") as file:
        yield file


def give_default_mode(path: Path) -> None:
    """Give a file the mode that new files have (the umask says which); safetensors makes it 0600."""
    mask = os.umask(0o077)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


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
