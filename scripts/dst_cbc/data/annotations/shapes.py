"""What annotation files say of an image, whatever program wrote them: shapes with labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import DataError
from ..images import MOST_PIXELS

MOST_POINTS = 5_000_000
"""Most points of one ring."""
FARTHEST = 1e6
"""Largest coordinate, in pixels, before or after an image's edge: a shape may pass its border."""

Ring = np.ndarray
"""Corners of a closed line, float64 (N, 2): x to the right and y down, in pixels. (0, 0) is the top
left corner of the image, so the centre of its first pixel is (0.5, 0.5). The last corner is joined
with the first one, which is not repeated."""
Polygon = Sequence[Ring]
"""An area: a pixel is in it where its centre is inside an odd number of the rings. So rings inside
the first one are holes."""


@dataclass(frozen=True)
class Runs:
    """A mask of pixels, as lengths of runs: off, on, off, …

    counts: int64 (N,), their sum is height * width. by_columns: whether the runs go down the
    columns (COCO) instead of along the rows. left, top: place of the mask in the image, in pixels.
    """

    counts: np.ndarray
    height: int
    width: int
    by_columns: bool = False
    left: int = 0
    top: int = 0

    def pixels(self) -> np.ndarray:
        """Return the mask, bool (height, width)."""
        flat = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        if self.by_columns:
            return flat.reshape(self.width, self.height).T
        return flat.reshape(self.height, self.width)


@dataclass(frozen=True)
class Shape:
    """One object or region of an image; it covers its polygons and its mask together.

    label: the name of its class in the annotations. ignored: its pixels have no class, such as a
    crowd of COCO. order: shapes are drawn by ascending order; within one, the largest first.
    """

    label: str
    polygons: Sequence[Polygon] = ()
    mask: Runs | None = None
    ignored: bool = False
    order: int = 0


@dataclass(frozen=True)
class Annotated:
    """The shapes of one image.

    file: the annotation file, for messages. image: the name or path of the image that it gives.
    size: (width, height) of the image that it gives, None if it gives none. relative: whether
    coordinates are shares of the image's width and height, 0..1, instead of pixels.
    """

    file: Path
    image: str
    size: tuple[int, int] | None
    shapes: Sequence[Shape]
    relative: bool = False


@dataclass(frozen=True)
class Annotations:
    """What the annotation files of a data set hold.

    images: at most one of each image. classes: name: '#rrggbb', or None where the files give no
    colour; in the order of the files, also classes without a shape. problems: lines `file: what is
    wrong there`; with one, nothing is drawn. notices: sentences about what is left out, with
    counts, such as points and lines, which cover no area. others: further files that were read,
    such as lists of classes. unread: files of the format's ending that are of no known format; only
    where each image has a file of its own, so that one of these may be damaged.
    """

    images: list[Annotated] = field(default_factory=list)
    classes: dict[str, str | None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    others: Sequence[Path] = ()
    unread: Sequence[Path] = ()


@dataclass(frozen=True)
class AnnotationFormat:
    """How one program exports annotations.

    name: as people call it. suffixes: endings of its files, in lower case. recognises: whether the
    start of a file, at most PEEK bytes, is of this format; it raises nothing, whatever the bytes.
    read: reads all files of this format that were recognised in one folder and its subfolders, or
    the only one. It raises no DataError for what is wrong in a file: it lists it under
    `problems`, once for each cause and place, and goes on. one_each: whether each image has a file
    of its own, which has its name.
    """

    name: str
    suffixes: tuple[str, ...]
    recognises: Callable[[Path, bytes], bool]
    read: Callable[[Sequence[Path]], Annotations]
    one_each: bool = False


PEEK = 1 << 16
"""So many bytes of the start of a file decide its format."""


def ring(points: Iterable[Any], scale: tuple[float, float] = (1.0, 1.0)) -> Ring:
    """Return a ring of points (x, y), each multiplied by `scale`; a repeated last corner goes.

    Raises DataError, without the name of a file, when there are fewer than three points or more
    than MOST_POINTS, or one is no pair of finite numbers or lies FARTHEST away.
    """
    corners = list(points)
    if not 3 <= len(corners) <= MOST_POINTS:
        raise DataError(f"{len(corners)} points, expected at least 3 and at most {MOST_POINTS:,}")
    try:
        array = np.asarray(corners, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DataError("points that are not pairs of numbers") from None
    if array.ndim != 2 or array.shape[1] != 2:
        raise DataError(f"points of shape {array.shape[1:]}, expected pairs of numbers")
    array = array * scale
    far = ~(np.abs(array) <= FARTHEST).all(1)
    if far.any():
        x, y = array[far][0]
        raise DataError(f"the point ({x:g}, {y:g}), expected numbers of at most {FARTHEST:g}")
    closed = len(array) > 3 and (array[0] == array[-1]).all()
    return array[:-1] if closed else array


def box(left: float, top: float, right: float, bottom: float) -> Ring:
    """Return the ring of a rectangle. Raises DataError as `ring`."""
    return ring([(left, top), (right, top), (right, bottom), (left, bottom)])


def ellipse(x: float, y: float, across: float, down: float, turned: float = 0.0) -> Ring:
    """Return the ring of an ellipse of 360 corners. Raises DataError as `ring`.

    With them, a circle of radius 1000 is right to 0.04 pixels. x, y: its centre. across, down: its
    two radii. turned: clockwise, in degrees.
    """
    angles = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    corners = np.stack([across * np.cos(angles), down * np.sin(angles)], 1)
    return ring(rotated(corners, turned) + np.array([x, y]))


def rotated(points: np.ndarray, degrees: float) -> np.ndarray:
    """Return points, (N, 2), turned clockwise around (0, 0)."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[cos, sin], [-sin, cos]])


def ring_area(ring: Ring) -> float:
    """Return the area inside a ring, by the shoelace formula."""
    x, y = (ring - ring[0]).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def runs(
    counts: Sequence[int] | np.ndarray,
    height: int,
    width: int,
    by_columns: bool = False,
    left: int = 0,
    top: int = 0,
) -> Runs:
    """Return a mask of run lengths.

    Raises DataError, without the name of a file, when a length is no whole number of 0 or more,
    they do not add up to height * width, that is more than MOST_PIXELS, or the place is FARTHEST
    away.
    """
    numbers = (height, width, left, top)
    if not all(isinstance(one, int) and abs(one) <= FARTHEST for one in numbers):
        raise DataError(f"a mask of {width} x {height} pixels at ({left}, {top})")
    if not 0 < height * width <= MOST_PIXELS:
        raise DataError(f"a mask of {width} x {height} pixels, expected 1 to {MOST_PIXELS:,}")
    try:
        array = np.asarray(counts)
    except ValueError:  # lists of several lengths
        array = np.empty(0)
    if array.ndim != 1 or array.dtype.kind not in "iu" or (array < 0).any():
        raise DataError("run lengths that are not whole numbers of 0 or more")
    if array.size > MOST_PIXELS or (total := int(array.astype(np.float64).sum())) != height * width:
        raise DataError(f"run lengths of {total} pixels in all, expected {height * width}")
    return Runs(array.astype(np.int64), height, width, by_columns, left, top)


def runs_of(pixels: np.ndarray, left: int = 0, top: int = 0) -> Runs:
    """Return a mask, bool (height, width), as run lengths along its rows. Raises as `runs`."""
    flat = pixels.ravel()
    ends = np.flatnonzero(np.diff(flat, prepend=False))
    return runs(np.diff(ends, prepend=0, append=flat.size), *pixels.shape, left=left, top=top)
