"""Damage that neither the size nor the time of a file shows, and rows that would notice it."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from dst_cbc.data.index import Row
from dst_cbc.runtime.files import sha256_file


def flip(path: Path) -> None:
    """Flip the last bit of a file, and keep its time."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def checked(root: Path, rows: Iterable[Row]) -> list[Row]:
    """The rows with the SHA-256 that their files have now."""
    return [
        replace(
            row,
            image_sha256=sha256_file(root / row.image),
            label_sha256=sha256_file(root / row.label) if row.label else "",
        )
        for row in rows
    ]
