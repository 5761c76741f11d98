"""Finds damage in the global heaps of an HDF5 file over which the HDF5 library would never return.

A global heap holds the texts of any length in a file. HDF5 2.0 walks through its objects by their
sizes, and stays for ever at free space of size 0.
"""

import mmap
from functools import lru_cache
from pathlib import Path

from ..runtime.errors import DataError
from ..runtime.files import open_regular

_SIGNATURE, _HEADER = b"GCOL", 16


def require_sound(path: Path) -> None:
    """Raise DataError if a global heap of the file has free space of size 0."""
    status = path.stat()
    _require_sound(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _require_sound(path: Path, size: int, written: int) -> None:
    # Cached for one content, because predictions are read in many pieces.
    with (
        open_regular(path) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        place = content.find(_SIGNATURE)
        while place >= 0:
            if _is_endless(content, place):
                raise DataError(
                    f"{path}: not readable as HDF5: damaged at byte {place}; delete the file to "
                    "make it again"
                )
            place = content.find(_SIGNATURE, place + 1)


def _is_endless(content: mmap.mmap, place: int) -> bool:
    """Whether the heap at `place` has an object of index 0, free space, without a size."""
    end = min(len(content), place + _number(content, place + 8))
    place += _HEADER
    while place + _HEADER <= end:
        size = _number(content, place + 8)
        if content[place : place + 2] == b"\0\0":
            return size == 0
        # The data of an object fill whole pieces of eight bytes.
        place += _HEADER + -(-size // 8) * 8
    return False


def _number(content: mmap.mmap, place: int) -> int:
    return int.from_bytes(content[place : place + 8], "little")
