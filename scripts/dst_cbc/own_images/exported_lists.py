"""Finds the masks and the list of classes in what a labeling tool exports.

CVAT and Datumaro write `labelmap.txt` beside a folder SegmentationClass, as Pascal VOC names it.
Roboflow writes `_classes.csv` into each folder of images and masks.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from ..data.layouts.listing import entries
from ..data.masks import VOC_BORDER, mask_value
from ..runtime.errors import DataError, first_of
from ..runtime.reading import read_text
from ..settings.data import IGNORED
from .class_list import ClassList, class_list, read_class_list, valid_names

MASKS, OBJECTS, IMAGES = "SegmentationClass", "SegmentationObject", "JPEGImages"
LABELMAP, PIXEL_VALUES = "labelmap.txt", "_classes.csv"
_LABELMAP_FORM = "NAME:RED,GREEN,BLUE::"
_PIXEL_FORM = "VALUE, NAME"
_MOST_BYTES = 100_000
_LONGEST = 1000
_COLOUR = r"\s*,".join([r"\s*([0-9]{1,3})"] * 3)
_LABEL = re.compile(rf"(.+?):(?:{_COLOUR}\s*(?::[^:]*){{0,2}}|\s*(?::[^:]*){{2}})")
_PIXEL = re.compile(r"([0-9]{1,5})\s*,[\s\"]*([^\s\"].*)")

T = TypeVar("T")


def folders_of(images: Path, labels: Path) -> tuple[Path, Path]:
    """Return the folders of images and masks, inside of an export that has VOC's folders.

    Others are returned as they are. Raises DataError for the folder of masks that number objects.
    """
    if labels.name == OBJECTS:
        raise DataError(
            f"{labels}: these masks tell objects apart, not classes; give the folder {MASKS}"
        )
    if (images / MASKS).is_dir() and (images / IMAGES).is_dir():
        images /= IMAGES
    return images, labels / MASKS if (labels / MASKS).is_dir() else labels


def find(labels: Path) -> ClassList | None:
    """Return the list of classes that was exported with the masks of a folder, if there is one.

    That is `labelmap.txt` in it and every `_classes.csv` in it and its subfolders, or, without
    these, `labelmap.txt` beside it. Raises DataError for a damaged list, and when two lists
    contradict each other.
    """
    csv = [
        entry.path for entry in entries(labels) if PurePosixPath(entry.path).name == PIXEL_VALUES
    ]
    inside = [file for name in (LABELMAP, *csv) if (file := labels / name).is_file()]
    beside = Path(os.path.normpath(labels / os.pardir), LABELMAP)
    try:
        lists = [read(file) for file in inside or [beside] if file.is_file()]
    except DataError as error:
        raise DataError(
            f"{error}. The file was found with the masks: repair it, move it away if it is no list "
            "of their classes, or give another list: --classes FILE"
        ) from None
    for one in lists[1:]:
        if (one.names, one.ignore) != (lists[0].names, lists[0].ignore):
            raise DataError(
                f"{one.file} contradicts {lists[0].file}: they list other classes or values; "
                "export both once more from one version of the project, or give one list for all "
                "masks: --classes FILE"
            )
    return lists[0] if lists else None


def read(path: Path) -> ClassList:
    """Read a list of classes in the form that its name says. Raises DataError as `class_list`."""
    if path.name == LABELMAP and path.is_file():
        return _labelmap(path)
    if path.name == PIXEL_VALUES and path.is_file():
        return _pixel_values(path)
    return read_class_list(path)


def describe(listed: ClassList) -> list[str]:
    """Return lines that say which list was found, and what was changed in it."""
    classes = len({*listed.names.values()})
    what = "names and colours" if listed.coloured else "names"
    return [
        f"found: {listed.file} lists {classes} classes; their {what} are used (others: --classes "
        "FILE)",
        *(f"assumed: {notice}" for notice in listed.notices),
    ]


def _labelmap(path: Path) -> ClassList:
    form = (
        f"a line `{_LABELMAP_FORM}` for each class, with numbers of at most 255, e.g. "
        "`car:128,64,0::`"
    )
    places, names, given = _rows(path, _label, form)
    colours = [colour or _of_voc(number) for number, colour in enumerate(given)]
    valid, notices = _class_names(path, names)
    listed = class_list(path, zip(places, colours, valid, strict=True), form)
    numbered = class_list(path, zip(places, range(len(valid)), valid, strict=True), form)
    by_line = replace(
        numbered,
        ignore=_with(IGNORED, numbered),
        form=_LABELMAP_FORM,
        colours={name: colours[valid.index(name)] for name in valid},
    )
    ignore = _with(mask_value(VOC_BORDER), listed)
    return replace(listed, ignore=ignore, form=_LABELMAP_FORM, notices=notices, by_line=by_line)


def _label(line: str) -> tuple[str, str] | None:
    """Return name and colour; "" where the line has none."""
    found = _LABEL.fullmatch(line)
    channels = [int(channel) for channel in found.groups()[1:] if channel] if found else [256]
    if not found or max(channels, default=0) > 255:
        return None
    return found[1], "#" + bytes(channels).hex() if channels else ""


def _of_voc(number: int) -> str:
    """Return the colour that Pascal VOC gives to a class: '#rrggbb' with the number's bits."""
    bits = [[number >> 3 * bit + channel & 1 for bit in range(8)] for channel in range(3)]
    return "#" + bytes(sum(one << 7 - bit for bit, one in enumerate(of)) for of in bits).hex()


def _with(value: int, listed: ClassList) -> list[int]:
    """Return what the list ignores, and the value, too, unless it names a class."""
    return sorted({*listed.ignore, value} - {*listed.names})


def _pixel_values(path: Path) -> ClassList:
    form = f"a title, then a line `{_PIXEL_FORM}` for each class, e.g. `1, car`"
    places, names, values = _rows(path, _pixel, form, has_title=True)
    valid, notices = _class_names(path, names)
    listed = class_list(path, zip(places, values, valid, strict=True), form)
    return replace(listed, form=_PIXEL_FORM, notices=notices)


def _pixel(line: str) -> tuple[str, int] | None:
    found = _PIXEL.fullmatch(line)
    return (found[2].strip(' "'), int(found[1])) if found and int(found[1]) <= 65535 else None


def _rows(
    path: Path, parse: Callable[[str], tuple[str, T] | None], form: str, has_title: bool = False
) -> tuple[list[str], list[str], list[T]]:
    """Return place, name and value of each line that is neither empty nor a comment."""
    places, names, values = [], [], []
    for number, line in enumerate(read_text(path, _MOST_BYTES).split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = parse(line.strip()) if len(line) <= _LONGEST else None
        if found:
            places.append(f"{path}, line {number}")
            names.append(found[0])
            values.append(found[1])
        elif not (has_title and number == 1):
            raise DataError(f"{path}, line {number}: found {line[:60]!r}; expected {form}")
    return places, names, values


def _class_names(path: Path, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return a valid name of a class for each name, and what was changed."""
    valid = valid_names(names)
    changed = [f"{old[:60]!r} becomes {new!r}" for old, new in valid.items() if old != new]
    notice = f"{path}: names of classes have letters without accents, digits, spaces, dots, - and _"
    notices = [f"{notice}: {first_of(changed, 5, 'others')}"] if changed else []
    return [valid[name] for name in names], notices
