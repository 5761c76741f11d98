"""Reads the file of --classes: the user's own list of mask values and class names."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..data.masks import mask_value
from ..runtime.errors import DataError
from ..runtime.reading import read_text
from ..settings.base import ClassName, MaskValue
from ..settings.data import IGNORED

FORM = (
    "one line for each mask value: the value, a number or a colour #rrggbb, then a space or comma "
    "and the name of its class, e.g. `7 road`; `255 ignore`: these pixels have no class"
)
_MOST_BYTES = 10_000_000
_LONGEST = 200
_VALUE = r"\d+|#[0-9a-fA-F]{6}"
_BETWEEN = r"[\s,;:=]+"
_VALUE_FIRST = re.compile(rf"({_VALUE}){_BETWEEN}(\S.*)")
_NAME_FIRST = re.compile(rf"(.*\S){_BETWEEN}({_VALUE})")


@dataclass(frozen=True)
class ClassList:
    """What a file lists.

    names: mask value, 0xrrggbb where `coloured`: name of its class. ignore: values without a class.
    form: how a line of the file is written. colours: name of a class: '#rrggbb', where the values
    do not say it. notices: sentences about what was changed. by_line: of a list of colours, the
    same list for masks that hold the numbers of its lines, from 0; None if there are no such masks.
    """

    file: Path
    names: dict[int, str]
    ignore: list[int]
    coloured: bool
    form: str = "VALUE NAME"
    colours: Mapping[str, str] = field(default_factory=dict)
    notices: Sequence[str] = ()
    by_line: ClassList | None = None

    @property
    def values(self) -> set[int]:
        """All values that the file lists."""
        return {*self.names, *self.ignore}


def read_class_list(path: Path) -> ClassList:
    """Read values and names, one a line, in either order; a first line without a value is a title.

    Raises DataError that names the line where there is no value or no name, a name cannot be one of
    a class, a value occurs twice, or numbers and colours are mixed.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected {FORM}")
    rows = []
    for number, line in enumerate(read_text(path, _MOST_BYTES).split("\n"), 1):
        parts = _parts(line := line.strip())
        if parts is None and (not line or number == 1):
            continue
        where = f"{path}, line {number}"
        if parts is None:
            raise DataError(f"{where}: found {line[:60]!r}; expected {FORM}")
        rows.append((where, *_checked(where, *parts)))
    return class_list(path, rows, FORM)


def class_list(path: Path, rows: Iterable[tuple[str, int | str, str]], form: str) -> ClassList:
    """Return the list of rows (place in the file, value, name); the name `ignore`: no class.

    form: what the file should hold, for messages. Raises DataError where a value occurs twice,
    numbers and colours are mixed, or there are too few or too many classes.
    """
    found: dict[int | str, str] = {}
    for where, value, name in rows:
        if value in found:
            raise DataError(f"{where}: value {value} has a line already; remove one of them")
        found[value] = name
    coloured = {isinstance(value, str) for value in found}
    names = {mask_value(value): name for value, name in found.items() if name != "ignore"}
    if len(coloured) > 1:
        raise DataError(f"{path}: lists numbers and colours; expected numbers only or colours only")
    if not 2 <= len({*names.values()}) <= IGNORED:
        raise DataError(
            f"{path}: lists {len({*names.values()})} classes; expected 2 to {IGNORED}: {form}"
        )
    ignore = [mask_value(value) for value, name in found.items() if name == "ignore"]
    return ClassList(path, names, ignore, coloured == {True})


def _parts(line: str) -> tuple[str, str] | None:
    if len(line) > _LONGEST:
        return None
    if match := _VALUE_FIRST.fullmatch(line):
        return match[1], match[2]
    match = _NAME_FIRST.fullmatch(line)
    return (match[2], match[1].rstrip(" ,;:=\t")) if match else None


def _checked(where: str, value: str, name: str) -> tuple[int | str, str]:
    # A letter or digit first, then also spaces, dots, - and _, as in every experiment file.
    try:
        number = int(value) if value.isdigit() else value
        checked = TypeAdapter(MaskValue).validate_python(number)
        return checked, TypeAdapter(ClassName).validate_python(name)
    except ValidationError:
        raise DataError(
            f"{where}: found value {value!r} and name {name[:60]!r}; expected a number of 0 to "
            "65535 or a colour, and a name of at most 60 letters, digits, spaces, dots, - and _"
        ) from None


def valid_names(names: Sequence[str]) -> dict[str, str]:
    """Return a valid name of a class for each name; different names stay different.

    A class that is named `ignored` has the name `ignore`.
    """
    valid = {name: name for name in names if _plain(name) == name}
    valid |= {name: "ignore" for name in names if name.casefold() in ("ignore", "ignored")}
    taken = {*valid.values(), "ignore"}
    for name in names:
        if name not in valid:
            base = _plain(name) or "class"
            numbered = (f"{base[:50]} {number}" for number in itertools.count(2))
            valid[name] = next(new for new in itertools.chain([base], numbered) if new not in taken)
            taken.add(valid[name])
    return valid


def _plain(name: str) -> str:
    """Return the name without accents, with `-` for what the name of a class cannot have."""
    parts = unicodedata.normalize("NFKD", name)
    letters = "".join(letter for letter in parts if not unicodedata.combining(letter))
    return re.sub(r"[^A-Za-z0-9 ._-]+", "-", letters).lstrip(" ._-")[:60].rstrip(" -")
