"""Reads the XML of CVAT's export "CVAT for images".

Its boxes and ellipses may be turned; the runs of its masks go along the rows. Shapes are drawn in
the order of CVAT's layers (`z_order`). `occluded` changes nothing.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from xml.etree.ElementTree import Element

import numpy as np
from defusedxml.ElementTree import iterparse

from ...runtime.errors import DataError
from ...runtime.escape import shown
from ...runtime.reading import explained, read_bytes
from .collector import AGAIN, MOST_BYTES, Collector, read_each, whole_size
from .shapes import (
    AnnotationFormat,
    Annotations,
    Ring,
    Runs,
    Shape,
    box,
    ellipse,
    ring,
    rotated,
    runs,
)

_ROOT = re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<annotations[\s>]", re.S)
_NO_AREA = {
    "points": "points",
    "polyline": "lines",
    "skeleton": "skeletons",
    "cuboid": "cuboids",
    "tag": "tags",
}
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_MOST_DEPTH = 100
Number = TypeVar("Number", int, float)


def _recognises(file: Path, start: bytes) -> bool:
    return bool(_ROOT.match(start))


def _read(files: Sequence[Path]) -> Annotations:
    return read_each(files, _read_file)


def _read_file(file: Path, found: Collector) -> None:
    reader = _Reader(file, found)
    source = io.BytesIO(read_bytes(file, MOST_BYTES))
    path: list[Element] = []
    with explained(file, 'XML of "CVAT for images"', AGAIN):
        for event, element in iterparse(source, ("start", "end"), forbid_dtd=True):
            if event == "start":
                path.append(element)
                if len(path) > _MOST_DEPTH:
                    raise DataError(f"{file}: more than {_MOST_DEPTH} elements in each other")
                reader.start([one.tag for one in path], element)
            else:
                reader.end([one.tag for one in path], element)
                path.pop()
                # Else, the elements of a large file would fill the memory.
                if path:
                    path[-1].remove(element)


class _Reader:
    """Reads the elements of one file, in their order."""

    def __init__(self, file: Path, found: Collector):
        self._file, self._found = file, found
        self._label: dict[str, str] = {}
        self._image: Mapping[str, str] = {}
        self._shapes: list[Shape] = []
        self._number = 0

    def start(self, path: list[str], element: Element) -> None:
        """Begin an element. path: the tags that lead to it, with its own."""
        match path:
            case ["annotations", "track"]:
                raise DataError(
                    f'{self._file}: tracks of "CVAT for video"; export the task again as "CVAT '
                    'for images 1.1"'
                )
            case ["annotations", "image"]:
                self._image, self._shapes, self._number = dict(element.attrib), [], 0
            case ["annotations", "meta", *_, "labels", "label"]:
                self._label = {}

    def end(self, path: list[str], element: Element) -> None:
        """Use an element that is whole."""
        match path:
            case ["annotations", "image", kind]:
                self._number += 1
                self._add_shape(kind, element.attrib)
            case ["annotations", "image"]:
                with self._found.problems_of(self._file, self._place()):
                    self._add_image()
            case ["annotations", "meta", *_, "labels", "label", key]:
                self._label[key] = element.text or ""
            case ["annotations", "meta", *_, "labels", "label"]:
                # The parts of a skeleton name their parent.
                if "parent" not in self._label:
                    colour = self._label.get("color", "").lower()
                    with self._found.problems_of(self._file, "a label of `meta`"):
                        self._found.add_class(
                            self._label.get("name"), colour if _COLOUR.fullmatch(colour) else None
                        )

    def _place(self) -> str:
        return f"image {shown(self._image.get('name'))}"

    def _add_image(self) -> None:
        if not (name := self._image.get("name")):
            raise DataError("no name")
        width, height = (
            _whole(self._image, side) if side in self._image else None
            for side in ("width", "height")
        )
        image = self._found.image_name(self._file, name)
        self._found.add(self._file, image, whole_size(width, height), self._shapes)

    def _add_shape(self, kind: str, values: Mapping[str, str]) -> None:
        if kind in _NO_AREA:
            self._found.leave_out(_NO_AREA[kind])
            return
        place = f"{self._place()}, shape {self._number} ({shown(values.get('label'))})"
        with self._found.problems_of(self._file, place):
            rings, mask = _area(kind, values)
            label = self._found.add_class(values.get("label"))
            order = _whole(values, "z_order") if "z_order" in values else 0
            self._shapes.append(Shape(label, [rings] if rings else [], mask, order=order))


def _area(kind: str, values: Mapping[str, str]) -> tuple[list[Ring], Runs | None]:
    """Return the rings and the mask of a shape."""
    if kind == "polygon":
        points = _text(values, "points").split(";")
        return [ring([_numbers(float, point, "points") for point in points])], None
    if kind == "box":
        return [_box(values)], None
    if kind == "ellipse":
        x, y, across, down = (_number(values, key) for key in ("cx", "cy", "rx", "ry"))
        return [ellipse(x, y, across, down, _turn(values))], None
    if kind == "mask":
        height, width, left, top = (
            _whole(values, key) for key in ("height", "width", "left", "top")
        )
        counts = _numbers(int, _text(values, "rle"), "rle")
        return [], runs(counts, height, width, left=left, top=top)
    raise DataError(f"the element {shown(kind)}, which is not known here; draw a polygon")


def _box(values: Mapping[str, str]) -> Ring:
    left, top, right, bottom = (_number(values, key) for key in ("xtl", "ytl", "xbr", "ybr"))
    if not (turn := _turn(values)):
        return box(left, top, right, bottom)
    centre = np.array([left + right, top + bottom]) / 2
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) - centre
    return ring(rotated(corners, turn) + centre)


def _turn(values: Mapping[str, str]) -> float:
    """Return the turn around the centre, clockwise, in degrees."""
    return _number(values, "rotation") if "rotation" in values else 0.0


def _text(values: Mapping[str, str], key: str) -> str:
    if key not in values:
        raise DataError(f"no `{key}`")
    return values[key]


def _number(values: Mapping[str, str], key: str) -> float:
    return _parsed(float, _text(values, key), key)


def _whole(values: Mapping[str, str], key: str) -> int:
    return _parsed(int, _text(values, key), key)


def _numbers(kind: type[Number], text: str, key: str) -> list[Number]:
    parts = text.split(",")
    try:
        return [kind(one) for one in parts]
    except ValueError:
        # Slower, but it names the part.
        return [_parsed(kind, one, key) for one in parts]


def _parsed(kind: type[Number], text: str, key: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise DataError(f"`{key}` with {shown(text)}, expected {what}") from None


FORMAT = AnnotationFormat("CVAT for images (XML)", (".xml",), _recognises, _read)
