"""Write files atomically, open regular files only, and compute digests of contents."""

import functools
import hashlib
import io
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import FULL, DataError, NoSpace, no_space, shared_memory_is_full
from .paths import make_folder

written: set[Path] = set()
"""The files that this process has written."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` if the block succeeds.

    Raises NoSpace when the disk is full, whatever exception the writing library raised. Raises
    DataError as `make_folder` does.
    """
    path = Path(path)
    make_folder(path.parent)
    sweep(path.parent)
    temporary = temporary_name(path)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        written.add(path)
    except (OSError, RuntimeError) as error:
        if not is_full(error, path.parent):
            raise
        raise NoSpace(no_space(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def hard_link(source: Path, path: Path) -> None:
    """Make `path` a second name of the file `source`. Raises DataError as `make_folder` does."""
    make_folder(path.parent)
    path.unlink(missing_ok=True)
    os.link(source, path)


def temporary_name(path: Path) -> Path:
    """The hidden file that becomes `path` after it is written; `sweep` recognizes the name.

    The folder of `path` must exist. A name that would be too long for its disk is replaced by a
    digest, so that every name that `path` may have can be written.
    """
    # The host and the process id keep two writers apart.
    end = f".{socket.gethostname()}.{os.getpid()}.tmp"
    name = f".{path.name}{end}"
    if len(os.fsencode(name)) > os.pathconf(path.parent, "PC_NAME_MAX"):
        name = f".{sha256(os.fsencode(path.name))[:16]}{end}"
    return path.with_name(name)


@functools.cache
def sweep(folder: Path) -> None:
    """Remove half-written files that killed processes left in `folder`, once per process."""
    for half in folder.glob(".*.tmp"):
        pid = half.name.split(".")[-2]
        # Other programs have other names for their temporary files.
        if not pid.isdecimal() or not half.is_file():
            continue
        if half.name.endswith(f".{socket.gethostname()}.{pid}.tmp"):
            abandoned = not is_alive(int(pid))
        else:
            abandoned = age(half) > _ABANDONED
        if abandoned:
            half.unlink(missing_ok=True)


def age(path: Path) -> float:
    """Seconds since a file was created, written or touched; 0 if it does not exist."""
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


_ABANDONED = 24 * 3600.0
"""Seconds after which a half-written file of another machine counts as abandoned."""


def is_alive(pid: int) -> bool:
    """Whether a process with this id is running on this machine."""
    import psutil  # imported late: rarely needed, and it takes 40 ms of the start-up

    # A process that ended stays listed as a zombie until its parent waits for it. The first process
    # of many containers never does.
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # the process of another user
        return True


def is_full(error: Exception, folder: Path) -> bool:
    """Whether an error of any library means that the disk of `folder` is full."""
    if isinstance(error, OSError) and error.errno in FULL:
        return not shared_memory_is_full(error)
    # HDF5 and torch raise errors of their own when the disk is full.
    return shutil.disk_usage(folder).free < 1 << 16


def open_regular(path: str | Path) -> io.BufferedReader:
    """Open a regular file to read its bytes; reading a pipe or a device may never end.

    Raises DataError for everything else that has a name: a folder, a pipe, a socket, a device, a
    circle of links. Raises FileNotFoundError and PermissionError as `open` does.
    """
    try:
        # O_NONBLOCK: to open a pipe would else wait for a program that writes to it.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, ValueError) as error:  # ValueError: a name with NUL, or one that is no text
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be opened ({reason}); give a regular file") from None
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode):
        return open(file, "rb")
    os.close(file)
    found = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
    raise DataError(f"{path}: found {found}, expected a regular file")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `path` atomically; leave it untouched when it already holds `content`."""
    path = Path(path)
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `path` atomically as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys. Raises ValueError for NaN (use None)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(parts: Iterable[str]) -> str:
    """SHA-256 of a sequence of texts; ("ab", "c") and ("a", "bc") have different digests."""
    return sha256(json.dumps(list(parts)).encode())
