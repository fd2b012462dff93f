"""Write files so that they appear whole or not at all."""

import json
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

# Seconds in which the workers of a killed process, which inherit its lock, end by themselves.
_PATIENCE = 30
# Names that `whole_path` and safetensors write under.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp|\.tmp[A-Za-z0-9]{6}")


@contextmanager
def whole_path(path: Path, *, durable: bool = True, named: Callable[[], str] | None = None) -> Iterator[Path]:
    """Give a temporary path to write to; the file gets its name when it is complete, or else is deleted.

    Args:
        path: of the file; a missing folder is created.
        durable: wait until the content is on the disk.
        named: gives the name in place of the path's, if it depends on the content.

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
        os.replace(temporary, path.with_name(named()) if named else path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error  # a full disk names no file
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files in a folder whose writers were killed: those of `whole_path`, and of safetensors."""
    for path in folder.glob(".*"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


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


def write_whole_text(path: Path, text: str) -> None:
    """Write a small text file that appears whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8"))


class FolderLock:
    """Keep a folder for one process at a time.

    The operating system gives the lock up when the process ends, however it ends. The file says who holds it.

    Args:
        folder: created if it is missing.
        name: of the lock file in it.
        alone: whether its holder shares it with nothing else in this process.
    """

    held: "dict[Path, FolderLock]" = {}  # by this process

    def __init__(self, folder: Path, name: str, *, alone: bool = False):
        self.alone = alone
        self.path = folder.absolute() / name
        self._lock = FileLock(self.path, thread_local=False)

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            RuntimeError: another process (or another object of this one) holds it; names process and start time.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            holder = self._holder()
            try:
                self._lock.acquire(timeout=_PATIENCE if _is_gone(holder) else 0)
            except Timeout:
                who = "process {process} on {host} since {started}".format_map(holder) if holder else "another process"
                raise RuntimeError(
                    f"{self.path.parent} is in use by {who}: a folder holds one run at a time. Give this run another "
                    "folder, or wait until that one has ended"
                ) from None
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        holder = {"process": os.getpid(), "host": socket.gethostname(), "started": started}
        self.path.write_text(json.dumps(holder) + "\n", encoding="utf-8")
        FolderLock.held[self.path] = self

    def release(self) -> None:
        """Give the lock up, if it is held."""
        if FolderLock.held.pop(self.path, None) is not None:
            self.path.unlink(missing_ok=True)  # the folder may be gone
            self._lock.release()

    def _holder(self) -> dict[str, Any]:
        with suppress(OSError, ValueError, TypeError):
            found = json.loads(self.path.read_text(encoding="utf-8"))
            return {name: found[name] for name in ("process", "host", "started") if name in found}
        return {}


def _is_gone(holder: dict[str, Any]) -> bool:
    """Check whether the process that holds a lock was one of this machine and has ended."""
    if holder.get("host") != socket.gethostname() or not isinstance(holder.get("process"), int):
        return False
    try:
        os.kill(holder["process"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def write_files(output_dir: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder: all of them to temporary names first, then each put in its place at once.

    Args:
        output_dir: Folder, created if it is missing.
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
    """Return a name as part of a file name: everything but letters, digits, `.`, `_` and `-` becomes `_`."""
    return re.sub(r"[^\w.-]+", "_", name)
