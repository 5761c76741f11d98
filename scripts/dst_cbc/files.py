"""Writing files whole or not at all, and the digests that say whether they are the same."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class DataError(ValueError):
    """A file that is missing, damaged or not what it must be; the message names it."""


class Unusable(RuntimeError):
    """Numbers that are none: repeating the same work would fail again."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, renamed to `path` when the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two writers apart; the dot keeps the half-written file out of listings.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `rows` under `header`; floats in full precision, None as an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_csv(path: Path, header: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that must have at least the columns of `header`."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in header if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(
                f"{path}: no column {missing[0]!r}; found {reader.fieldnames}, "
                f"expected {list(header)}; delete the file and run the workflow again"
            )
        return list(reader)


def read_ids(path: Path) -> list[str]:
    """The ids of a list, one a line."""
    # Not splitlines: an id may hold what Unicode counts as the end of a line.
    return [id for id in Path(path).read_text(encoding="utf-8").split("\n") if id]


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(parts: Iterable[str]) -> str:
    """SHA-256 of texts in order; ("ab", "c") and ("a", "bc") differ."""
    return sha256(json.dumps(list(parts)).encode())
