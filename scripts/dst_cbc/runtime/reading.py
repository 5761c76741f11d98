"""Read the text and the JSON of files, with checks of size, encoding and types."""

import functools
import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from . import checksums
from .errors import FULL, Changed, DataError, NoSpace, Unusable
from .escape import shown
from .files import is_full, open_regular
from .paths import require_relative

MOST_TEXT = 1 << 30
"""Largest size in bytes of a text file that is read whole: the ids of some ten million images."""


def read_bytes(path: str | Path, most_bytes: int = MOST_TEXT) -> bytes:
    """The content of a regular file. Raises DataError if it is larger than `most_bytes`.

    Hardly more than that is read, whatever size the file claims to have. Raises what `open_regular`
    raises, too.
    """
    content = io.BytesIO()
    with open_regular(path) as file:
        try:
            # In pieces, because `read(n)` reserves n bytes for the smallest file.
            while content.tell() <= most_bytes and (piece := file.read(1 << 20)):
                content.write(piece)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if content.tell() > most_bytes:
        raise DataError(
            f"{path}: larger than {most_bytes:,} bytes, the most that is read of such a file"
        )
    return content.getvalue()


def read_text(path: str | Path, most_bytes: int = MOST_TEXT) -> str:
    """The text of a regular file in UTF-8, line ends as `\\n`. Raises DataError as `read_bytes`.

    Raises DataError, too, if the file is not UTF-8, or has changed since a job made it.
    """
    checksums.check(path)
    try:
        # Some editors write a byte order mark.
        text = read_bytes(path, most_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start + 1} is not UTF-8 text; save the file as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


@contextmanager
def explained(
    path: Path | str, what: str, advice: str, target: Path | None = None
) -> Iterator[None]:
    """Turn every error that a library raises over the bytes of `path` into a DataError.

    what: what the file should be, such as "a histogram"; advice: what to do; target: a folder that
    the bytes are copied to. Errors of this package, a missing file, a lack of permission and a full
    disk keep their own messages.
    """
    try:
        yield
    except (DataError, FileNotFoundError, PermissionError, NoSpace, Changed, Unusable):
        raise
    # Over damaged bytes, libraries raise errors of any class: RuntimeError, TypeError, struct.error
    except Exception as error:
        if (isinstance(error, OSError) and error.errno in FULL) or (
            target is not None and is_full(error, target)
        ):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: not readable as {what} ({reason}); {advice}") from error


def read_json(path: Path, kind: Any = dict[str, Any]) -> Any:
    """The content of a JSON file, as a value of the type `kind`.

    kind: a type that pydantic knows; keys that a TypedDict does not name are left out. Raises
    DataError when the file is damaged, has a number that is not finite or a value of another type.
    """
    text = read_text(path)
    advice = f"delete it; if the workflow made it, `snakemake {path}` makes it again"
    with explained(path, "JSON", advice):
        value = json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "its content"
        raise DataError(
            f"{path}: {place}: found {shown(fault['input'])}; {fault['msg']}; {advice}"
        ) from None


@functools.cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return number


def _whole(text: str) -> int:
    number = int(text)
    if abs(number) >= 1 << 63:
        raise ValueError(f"{text[:20]}... has more than 63 bits")
    return number


def read_ids(path: Path) -> list[str]:
    """The ids in a file with one id per line. Raises DataError for one that leads elsewhere."""
    # Not splitlines: an id may contain a character that Unicode counts as a line end.
    return [require_relative(id, path) for id in read_text(path).split("\n") if id]
