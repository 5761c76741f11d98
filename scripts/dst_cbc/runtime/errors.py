"""The errors that end a stage with a message instead of a traceback."""

import errno
import os
import shutil
from pathlib import Path


class DataError(ValueError):
    """A file or setting is missing, damaged or invalid; the message names the file or key."""


class Changed(RuntimeError):
    """A file changed while it was used, so the result matches neither its old nor new content."""


class Unusable(RuntimeError):
    """NaN or infinite values, or too little device memory; retrying cannot help."""


class NoSpace(OSError):
    """The disk is full; the message names the file and says what to delete."""


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
