"""YOLO's segmentation labels: for each image a text file with a line for each object.

A line has the number of its class, then x and y of each corner as shares of the image's width and
height. The names of the classes stand in a YAML file, or in classes.txt, beside the labels or up to
four folders above. An image is named by the path of its text file without the suffix, with `images`
for `labels`, from the folder on that all files are in: `images/train/a` for labels/train/a.txt, if
there is also labels/val.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from ...runtime.errors import DataError
from ...runtime.escape import shown
from ...runtime.reading import read_text
from ...settings.yaml_files import ConfigError, read_yaml
from .collector import Collector, is_name
from .shapes import AnnotationFormat, Annotations, Shape, ring

NAMES = ("data.yaml", "dataset.yaml", "classes.txt")
"""Files that name the classes, whatever is in them."""
ABOVE = 5
"""The folder of a label file and so many less one above it may hold the names."""
MOST_SHARE = 2.0
"""A coordinate beyond is no share of the width or height, but a number of pixels."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LINE = re.compile(rf"\s*{_NUMBER}(?:[ \t]+{_NUMBER}){{4}}")
_NAMES = re.compile(r"^names\s*:", re.MULTILINE)
_WHERE = re.compile(r"^(train|val|valid|test|path|nc)\s*:", re.MULTILINE)
_ONLY_BOX = (
    "lines of 5 numbers are boxes, which do not say which pixels are of the class; draw outlines, "
    "or export for segmentation instead of detection"
)


def _recognises(path: Path, start: bytes) -> bool:
    if path.suffix.lower() == ".yaml":
        text = start.decode("utf-8", "ignore")
        return bool(_NAMES.search(text) and _WHERE.search(text))
    if path.suffix.lower() != ".txt" or path.name.lower() in NAMES:
        return False
    if not start.strip():  # An empty file says of an image that it has no objects.
        return any(os.path.isfile(folder / name) for folder in _around(path) for name in NAMES)
    return bool(_LINE.match(start.decode("utf-8", "ignore").lstrip("\ufeff")))


def _around(path: Path) -> Sequence[Path]:
    """The folders that may hold the names of the classes of a label file, the nearest first."""
    return [*path.parents][:ABOVE]


@dataclass
class _Names:
    """Names of classes by their numbers, from `file`; None where none could be read."""

    file: Path | None = None
    names: dict[int, str] | None = None


def _read(files: Sequence[Path]) -> Annotations:
    given = [file for file in files if file.suffix.lower() == ".yaml"]
    labels = [file for file in files if file.suffix.lower() != ".yaml"]
    found = Collector(files)
    if not labels:
        for file in given:
            found.problem(file, "no labels are given; give the folder that holds them, too")
        return found.annotations()
    names_of = cache(lambda file: _names(file, found))
    file_of = cache(lambda folder: _names_file(folder, given, found))
    listing = {place for file in labels if (place := file_of(file.parent))}
    for file, image in _image_names(labels).items():
        names = names_of(place) if (place := file_of(file.parent)) else _Names()
        for name in (names.names or {}).values():
            found.add_class(name)
        found.add(file, image, None, _shapes(file, names, found), relative=True)
    return replace(found.annotations(), others=sorted(listing))


def _names_file(folder: Path, given: Sequence[Path], found: Collector) -> Path | None:
    """The file that names the classes of the labels in `folder`; a problem if there is none."""
    for above in _around(folder / "labels.txt"):
        near = {above / name for name in NAMES[:2] if os.path.isfile(above / name)}
        here = sorted(near.union(file for file in given if file.parent == above))
        if not here and os.path.isfile(above / NAMES[2]):
            here = [above / NAMES[2]]
        if len(here) > 1:
            found.problem(here[0], f"{here[1]} names classes, too; keep one of them there")
        if here:
            return here[0]
    found.problem(
        folder,
        f"no {', '.join(NAMES)} there or up to four folders above; copy there the file that names "
        "the classes",
    )
    return None


def _names(file: Path, found: Collector) -> _Names:
    names: Any = None
    try:
        if file.suffix.lower() != ".yaml":
            lines = [line.strip() for line in read_text(file).rstrip().split("\n")]
            content, names = {}, dict(enumerate(lines))
        else:
            content = read_yaml(file)
            listed = content.get("names")
            names = dict(enumerate(listed)) if isinstance(listed, list) else listed
    except (DataError, ConfigError, OSError) as error:
        found.problem(file, " ".join(str(error).removeprefix(f"{file}: ").split()))
        return _Names(file)
    if "kpt_shape" in content:
        fault = "`kpt_shape`: its labels are boxes and key points; export for segmentation"
        found.problem(file, fault)
    try:
        named = {int(number): name for number, name in dict(names).items()}
    except (TypeError, ValueError):
        found.problem(file, f"`names` is {shown(names)}, expected a list, or number: name")
        return _Names(file)
    for number, name in named.items():
        if not is_name(name):
            fault = f"the name {shown(name)} of class {number}, expected text, in quotes"
            found.problem(file, fault)
    return _Names(file, {number: name for number, name in named.items() if is_name(name)})


def _image_names(labels: Sequence[Path]) -> dict[Path, str]:
    """The name of its image for each label file."""
    top = Path(os.path.commonpath([file.parent for file in labels])).parent
    paths = {file: PurePath(os.path.relpath(file.with_suffix(""), top)) for file in labels}
    return {
        file: "/".join("images" if part == "labels" else part for part in path.parts)
        for file, path in paths.items()
    }


def _shapes(file: Path, names: _Names, found: Collector) -> list[Shape]:
    shapes = []
    try:
        with found.problems_of(file):
            for number, line in enumerate(read_text(file).split("\n"), 1):
                words = line.split()
                if len(words) == 5:
                    found.problem(file, _ONLY_BOX)
                elif words:
                    with found.problems_of(file, f"line {number}"):
                        shapes.append(_shape(words, names))
    except OSError as error:
        found.problem(file, f"cannot be read ({error.strerror})")
    return shapes


def _shape(words: Sequence[str], names: _Names) -> Shape:
    """The object of a line. Raises DataError."""
    try:
        number, shares = int(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        raise DataError(
            f"found {shown(' '.join(words[:9]))}, expected the number of a class and x y x y …"
        ) from None
    if names.names is not None and number not in names.names:
        raise DataError(f"the class {number}, which {names.file} does not name; correct it")
    if len(shares) % 2:
        raise DataError(f"{len(shares)} coordinates, expected an even count: x y x y …")
    far = [share for share in shares if not abs(share) <= MOST_SHARE]
    if far:
        raise DataError(
            f"the coordinate {far[0]:g}, expected shares of the image's width and height, 0 to 1"
        )
    label = names.names[number] if names.names else str(number)
    return Shape(label, [[ring(zip(shares[::2], shares[1::2], strict=True))]])


FORMAT = AnnotationFormat("YOLO segmentation", (".txt", ".yaml"), _recognises, _read, one_each=True)
