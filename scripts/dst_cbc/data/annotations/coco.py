"""COCO JSON: one file for many images, with polygons or run lengths of masks.

Polygons of one annotation are united. Crowds are ignored, but not in files of CVAT and Datumaro,
which mark every mask as a crowd. An image has the `file_name` that its file gives. With several
files, the folder of its file stands before it, from the folder on that all files are in: Roboflow's
files give `train/a.jpg` and `valid/a.jpg`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import DataError
from ...runtime.escape import shown
from .collector import Collector, collect, is_name, load_json, whole_size
from .shapes import AnnotationFormat, Annotations, Runs, Shape, ring, runs

_LISTS = re.compile(r'"(images|annotations|categories)"\s*:\s*\[')
_KEYS = re.compile(r'"(file_name|image_id|category_id|supercategory)"\s*:')
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_ONLY_BOX = (
    "a box without `segmentation`, which does not say which pixels are of the class; draw outlines "
    "or masks instead. Where boxes are areas, export another format, such as Label Studio's JSON "
    "or CVAT's XML"
)
_DATUMARO = [{"name": "", "id": 0, "url": ""}]
"""The `licenses` of every file that Datumaro writes, and CVAT with it."""


def _recognises(path: Path, start: bytes) -> bool:
    text = start.decode("utf-8", "ignore").lstrip("\ufeff \t\r\n")
    lists = set(_LISTS.findall(text))
    is_coco = len(lists) > 1 or (lists and _KEYS.search(text))
    return path.suffix.lower() == ".json" and text.startswith("{") and bool(is_coco)


@dataclass
class _Content:
    """What one file holds; the keys of all dictionaries are ids."""

    file: Path
    found: Collector
    images: dict[str, tuple[str, tuple[int, int] | None]] = field(default_factory=dict)
    categories: dict[str, dict[str, Any]] = field(default_factory=dict)
    shapes: dict[str, list[Shape]] = field(default_factory=dict)
    crowds: int = 0
    has_crowds: bool = True

    def objects(self, content: dict[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
        return self.found.objects(self.file, content, key)

    def problem(self, what: str, place: str) -> None:
        self.found.problem(self.file, what, place)


def _read(files: Sequence[Path]) -> Annotations:
    contents: list[_Content] = []

    def read_file(file: Path, found: Collector) -> None:
        content = load_json(file)
        if not isinstance(content, dict):
            raise DataError(f"{file}: found {shown(content)}, expected an object {{…}}")
        one = _Content(file, found, has_crowds=content.get("licenses") != _DATUMARO)
        _read_images(one, content)
        _read_categories(one, content)
        for number, annotation in one.objects(content, "annotations"):
            _read_annotation(one, number, annotation)
        for id, (name, size) in one.images.items():
            found.add(file, found.image_name(file, name), size, one.shapes.get(id, []))
        contents.append(one)

    found = collect(files, read_file)
    _add_classes(contents, found)
    if crowds := sum(one.crowds for one in contents):
        found.notice(f"{crowds:,} crowds (`iscrowd`: 1) have no class: their pixels are ignored")
    return found.annotations()


def _id(value: Any) -> str | None:
    """An id as text, because some programs write numbers and text for the same id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # More digits Python does not write.
    is_id = isinstance(value, str) or (isinstance(value, int) and abs(value) < 1 << 64)
    return str(value) if is_id and not isinstance(value, bool) else None


def _read_images(one: _Content, content: dict[str, Any]) -> None:
    for number, image in one.objects(content, "images"):
        id, name = _id(image.get("id")), image.get("file_name")
        place = f"image {number}"
        if id is None or id in one.images:
            one.problem(f"the id {shown(image.get('id'))}, expected one for each image", place)
        elif not is_name(name):
            one.problem(f"the file_name {shown(name)}, expected the name of its image", place)
        else:
            size = None
            with one.found.problems_of(one.file, place):
                size = whole_size(image.get("width"), image.get("height"))
            one.images[id] = name, size


def _read_categories(one: _Content, content: dict[str, Any]) -> None:
    for number, category in one.objects(content, "categories"):
        id, name = _id(category.get("id")), category.get("name")
        place = f"category {number}"
        if not is_name(name):
            one.problem(f"the name {shown(name)}, expected the name of a class", place)
        elif id is None or one.categories.get(id, category)["name"] != name:
            one.problem(
                f"the id {shown(category.get('id'))}, expected one for each category", place
            )
        else:
            one.categories[id] = category


def _read_annotation(one: _Content, number: int, annotation: dict[str, Any]) -> None:
    image, category = (_id(annotation.get(key)) for key in ("image_id", "category_id"))
    place = f"annotation {number}"
    if "segments_info" in annotation:
        one.problem(
            "COCO's panoptic form, whose masks are PNG files; give the instances instead", place
        )
    elif image not in one.images:
        found = shown(annotation.get("image_id"))
        one.problem(f"the image_id {found}, which no image has", place)
    elif category not in one.categories:
        found = shown(annotation.get("category_id"))
        one.problem(f"the category_id {found}, which no category has", place)
    else:
        label, (name, size) = one.categories[category]["name"], one.images[image]
        try:
            shape = _shape(one, annotation, label, size)
        except DataError as error:
            one.problem(f"{error}; correct or delete it", f"{place} ({shown(label)} in {name})")
        else:
            one.shapes.setdefault(image, []).extend([shape] if shape else [])


def _shape(
    one: _Content, annotation: dict[str, Any], label: str, size: tuple[int, int] | None
) -> Shape | None:
    """The shape of an annotation, None if it has no area. Raises DataError."""
    segmentation = annotation.get("segmentation")
    ignored = one.has_crowds and annotation.get("iscrowd") == 1
    one.crowds += ignored
    if isinstance(segmentation, dict):
        return Shape(label, mask=_mask(segmentation, size), ignored=ignored)
    if not segmentation and isinstance(segmentation, list | None):
        if not annotation.get("keypoints"):
            raise DataError(_ONLY_BOX)
        one.found.leave_out("annotations with key points")
        return None
    if not isinstance(segmentation, list) or not all(
        isinstance(part, list) for part in segmentation
    ):
        raise DataError(
            f"the segmentation {shown(segmentation)}, expected lists of numbers x, y, x, y, …"
        )
    if any(len(part) % 2 for part in segmentation):
        raise DataError("a polygon with an odd count of numbers, expected x, y, x, y, …")
    areas = [part for part in segmentation if len(part) >= 6]
    for _ in range(len(segmentation) - len(areas)):
        one.found.leave_out("polygons with fewer than three points")
    polygons = [[ring(zip(part[::2], part[1::2], strict=True))] for part in areas]
    return Shape(label, polygons, ignored=ignored) if polygons else None


def _mask(segmentation: dict[str, Any], size: tuple[int, int] | None) -> Runs:
    shape, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(shape, list) or len(shape) != 2:
        raise DataError(f"a mask of the size {shown(shape)}, expected [height, width]")
    if size and shape != [size[1], size[0]]:
        expected = f"[{size[1]}, {size[0]}], the height and width of its image"
        raise DataError(f"a mask of the size {shown(shape)}, expected {expected}")
    if isinstance(counts, str):
        counts = decoded(counts)
    if not isinstance(counts, list | np.ndarray):
        raise DataError(f"the counts {shown(counts)}, expected a list or a text of run lengths")
    return runs(counts, shape[0], shape[1], by_columns=True)


def decoded(text: str) -> np.ndarray:
    """Run lengths, int64 (N,), of COCO's compressed text. Raises DataError if it is none.

    A character holds 5 bits, the lowest first, plus 48; 32 more means that the number goes on. The
    last bit is the sign. From the fourth number on, each is the difference from the one two before.
    """
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 32) == 0)
    if not len(ends) or ends[-1] < len(codes) - 1 or codes.min() < 0 or codes.max() > 63:
        raise DataError(f"the counts {shown(text)}, expected the text that pycocotools writes")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        raise DataError("counts with a number of more than 40 bits")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((codes & 31) << shifts, starts)
    numbers -= ((codes[ends] & 16) != 0).astype(np.int64) << 5 * lengths
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _add_classes(contents: Sequence[_Content], found: Collector) -> None:
    """Add names and colours; Roboflow's first category, the group of the others, is no class."""
    categories = [one for content in contents for one in content.categories.values()]
    used = {shape.label for one in contents for shapes in one.shapes.values() for shape in shapes}
    groups = {
        group
        for one in categories
        if isinstance(group := one.get("supercategory"), str) and group != one["name"]
    }
    for one in categories:
        if one["name"] in used or one["name"] not in groups:
            found.add_class(one["name"], _colour(one.get("color")))


def _colour(value: Any) -> str | None:
    if isinstance(value, list) and len(value) == 3:
        if all(isinstance(one, int) and 0 <= one <= 255 for one in value):
            return "#{:02x}{:02x}{:02x}".format(*value)
    elif isinstance(value, str) and _COLOUR.fullmatch(value):
        return value.lower()
    return None


FORMAT = AnnotationFormat("COCO", (".json",), _recognises, _read)
