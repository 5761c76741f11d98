"""Label Studio's JSON export: a list of tasks, each with its image and the regions on it.

An image has the path or address that its task gives, without what a web address adds: the part
behind `?` goes, that behind `?d=` of a local file stays, and `%20` becomes a space. Its name may
begin with the eight letters that Label Studio puts before the name of an uploaded file. Of several
annotations of a task, the newest counts, and before it one that is marked as ground truth. Tasks
without an annotation are left out: nobody has labeled their images.
"""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from PIL import Image

from ...runtime.errors import DataError
from ...runtime.escape import shown
from ...runtime.reading import explained
from .collector import Collector, collect, is_name, load_json, whole_size
from .shapes import (
    FARTHEST,
    AnnotationFormat,
    Annotations,
    Ring,
    Runs,
    Shape,
    ellipse,
    ring,
    rotated,
    runs,
    runs_of,
)

_START = re.compile(r"\[\s*\{")
_KEYS = re.compile(
    r'"(result|completions)"\s*:\s*\[|"data"\s*:\s*\{'
    r'|"(annotation_id|completed_by|(polygon|rectangle|ellipse|brush|bitmask)labels)"\s*:'
)
_AREAS = ("polygon", "rectangle", "ellipse", "brush", "bitmask")
_TYPES = {f"{area}{end}" for area in _AREAS for end in ("", "labels")} | {"labels"}
_NO_AREA = {f"{kind}{end}" for kind in ("keypoint", "vector") for end in ("", "labels")}
_IMAGE = re.compile(r"\.(png|jpe?g|tiff?|bmp|webp|gif)$", re.IGNORECASE)
_NOTICES = {
    "unlabeled": "tasks have no annotation, so their images are unlabeled",
    "several": "tasks have several annotations; the newest of each counts, and "
    "before it one that is marked as ground truth",
}


def _recognises(path: Path, start: bytes) -> bool:
    text = start.decode("utf-8", "ignore").lstrip("\ufeff \t\r\n")
    return path.suffix.lower() == ".json" and bool(_START.match(text) and _KEYS.search(text))


def _read(files: Sequence[Path]) -> Annotations:
    counted = Counter[str]()

    def read_file(file: Path, found: Collector) -> None:
        for number, task in found.objects(file, {"tasks": load_json(file)}, "tasks"):
            if "data" not in task:
                raise DataError(
                    f"{file}: no `data`: this is JSON-MIN or another short form; export the "
                    "project as JSON"
                )
            annotation = _annotation(task, file, found, counted)
            if annotation is not None:
                with found.problems_of(file, f"task {number}"):
                    name = _image(task["data"])
                    _add(name, annotation, f"task {number}", file, found)

    found = collect(files, read_file)
    for key in _NOTICES:
        if counted[key]:
            found.notice(f"{counted[key]:,} {_NOTICES[key]}")
    return found.annotations()


def _annotation(
    task: dict[str, Any], file: Path, found: Collector, counted: Counter[str]
) -> dict[str, Any] | None:
    """The annotation of a task that counts; None without one, or if all are cancelled."""
    key = "completions" if "completions" in task else "annotations"
    if key not in task and "predictions" in task:
        # Tasks to import, such as drafts of `suggest.py`, which nobody has submitted.
        counted["unlabeled"] += 1
        return None
    kept = [
        one
        for _, one in found.objects(file, task, key)
        if one.get("was_cancelled") is not True and one.get("skipped") is not True
    ]
    counted["several"] += len(kept) > 1
    counted["unlabeled"] += not kept

    def importance(one: dict[str, Any]) -> tuple[bool, str]:
        return one.get("ground_truth") is True, str(one.get("updated_at") or one.get("created_at"))

    # Of equal ones the last: max() takes the first.
    return max(reversed(kept), key=importance) if kept else None


def _image(data: Any) -> str:
    """Path or address of the image of a task. Raises DataError if there is none or several."""
    texts = data.items() if isinstance(data, dict) else ()
    paths = {key: _path(one) for key, one in texts if is_name(one) and not one.startswith("data:")}
    images = {key: one for key, one in paths.items() if _IMAGE.search(one)} or paths
    if "image" in images:
        return images["image"]
    if len(images) != 1:
        raise DataError(f"the data {shown(data)}, expected the path or address of one image")
    return next(iter(images.values()))


def _path(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError:  # brackets that hold no address
        return text
    if file := parse_qs(parts.query).get("d"):
        return file[0]
    is_address = parts.scheme in ("http", "https") or text.startswith("/data/")
    return unquote(parts.path) if is_address else text


def _add(name: str, annotation: dict[str, Any], place: str, file: Path, found: Collector) -> None:
    """Add the image of a task with its shapes. Raises DataError."""
    regions = [one for _, one in found.objects(file, annotation, "result")]
    named = {shown(one.get("id")) for one in regions if str(one.get("type")).endswith("labels")}
    named.discard("None")
    sizes = {whole_size(one.get("original_width"), one.get("original_height")) for one in regions}
    sizes.discard(None)
    if len(sizes) > 1:
        raise DataError(f"regions on images of several sizes: {shown(sizes)}")
    size = next(iter(sizes), None)
    shapes = []
    for number, region in enumerate(regions, 1):
        kind = str(region.get("type"))
        if kind in _NO_AREA:
            found.leave_out("points and lines")
        # A rectangle beside a tag `Labels` is there twice: once without a label.
        if kind not in _TYPES or (kind in _AREAS and shown(region.get("id")) in named):
            continue
        try:
            shapes.append(_shape(kind, region, size))
        except DataError as error:
            region_place = f"{place}, region {number} ({kind})"
            found.problem(file, f"{error}; correct it in Label Studio", region_place)
        else:
            found.add_class(shapes[-1].label)
    found.add(file, name, size, shapes, relative=size is None)


def _shape(kind: str, region: dict[str, Any], size: tuple[int, int] | None) -> Shape:
    """The shape of a region. Raises DataError."""
    value = region.get("value")
    if not isinstance(value, dict):
        raise DataError(f"the value {shown(value)}, expected an object {{…}}")
    labels = value.get(kind)
    if not isinstance(labels, list) or len(labels) != 1 or not is_name(labels[0]):
        raise DataError(f"the labels {shown(labels)}, expected one for each region")
    if turned := region.get("image_rotation"):
        raise DataError(f"the image is turned by {shown(turned)} degrees; turn it back")
    if "rle" in value or "imageDataURL" in value:
        if not size:
            raise DataError("a mask without original_width and original_height")
        is_brush = "rle" in value
        mask = decoded(value["rle"], *size) if is_brush else _bitmask(value["imageDataURL"], size)
        return Shape(labels[0], mask=mask)
    return Shape(labels[0], [[_ring(value, size)]])


def _ring(value: dict[str, Any], size: tuple[int, int] | None) -> Ring:
    """The ring of a region in pixels; in shares of the image if its size is not known."""
    across, down = size or (1, 1)
    scale = across / 100, down / 100
    if "points" in value:
        if not isinstance(value["points"], list):
            raise DataError(f"the points {shown(value['points'])}, expected a list of pairs")
        return ring(value["points"], scale)
    x, y, turned = (_number(value, key) for key in ("x", "y", "rotation"))
    if turned and not size:
        raise DataError("a turned region without original_width and original_height")
    centre = x * scale[0], y * scale[1]
    if "radiusX" in value:
        radius_x, radius_y = (_number(value, key) for key in ("radiusX", "radiusY"))
        return ellipse(*centre, radius_x * scale[0], radius_y * scale[1], turned)
    width, height = (_number(value, key) for key in ("width", "height"))
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)]) * scale
    return ring(rotated(corners, turned) + centre)


def _number(value: dict[str, Any], key: str) -> float:
    found = value.get(key, 0 if key == "rotation" else None)
    if not isinstance(found, int | float) or not abs(found) <= FARTHEST:
        raise DataError(f"{key} is {shown(found)}, expected a number")
    return float(found)


def _bitmask(url: Any, size: tuple[int, int]) -> Runs:
    """The pixels of a PNG that are not transparent. Raises DataError."""
    with explained("imageDataURL", "PNG", "draw it again"):
        content = base64.b64decode(url.partition("base64,")[2], validate=True)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            # Before its pixels are decoded, which may be many.
            if image.size != size:
                raise DataError(f"a bitmask of the size {image.size}, expected {size}")
            covered = np.asarray(image.convert("RGBA"))[..., 3] > 0
    return runs_of(covered)


class _Bits:
    """Reads numbers of any count of bits, the highest first. Raises DataError at the end."""

    def __init__(self, rle: Any):
        try:
            self.data = bytes(rle if isinstance(rle, list) else [])
        except (TypeError, ValueError, OverflowError):
            self.data = b""
        self.place = 0

    def _bytes(self, width: int) -> bytes:
        """The bytes of the next bits."""
        first, self.place = self.place // 8, self.place + width
        if self.place > 8 * len(self.data):
            raise DataError("the rle of a brush, which is damaged or cut")
        return self.data[first : -(-self.place // 8)]

    def number(self, width: int) -> int:
        number = int.from_bytes(self._bytes(width), "big") >> -self.place % 8
        return number & ((1 << width) - 1)

    def numbers(self, width: int, count: int) -> np.ndarray:
        """The next numbers, int64 (count,)."""
        skipped = self.place % 8
        bits = np.unpackbits(np.frombuffer(self._bytes(width * count), np.uint8))
        bits = bits[skipped : skipped + width * count].reshape(count, width)
        return bits @ (1 << np.arange(width)[::-1])


def decoded(rle: Any, width: int, height: int) -> Runs:
    """Which pixels a brush covers: those that are not transparent. Raises DataError.

    rle: bytes as numbers 0..255, the run lengths of thi.ng/rle-pack. Its values are red, green,
    blue and opacity of each pixel, row by row. A header gives their number (32 bits), how many bits
    each has (5), and the bits of four sizes of a length (4 each). Each run then has: a bit, whether
    one value repeats; two bits, which size its length has; the length; one value, or as many as the
    length. All numbers are less by one, except for the first and the values.
    """
    bits = _Bits(rle)
    if (values := bits.number(32)) != 4 * width * height:
        raise DataError(f"a brush of {values} values, expected 4 x {width} x {height}")
    bits_of_value = bits.number(5) + 1
    sizes = [bits.number(4) + 1 for _ in range(4)]
    # Run lengths in pixels, and whether they are covered; the first run is off.
    lengths, covered, at = [np.zeros(1, np.int64)], [np.zeros(1, bool)], 0
    while at < values:
        repeats = bits.number(1)
        end = at + 1 + bits.number(sizes[bits.number(2)])
        if end > values:
            raise DataError("the rle of a brush, whose runs do not add up")
        found = bits.numbers(bits_of_value, 1 if repeats else end - at)
        # The opacity of pixel p is the value 4 p + 3.
        covered.append((found if repeats else found[3 - at % 4 :: 4]) > 0)
        pixels = end // 4 - at // 4
        lengths.append(np.full(1, pixels) if repeats else np.ones(pixels, np.int64))
        at = end
    on = np.concatenate(covered)
    starts = np.flatnonzero(np.diff(on, prepend=True))
    return runs(np.add.reduceat(np.concatenate(lengths), starts), height, width)


FORMAT = AnnotationFormat("Label Studio", (".json",), _recognises, _read)
