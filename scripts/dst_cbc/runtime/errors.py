"""The errors that end a stage with a message instead of a traceback."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")


class DataError(ValueError):
    """A file or setting is missing, damaged or invalid; the message names the file or key."""


class Changed(RuntimeError):
    """A file of the data set is not the one that the data check read."""


class Spoiled(Changed):
    """Unfinished work may have used a file that has changed, so the work is removed."""


class Unusable(RuntimeError):
    """NaN or infinite values, or too little device memory; retrying cannot help."""


class NoSpace(OSError):
    """The disk is full; the message names the file and says what to delete."""


def loaded(loader: Iterable[Item]) -> Iterator[Item]:
    """Yield the items of a torch DataLoader, and end its processes if one of them fails.

    A DataError or Changed has its own message, without the traceback that torch puts before it.
    """
    try:
        yield from loader
    except Exception as error:
        kind = type(error)
        _, mark, message = str(error).rpartition(f"\n{kind.__module__}.{kind.__name__}: ")
        ours = isinstance(error, (Changed, DataError)) and mark
        # The traceback holds the loader, whose processes would keep this process from ending.
        error.__traceback__ = None
        raise (kind(message.rstrip()) if ours else error) from None


def shared_memory_is_full(error: OSError) -> bool:
    """Whether `error` means that /dev/shm is full, through which processes exchange images."""
    full = os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free < 1 << 16
    return error.errno in FULL and error.filename is None and full


FULL = (errno.ENOSPC, errno.EDQUOT)
"""The error numbers of a full disk and of a used-up quota."""


def no_space(path: Path | str) -> str:
    """The message for a `path` that could not be written because its disk is full."""
    # A folder may be a mount point.
    free = shutil.disk_usage(path if Path(path).is_dir() else Path(path).parent).free
    return (
        f"{path}: no space left on its disk ({free / 1e6:.1f} MB free, or a quota is used up). "
        "Delete predictions.h5 of rounds (not of `supervised`) or other files, or set "
        "keep_predictions: supervised; then run the same command again to continue"
    )


def first_of(names: Sequence[str], most: int, rest: str = "more") -> str:
    """The first names, at most so many, with commas between them, and the number of the others."""
    more = f" and {len(names) - most} {rest}" if len(names) > most else ""
    return ", ".join(names[:most]) + more


NAMED = 20
"""Most files that are named with a cause that they share."""


def by_cause(problems: Sequence[str]) -> str:
    """Lines that list problems, each `file: cause`; a cause of several files stands once."""
    files: dict[str, list[str]] = {}
    for problem in problems:
        file, _, cause = problem.partition(": ")
        files.setdefault(cause, []).append(file)
    lines = []
    for cause, names in files.items():
        if len(names) < 3 or not cause:
            lines += [f"{name}: {cause}" if cause else name for name in names]
            continue
        more = [f"  and {len(names) - NAMED} more"] if len(names) > NAMED else []
        lines += [f"{len(names)} files: {cause}", *(f"  {name}" for name in names[:NAMED]), *more]
    return "\n".join(lines)
