"""Reads ROIs of ImageJ and Fiji: a `.roi`, or the `.zip` of the ROI Manager, for each image.

- The name of the image is that of the file, without `RoiSet` or `rois` before or behind it; of a
  file that is only called `RoiSet.zip`, it is the name of its folder.
- Positions in a stack: if a ROI is on a page after the first, all are on pages of a stack, and page
  3 of `a.zip` is the image `a/0003`. A channel is no page.
- The class of a ROI of a group is `group 1`. Otherwise it is the ROI's name without a number that
  is set off from its end: `cell-3` and `cell 12` are `cell`, while `CD4` and `CD8` are two classes.
  A name that ImageJ or another program has made of numbers, such as `0012-0345`, says nothing;
  then the class is `foreground`.
- Coordinates count from the corners of pixels: the 10 x 10 rectangle at (0, 0) covers the pixels 0
  to 9. A composite covers what lies inside an odd number of its outlines.
"""

import io
import itertools
import logging
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from string import digits

import numpy as np
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi

from ...runtime.errors import DataError
from ...runtime.escape import shown
from ...runtime.reading import explained, read_bytes
from .collector import AGAIN, MOST_BYTES, Collector, read_each
from .shapes import AnnotationFormat, Annotations, Polygon, Ring, Shape, box, ellipse, ring

MOST_ROIS = 100_000
"""Most ROIs of one zip archive."""
FOREGROUND = "foreground"

# It warns of parts of a ROI that are not used here.
logging.getLogger("roifile").setLevel(logging.ERROR)

_ROI, _ZIP, _ZIP_ENTRY = b"Iout", b"PK\x03\x04", b"PK\x01\x02"
_NUMBERS = re.compile(r"[\d\s_.#-]*|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|F\d\d-C\d+", re.I)
_COUNTED = re.compile(r"([\s_.#-]+\(?\d+\)?)+$")
_SET = re.compile(r"^(roiset|rois?)[\s_.-]+|[\s_.-]+(roiset|rois?)$", re.I)
_ONLY_SET = re.compile(r"roiset|rois?", re.I)
_MOST_LETTERS = 255
_NO_AREA = {
    ROI_TYPE.POINT: "points",
    ROI_TYPE.LINE: "lines",
    ROI_TYPE.FREELINE: "lines",
    ROI_TYPE.POLYLINE: "lines",
    ROI_TYPE.ANGLE: "angles",
}
_MOVE, _CLOSE = 0, 4
_MOST_APART = 2000
# Numbers behind each command of a path: move, line, quadratic and cubic curve, close.
_ARGUMENTS = {_MOVE: 2, 1: 2, 2: 4, 3: 6, _CLOSE: 0}
_STEPS = np.linspace(0, 1, 17)[1:, None]


def _recognises(file: Path, start: bytes) -> bool:
    if file.suffix.lower() == ".roi":
        return start.startswith(_ROI)
    # The name of the first file, or, where that is a folder, of the next ones.
    return start.startswith(_ZIP) and b".roi" in start[:300].lower()


def _read(files: Sequence[Path]) -> Annotations:
    found = read_each(files, _read_file)
    numbered = Counter(label.rstrip(digits) for label in found.classes if label[-1] in digits)
    notices = [
        f"{number} classes are called {stem} and a number; if they are one class, rename the ROIs "
        f"to {stem}-1, {stem}-2, ..."
        for stem, number in numbered.items()
        if number > 2 and stem[-1:].isalpha()
    ]
    return replace(found, notices=[*found.notices, *notices])


def _read_file(file: Path, found: Collector) -> None:
    pages: dict[int, list[Shape]] = defaultdict(list)
    for number, (name, content) in enumerate(_contents(file, found), 1):
        with found.problems_of(file, f"ROI {number} ({shown(name)})"):
            roi = _decoded(content)
            pages[_page(roi)] += _shapes(roi, roi.name or name, file, found)
    image = _image(file, found)
    if max(pages, default=0) <= 1:
        found.add(file, image, None, [shape for shapes in pages.values() for shape in shapes])
        return
    if 0 in pages:
        raise DataError(
            f"{file}: {len(pages[0])} ROIs without a position in the stack, and others with one; "
            "give each its position in ImageJ: ROI Manager, More, Properties"
        )
    for page, shapes in sorted(pages.items()):
        found.add(file, f"{image}/{page:04}", None, shapes)


def _image(file: Path, found: Collector) -> str:
    stem = _SET.sub("", file.stem)
    if _ONLY_SET.fullmatch(stem):
        return found.image_name(file, f"../{file.absolute().parent.name}")
    return found.image_name(file, stem)


def _contents(file: Path, found: Collector) -> Iterator[tuple[str, bytes]]:
    """Yield the names and the bytes of the ROIs in a file."""
    content = read_bytes(file, MOST_BYTES)
    if content.startswith(_ROI):
        yield "", content
        return
    # Before the archive is opened, which makes an object of each entry.
    if content.count(_ZIP_ENTRY) > MOST_ROIS:
        raise DataError(f"{file}: more than {MOST_ROIS:,} ROIs; save them to several files")
    left = MOST_BYTES
    with (
        explained(file, "a zip archive of ROIs", AGAIN),
        zipfile.ZipFile(io.BytesIO(content)) as archive,
    ):
        for entry in archive.infolist():
            path = PurePosixPath(entry.filename)
            if path.suffix.lower() != ".roi" or path.name.startswith("._"):
                if not entry.is_dir():
                    found.leave_out("files", "they are no ROIs")
                continue
            with archive.open(entry) as opened:
                roi = opened.read(left + 1)
            left -= len(roi)
            if left < 0:
                raise DataError(f"{file}: unpacks to more than {MOST_BYTES:,} bytes")
            yield path.stem, roi


def _decoded(content: bytes) -> ImagejRoi:
    try:
        return ImagejRoi.frombytes(content)
    # Over damaged bytes, roifile raises errors of several classes.
    except Exception as error:
        raise DataError(f"not readable as a ROI of ImageJ ({error}); {AGAIN}") from None


def _page(roi: ImagejRoi) -> int:
    """Return the number of a ROI's page, from 1; 0 if it is on every page."""
    slice_, frame = roi.z_position, roi.t_position
    if slice_ > 1 and frame > 1:
        raise DataError(
            f"slice {slice_} of frame {frame}; expected a stack of slices or of frames; split the "
            "stack in ImageJ, and save the ROIs of each part"
        )
    if roi.c_position > 0 or slice_ > 0 or frame > 0:
        return max(slice_, frame, 0)
    return max(roi.position, 0)


def _shapes(roi: ImagejRoi, name: str, file: Path, found: Collector) -> list[Shape]:
    """Return the shape of a ROI; none if it covers no area."""
    if roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.IMAGE):
        found.leave_out("texts and pictures")
        return []
    if roi.roitype in _NO_AREA:
        found.leave_out(_NO_AREA[roi.roitype])
        return []
    polygons = _polygons(roi)
    # A ROI that is saved alone gets the name of its file.
    automatic = name == file.stem or _NUMBERS.fullmatch(name[: _MOST_LETTERS + 1])
    if len(name) > _MOST_LETTERS:
        raise DataError(f"a name of {len(name):,} letters, expected at most {_MOST_LETTERS}")
    if roi.group > 0:
        label = f"group {roi.group}"
    else:
        label = FOREGROUND if automatic else _COUNTED.sub("", name)
    return [Shape(found.add_class(label), polygons)]


def _polygons(roi: ImagejRoi) -> list[Polygon]:
    if roi.composite:
        if roi.multi_coordinates is None:
            raise DataError("a composite that is no path")
        return _apart(_outlines(roi.multi_coordinates))
    if roi.roitype == ROI_TYPE.RECT:
        return [[_rectangle(*_bounds(roi), roi.rounded_rect_arc_size)]]
    if roi.roitype == ROI_TYPE.OVAL:
        left, top, right, bottom = _bounds(roi)
        return [
            [
                ellipse(
                    (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2
                )
            ]
        ]
    if roi.integer_coordinates is None:
        raise DataError(f"the type {int(roi.roitype)}, which is not known here; draw a polygon")
    # ImageJ also writes the corners of its ellipses and of its rotated rectangles.
    corners = roi.subpixel_coordinates
    if corners is None:
        corners = roi.integer_coordinates + np.array([roi.left, roi.top])
    outline = ring(corners)
    return [[_spline(outline) if roi.options & ROI_OPTIONS.SPLINE_FIT else outline]]


def _bounds(roi: ImagejRoi) -> tuple[float, float, float, float]:
    """Return the left, top, right and bottom of a rectangle or an oval."""
    if roi.subpixelrect:
        return roi.xd, roi.yd, roi.xd + roi.widthd, roi.yd + roi.heightd
    return roi.left, roi.top, roi.right, roi.bottom


def _rectangle(left: float, top: float, right: float, bottom: float, rounding: int) -> Ring:
    """Return a rectangle. rounding: diameter of its corners."""
    if rounding <= 0:
        return box(left, top, right, bottom)
    across, down = (min(rounding, side) / 2 for side in (right - left, bottom - top))
    round_ = ellipse(0, 0, across, down)
    # Each quarter of the ellipse moves to its corner.
    inner = np.array([right - left, bottom - top]) / 2 - (across, down)
    signs = np.where(np.abs(round_) < 1e-9, 0, np.sign(round_))
    return round_ + inner * signs + ((left + right) / 2, (top + bottom) / 2)


def _spline(outline: Ring) -> Ring:
    """Return the closed curve that ImageJ fits through the corners of a polygon."""
    # To import it takes half a second, and few ROIs need it.
    from scipy.interpolate import CubicSpline

    corners = np.concatenate([outline, outline[:1]])
    steps = np.maximum(np.sqrt(np.hypot(*np.diff(corners, axis=0).T)), 1e-3)
    places = np.concatenate([[0], np.cumsum(steps)])
    count = 64 * len(outline)
    at = np.linspace(0, places[-1], count, endpoint=False)
    return ring(CubicSpline(places, corners, bc_type="periodic")(at))


def _outlines(path: np.ndarray) -> list[Ring]:
    """Return the rings of a path of Java: commands, each with its numbers behind it.

    Raises DataError, without the name of a file, for a path that is no whole one.
    """
    values, rings, at = path.tolist(), [[]], 0
    while at < len(values):
        command = values[at]
        count = _ARGUMENTS.get(command, len(values))
        numbers = values[at + 1 : at + 1 + count]
        if len(numbers) < count or (not rings[-1] and command != _MOVE):
            raise DataError("a composite whose path is damaged; save it again")
        points = np.reshape(numbers, (-1, 2))
        if command == _MOVE:
            rings.append([points[0]])
        elif command != _CLOSE:
            rings[-1] += _curve(rings[-1][-1], points)
        at += 1 + count
    # A path may end with a move to nowhere.
    return [ring(points) for points in rings if len(points) > 2]


def _curve(start: np.ndarray, points: np.ndarray) -> list[np.ndarray]:
    """Return points of a line or a Bezier curve, without its start. points: (N, 2)."""
    if len(points) == 1:
        return [points[0]]
    layers = [start, *points]
    while len(layers) > 1:
        layers = [a + (b - a) * _STEPS for a, b in itertools.pairwise(layers)]
    return list(layers[0])


def _apart(rings: list[Ring]) -> list[Polygon]:
    """Return polygons of rings whose bounding boxes are apart; the largest ring first in each.

    They cover the same pixels together, and the area of each is known by its first ring.
    """
    from scipy.sparse.csgraph import connected_components  # as above

    if not rings:
        raise DataError("a composite without an outline")
    low = np.array([one.min(0) for one in rings])
    high = np.array([one.max(0) for one in rings])
    order = np.argsort(-(high - low).prod(1), kind="stable")
    if len(rings) > _MOST_APART:
        return [[rings[one] for one in order]]
    overlaps = ((low[:, None] < high) & (high[:, None] > low)).all(2)
    count, groups = connected_components(overlaps, directed=False)
    return [[rings[one] for one in order if groups[one] == group] for group in range(count)]


FORMAT = AnnotationFormat("ImageJ (ROIs)", (".roi", ".zip"), _recognises, _read, one_each=True)
