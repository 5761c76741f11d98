"""Finds the annotation files in a folder, and reads them by the format that they are of."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...runtime.errors import DataError
from ...runtime.files import open_regular
from ..layouts.listing import entries
from . import coco, cvat, imagej, label_studio, labelme, qupath, yolo
from .shapes import PEEK, AnnotationFormat, Annotations

FORMATS: Sequence[AnnotationFormat] = (
    coco.FORMAT,
    cvat.FORMAT,
    imagej.FORMAT,
    label_studio.FORMAT,
    labelme.FORMAT,
    qupath.FORMAT,
    yolo.FORMAT,
)
"""All formats; the first one that recognises a file reads it."""


def candidates(path: Path) -> list[Path]:
    """Return the files at `path`, a file or a folder, whose endings are those of annotations."""
    if path.is_file():
        return [path]
    below = [path / entry.path for entry in entries(path) if entry.kind == "file"]
    suffixes = {suffix for one in FORMATS for suffix in one.suffixes}
    return [file for file in below if file.suffix.lower() in suffixes]


def known_formats() -> str:
    """Return the names of all formats, for messages."""
    return ", ".join(one.name for one in FORMATS)


def find(path: Path) -> dict[AnnotationFormat, list[Path]]:
    """Return the annotation files at `path`, a file or a folder, by their format."""
    found: dict[AnnotationFormat, list[Path]] = defaultdict(list)
    for file in candidates(path):
        if one := _format_of(file):
            found[one].append(file)
    return dict(found)


def _format_of(file: Path) -> AnnotationFormat | None:
    try:
        with open_regular(file) as opened:
            start = opened.read(PEEK)
    except (DataError, OSError):
        return None
    for one in FORMATS:
        if file.suffix.lower() in one.suffixes and one.recognises(file, start):
            return one
    return None


def read(path: Path) -> tuple[AnnotationFormat, Annotations]:
    """Read the annotation files at `path`, a file or a folder.

    Raises DataError if there are none, or files of several formats.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder of annotations; `pairs.labels` names it")
    found = find(path)
    if not found:
        raise DataError(
            f"{path}: no annotations found; expected files of {known_formats()}, or a folder of "
            "masks"
        )
    if len(found) > 1:
        kinds = "; ".join(
            f"{one.name}: {len(files)} files, such as {files[0]}" for one, files in found.items()
        )
        raise DataError(f"{path}: annotations of several formats: {kinds}. Give one of them alone")
    ((one, files),) = found.items()
    result = one.read(files)
    if one.one_each:
        unread = {file for file in candidates(path) if file.suffix.lower() in one.suffixes}
        result = replace(result, unread=sorted(unread.difference(files, result.others)))
    return one, result
