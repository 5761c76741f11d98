"""Write files atomically, read them with checks, and compute digests of their contents."""

import csv
import errno
import functools
import hashlib
import io
import json
import math
import os
import re
import shutil
import site
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from . import escape

T = TypeVar("T")


class DataError(ValueError):
    """A file or setting is missing, damaged or invalid; the message names the file or key."""


class Changed(RuntimeError):
    """A file changed while it was used, so the result matches neither its old nor new content."""


class Unusable(RuntimeError):
    """NaN or infinite values, or too little device memory; retrying cannot help."""


class NoSpace(OSError):
    """The disk is full; the message names the file and says what to delete."""


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
    except (OSError, RuntimeError) as error:
        if not _is_full(error, path.parent):
            raise
        raise NoSpace(no_space(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def hard_link(source: Path, path: Path) -> None:
    """Make `path` a second name of the file `source`. Raises DataError as `make_folder` does."""
    make_folder(path.parent)
    path.unlink(missing_ok=True)
    os.link(source, path)


def make_folder(folder: Path) -> None:
    """Make a folder to write into, and those above it.

    Raises DataError where a symbolic link leads out of the first folder of a relative path, such as
    `results`. That folder itself may be a link, to another disk.
    """
    if folder.parts and folder.parts[0] not in ("/", ".."):
        _require_inside(folder, Path(folder.parts[0]))
    folder.mkdir(parents=True, exist_ok=True)


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
        if pid.isdecimal() and half.name.endswith(f".{socket.gethostname()}.{pid}.tmp"):
            abandoned = not is_alive(int(pid))
        else:
            abandoned = age(half) > _ABANDONED
        if abandoned:
            half.unlink(missing_ok=True)


def age(path: Path) -> float:
    """Seconds since a file was created, written or touched; 0 if it does not exist."""
    try:
        return time.time() - path.stat().st_mtime
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


def _is_full(error: Exception, folder: Path) -> bool:
    if isinstance(error, OSError) and error.errno in FULL:
        return not shared_memory_is_full(error)
    # HDF5 and torch raise errors of their own when the disk is full.
    return shutil.disk_usage(folder).free < 1 << 16


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


MOST_TEXT = 1 << 30
"""Largest size in bytes of a text file that is read whole: the ids of some ten million images."""


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

    Raises DataError, too, if the file is not UTF-8.
    """
    try:
        # Some editors write a byte order mark.
        text = read_bytes(path, most_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start + 1} is not UTF-8 text; save the file as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def package_folder(name: str) -> Path | None:
    """The folder of an installed Python package; None if there is none of that name.

    Nothing is imported, so no code runs. The current folder and PYTHONPATH are not searched.
    """
    if not name.isidentifier():
        return None
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    found = (Path(packages, name) for packages in [*user, *site.getsitepackages()])
    return next((folder for folder in found if (folder / "__init__.py").is_file()), None)


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
            target is not None and _is_full(error, target)
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
            f"{path}: {place}: found {_shortened(fault['input'])}; {fault['msg']}; {advice}"
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


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `rows` under `header`; floats in full precision, None as an empty cell.

    A text that a spreadsheet program would run as a formula is escaped; `read_csv` undoes it.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: escape.csv(cell) for key, cell in row.items()} for row in rows)
    write_text(path, text.getvalue())


def whole(text: str) -> int:
    """A whole number from 0 on, in a cell of a CSV file. Raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ValueError("expected a whole number from 0 on")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1 on, in a cell of a CSV file. Raises ValueError."""
    if not (number := whole(text)):
        raise ValueError("expected a whole number from 1 on")
    return number


def real(text: str) -> float:
    """A finite number in a cell of a CSV file. Raises ValueError."""
    if not re.fullmatch(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?", text):
        raise ValueError("expected a number, such as 0.5")
    if math.isinf(number := float(text)):
        raise ValueError("expected a finite number")
    return number


def optional(convert: Callable[[str], T]) -> Callable[[str], T | None]:
    """A converter of cells that may be empty, which become None."""
    return lambda text: convert(text) if text else None


MOST_LINE = 1 << 20
"""Most characters in a line of a CSV file."""


def read_csv(
    path: Path, columns: Sequence[str] | Mapping[str, Callable[[str], Any]]
) -> list[dict[str, Any]]:
    """The rows of a CSV file, in UTF-8 with or without a byte order mark: {column: cell}.

    columns: names of columns that must be there, perhaps with a converter for their cells, such as
    `whole`. Other columns are read as text. Raises DataError, with the line, when a column or a
    cell is missing, a converter raises ValueError, or the file is damaged.
    """
    return list(iterate_csv(path, columns))


def iterate_csv(
    path: Path, columns: Sequence[str] | Mapping[str, Callable[[str], Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `read_csv` one by one, for files with one row per image."""
    # utf-8-sig: spreadsheets write a byte order mark.
    with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(_lines(file), strict=True)
        header = _next(path, reader) or []
        absent = [name for name in columns if name not in header]
        if absent or len(set(header)) < len(header):
            problem = f"no column {absent[0]!r}" if absent else "a column occurs twice"
            raise DataError(
                f"{path}: {problem}; found {_shortened(header)}, expected {list(columns)}, divided "
                "by commas; delete the file and run the workflow again"
            )
        converters = columns if isinstance(columns, Mapping) else {}
        while (cells := _next(path, reader)) is not None:
            if not cells:  # a blank line
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: not as many cells as the header; {_REPAIR}"
                )
            row: dict[str, Any] = dict(zip(header, map(escape.from_csv, cells), strict=True))
            for name, convert in converters.items():
                try:
                    row[name] = convert(row[name])
                except ValueError as error:
                    raise DataError(
                        f"{path}, line {reader.line_num}: column {name!r}: found "
                        f"{_shortened(row[name])}; {error}; {_REPAIR}"
                    ) from None
            yield row


_REPAIR = "delete the damaged file and run the workflow again, or repair the row that you edited"


def _lines(file: io.TextIOWrapper) -> Iterator[str]:
    """Yield lines. Raises ValueError if one is too long or has NUL, which no file of ours has."""
    while line := file.readline(MOST_LINE):
        if len(line) == MOST_LINE:
            raise ValueError(f"a line of more than {MOST_LINE:,} characters")
        if "\0" in line:
            raise ValueError("a NUL character")
        yield line


def _next(path: Path, reader: Any) -> list[str] | None:
    """The next row, or None at the end. Raises DataError when the text is damaged."""
    try:
        return next(reader, None)
    except (csv.Error, ValueError, OSError) as error:
        raise DataError(
            f"{path}: not readable as CSV after line {reader.line_num} ({error}); {_REPAIR}"
        ) from error


def csv_header(path: Path) -> list[str]:
    """The names of the columns of a CSV file. Raises DataError as `read_csv`."""
    with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
        return _next(path, csv.reader(_lines(file), strict=True)) or []


def read_ids(path: Path) -> list[str]:
    """The ids in a file with one id per line. Raises DataError for one that leads elsewhere."""
    # Not splitlines: an id may contain a character that Unicode counts as a line end.
    return [require_relative(id, path) for id in read_text(path).split("\n") if id]


def is_relative(name: str) -> bool:
    """Whether an id or a path, read from a file, stays in the folder that it is relative to.

    It must consist of names divided by `/`, none of them `.` or `..`, without backslashes, line
    breaks, NUL and characters that UTF-8 cannot write.
    """
    return _RELATIVE.fullmatch(name) is not None


_NAME = r"(?!\.{1,2}(?:/|\Z))[^/\\\x00\n\r\ud800-\udfff]+"
_RELATIVE = re.compile(f"{_NAME}(?:/{_NAME})*")


def require_relative(name: str, source: Path | str) -> str:
    """Return `name`, which was read from `source`. Raises DataError unless `is_relative`."""
    if is_relative(name):
        return name
    raise DataError(
        f"{source}: {name!r} cannot be an id or a path; expected a relative path without `..`, "
        "backslashes and line breaks, in UTF-8"
    )


def inside(folder: Path, name: str) -> Path:
    """The path `folder / name` of a file to write, where `name` comes from data.

    Raises DataError if `name` or a symbolic link would lead out of `folder`.
    """
    path = folder / require_relative(name, folder)
    _require_inside(path.parent, folder)
    return path


def _require_inside(folder: Path, root: Path) -> None:
    here = Path.cwd()
    found = _resolved(here / folder)
    if not found.is_relative_to(_resolved(here / root)):
        raise DataError(
            f"{folder}: nothing is written there, because a symbolic link leads out of {root}, to "
            f"{found}; remove the link, or make {root} itself the link"
        )


@functools.lru_cache(maxsize=64)
def _resolved(folder: Path) -> Path:
    # Cached, because thousands of files are written into a few folders.
    return folder.resolve()


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
