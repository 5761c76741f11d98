"""Writing files whole or not at all, and the digests that say whether they are the same."""

import csv
import errno
import functools
import hashlib
import io
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class DataError(ValueError):
    """A file that is missing, damaged or not what it must be; the message names it."""


class Changed(RuntimeError):
    """A file that changed while it was used: what came of it belongs to neither content."""


class Unusable(RuntimeError):
    """NaN or infinite values, or too little memory: retrying the same work cannot help."""


class NoSpace(OSError):
    """The disk is full; the message names the file and says what to delete."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, renamed to `path` when the block succeeds.

    Raises NoSpace when the disk is full, whatever the writing library has raised.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    temporary = temporary_name(path)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if not _is_full(error, path.parent):
            raise
        raise NoSpace(no_space(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """Where this process writes what shall be `path`; hidden, and `sweep` knows it."""
    # The process keeps two writers apart.
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


@functools.cache
def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written: once per process and folder."""
    for half in folder.glob(".*.tmp"):
        pid = half.name.split(".")[-2]
        if pid.isdecimal() and half.name.endswith(f".{socket.gethostname()}.{pid}.tmp"):
            abandoned = not is_alive(int(pid))
        else:
            abandoned = age(half) > _ABANDONED
        if abandoned:
            half.unlink(missing_ok=True)


def age(path: Path) -> float:
    """Seconds since a file was made, written or touched; 0 where it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


_ABANDONED = 24 * 3600.0
"""Seconds after which a half-written file of another machine is nobody's."""


def is_alive(pid: int) -> bool:
    """Whether this machine has a process of that number that has not ended."""
    import psutil  # seldom asked, and 40 ms of a start

    # A parent that never asks, as the first process of many containers, keeps the dead listed.
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # of another user
        return True


def _is_full(error: Exception, folder: Path) -> bool:
    if isinstance(error, OSError) and error.errno in FULL:
        return not shared_memory_is_full(error)
    # HDF5 and torch tell of a full disk in words of their own.
    return shutil.disk_usage(folder).free < 1 << 16


def shared_memory_is_full(error: OSError) -> bool:
    """Whether "no space left" was said of /dev/shm, through which processes hand over images."""
    full = os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free < 1 << 16
    return error.errno in FULL and error.filename is None and full


FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system calls a full disk, and a used-up quota."""


def no_space(path: Path | str) -> str:
    """What to do where `path` could not be written for want of space."""
    # A folder may be a disk of its own.
    free = shutil.disk_usage(path if Path(path).is_dir() else Path(path).parent).free
    return (
        f"{path}: no space left on its disk ({free / 1e6:.1f} MB free, or a quota is used up). "
        "Delete predictions.h5 of rounds (not of `supervised`) or other files, or set "
        "keep_predictions: supervised; then the same command goes on from here"
    )


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
    """Write `value` as indented JSON with sorted keys; NaN is refused (use None)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises DataError when it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{path}: not readable JSON ({error}); delete it, and what makes it runs again"
        ) from error


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `rows` under `header`; floats in full precision, None as an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_csv(path: Path, header: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that must have at least the columns of `header`, and all its cells."""
    return list(iterate_csv(path, header))


def iterate_csv(path: Path, header: Sequence[str]) -> Iterator[dict[str, str]]:
    """The rows of `read_csv` one by one, for files that have one an image."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in header if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(
                f"{path}: no column {missing[0]!r}; found {reader.fieldnames}, "
                f"expected {list(header)}; delete the file and run the workflow again"
            )
        for number, row in enumerate(reader, 2):
            if None in row.values() or None in row:
                raise DataError(
                    f"{path}, line {number}: not as many cells as the header; delete the damaged "
                    "file and run the workflow again, or repair the row that you edited"
                )
            yield row


def read_ids(path: Path) -> list[str]:
    """The ids of a list, one a line."""
    # Not splitlines: an id may hold what Unicode counts as the end of a line.
    return [id for id in Path(path).read_text(encoding="utf-8").split("\n") if id]


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(parts: Iterable[str]) -> str:
    """SHA-256 of texts in order; ("ab", "c") and ("a", "bc") differ."""
    return sha256(json.dumps(list(parts)).encode())
