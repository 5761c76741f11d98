"""Write and read CSV files."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

from . import checksums, escape
from .errors import DataError
from .files import atomic, open_regular, write_text

T = TypeVar("T")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `rows` under `header`; floats in full precision, None as an empty cell.

    A text that a spreadsheet program would run as a formula is escaped; `read_csv` undoes it.
    """
    text = io.StringIO()
    _write_rows(text, header, rows)
    write_text(path, text.getvalue())


def stream_csv(path: Path, header: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """`write_csv` of more rows than memory should hold; `path` is replaced, even by an equal file.

    Cells that a row lacks are empty.
    """
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        _write_rows(file, header, rows)


def _write_rows(file: TextIO, header: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    writer = csv.DictWriter(file, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: escape.csv(cell) for key, cell in row.items()} for row in rows)


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
    checksums.check(path)
    # utf-8-sig: spreadsheets write a byte order mark.
    with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(_lines(file), strict=True)
        header = _next(path, reader) or []
        absent = [name for name in columns if name not in header]
        if absent or len(set(header)) < len(header):
            problem = f"no column {absent[0]!r}" if absent else "a column occurs twice"
            raise DataError(
                f"{path}: {problem}; found {escape.shown(header)}, expected {list(columns)}, "
                "divided by commas; delete the file and run the workflow again"
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
                        f"{escape.shown(row[name])}; {error}; {_REPAIR}"
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
    checksums.check(path)
    with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
        return _next(path, csv.reader(_lines(file), strict=True)) or []
