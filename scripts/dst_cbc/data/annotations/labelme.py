"""Reads the JSON files of labelme and X-AnyLabeling: one for each image.

Each shape is drawn by itself; `group_id` joins none. A rotated rectangle and a quadrilateral are
polygons. Shapes of the label `__ignore__` have no class, as in labelme's own examples.
"""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...runtime.errors import DataError
from ...runtime.escape import shown
from ..images import MOST_PIXELS
from .collector import Collector, load_json, read_each, whole_size
from .shapes import (
    AnnotationFormat,
    Annotations,
    Polygon,
    Ring,
    Runs,
    Shape,
    box,
    ellipse,
    ring,
    runs_of,
)

IGNORED = "__ignore__"
_NAMES_IMAGE = re.compile(rb'"image(Path|Data)"\s*:')
_FIRST_KEYS = (b'"version"', b'"flags"', b'"shapes"')
_POLYGONS = ("polygon", "rotation", "quadrilateral", "oriented_rectangle")
_NO_AREA = {
    "point": "points",
    "points": "points",
    "line": "lines",
    "linestrip": "lines",
    "cuboid": "cuboids",
}


def _recognises(file: Path, start: bytes) -> bool:
    keys = _NAMES_IMAGE.search(start) or all(key in start for key in _FIRST_KEYS)
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and bool(keys)


def _read(files: Sequence[Path]) -> Annotations:
    return read_each(files, _read_file)


def _read_file(file: Path, found: Collector) -> None:
    content = load_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError(f"{file}: no list `shapes`; expected a file of labelme or X-AnyLabeling")
    path = content.get("imagePath")
    image = found.image_name(file, path if isinstance(path, str) and path else file.stem)
    size, shapes = None, []
    with found.problems_of(file, "imageWidth, imageHeight"):
        size = whole_size(content.get("imageWidth"), content.get("imageHeight"))
    for number, entry in enumerate(content["shapes"], 1):
        label = entry.get("label") if isinstance(entry, dict) else entry
        with found.problems_of(file, f"shape {number} ({shown(label)})"):
            shapes += _shapes(entry, found)
    found.add(file, image, size, shapes)


def _shapes(entry: Any, found: Collector) -> list[Shape]:
    """Return the shape of an entry; none if it covers no area."""
    if not isinstance(entry, dict):
        raise DataError(f"found {shown(entry)}, expected a shape")
    # Old versions write null for a polygon.
    kind, points = entry.get("shape_type") or "polygon", entry.get("points")
    if isinstance(kind, str) and kind in _NO_AREA:
        found.leave_out(_NO_AREA[kind])
        return []
    if not isinstance(points, list):
        raise DataError(f"the points {shown(points)}, expected a list of pairs of numbers")
    polygons, mask = [], None
    if kind == "mask":
        mask = _mask(entry.get("mask"), *_two(points))
    else:
        polygons = [_polygon(kind, points)]
    if entry.get("label") == IGNORED:
        return [Shape(IGNORED, polygons, mask, ignored=True)]
    return [Shape(found.add_class(entry.get("label")), polygons, mask)]


def _polygon(kind: Any, points: list) -> Polygon:
    # X-AnyLabeling writes all four corners of a rectangle.
    if kind in _POLYGONS or (kind == "rectangle" and len(points) == 4):
        return [ring(points)]
    if kind == "rectangle":
        (left, top), (right, bottom) = _two(points)
        return [box(left, top, right, bottom)]
    if kind == "circle":
        (x, y), edge = _two(points)
        radius = float(np.hypot(*(edge - (x, y))))
        return [ellipse(x, y, radius, radius)]
    raise DataError(f"the shape type {shown(kind)}, which is not known here; draw a polygon")


def _two(points: list) -> Ring:
    """Return two points. Raises DataError as `ring`, and for another number of them."""
    if len(points) != 2:
        raise DataError(f"{len(points)} points, expected 2")
    # The third point is only for the checks of `ring`.
    return ring([*points, (0, 0)])[:2]


def _mask(text: Any, first: np.ndarray, last: np.ndarray) -> Runs:
    """Decode a mask, a PNG as base64. first, last: (x, y) of the corner pixels of its box."""
    (left, top), (right, bottom) = first.round().astype(int), last.round().astype(int)
    width, height = int(right - left + 1), int(bottom - top + 1)
    pixels = _png(text)
    # labelme takes the size of the mask where the corners are fractions.
    if (first == first.round()).all() and (last == last.round()).all():
        expected = (height, width)
    else:
        expected = pixels.shape
    if pixels.shape != expected:
        found = " x ".join(map(str, pixels.shape[::-1]))
        raise DataError(f"a mask of {found} pixels, expected {width} x {height}, as its two points")
    return runs_of(pixels, int(left), int(top))


def _png(text: Any) -> np.ndarray:
    """Decode a PNG of one channel, bool (height, width). Raises DataError."""
    if not isinstance(text, str):
        raise DataError(f"the mask {shown(text)}, expected a PNG as base64 text")
    try:
        content = base64.b64decode(text)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.width * image.height > MOST_PIXELS or len(image.getbands()) > 1:
                raise DataError(
                    f"a mask of {image.width} x {image.height} pixels of mode {image.mode}, "
                    f"expected at most {MOST_PIXELS:,} pixels of one channel"
                )
            return np.asarray(image) != 0
    except DataError:
        raise
    # Over damaged bytes, Pillow raises errors of any class.
    except Exception as error:
        raise DataError(f"a mask that is no PNG as base64 ({error}); draw it again") from None


FORMAT = AnnotationFormat(
    "labelme or X-AnyLabeling (JSON)", (".json",), _recognises, _read, one_each=True
)
