"""Finds the image of each entry of annotation files, by the name that the entry gives."""

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ...runtime.errors import first_of
from ..layouts.layout import IMAGE_SUFFIXES, same_name
from ..pages import file_of, split
from .shapes import Annotated, Annotations

NAMED = 3
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of an uploaded file."""
_OME = re.compile(r"\.ome(?=/\d+$|$)", re.IGNORECASE)
"""What QuPath and ImageJ leave out of the name of an OME-TIFF with its ending."""


class Images:
    """The images of a data set, to be found by a name or by the end of a path.

    images: id: path.
    """

    def __init__(self, images: Mapping[str, str]):
        self._ids: dict[str, set[str]] = defaultdict(set)
        for id, path in images.items():
            # The number of a page alone names no image.
            least = 2 if split(PurePosixPath(path))[1] else 1
            for name in (id, path, os.path.splitext(path)[0], _OME.sub("", id)):
                parts = same_name(name).split("/")
                for start in range(len(parts) - least + 1):
                    self._ids["/".join(parts[start:])].add(id)

    def named(self, name: str) -> set[str]:
        """Return the ids of the images that a name of an annotation file may mean.

        The longest end of the name that is the end of an image's path decides, with or without
        the ending of the file.
        """
        parts = [
            part for part in re.split(r"[/\\]", same_name(name)) if part not in ("", ".", "..")
        ]
        for last in (parts[-1:], [_UPLOADED.sub("", parts[-1])] if parts else []):
            whole = [*parts[:-1], *last]
            for start in range(len(whole)):
                end = "/".join(whole[start:])
                stem, suffix = os.path.splitext(end)
                forms = (end, stem) if suffix.lower() in IMAGE_SUFFIXES else (end,)
                for form in forms:
                    if form in self._ids:
                        return self._ids[form]
        return set()


def matched(
    found: Annotations, images: Mapping[str, str], partial: bool, folder: Path
) -> tuple[dict[str, Annotated], list[str], list[str]]:
    """Return the entry of each image by id, problems `file: what is wrong`, and notices.

    images: id: path of all images. partial: whether entries of images that are not there are left
    out; otherwise they are a problem. folder: of the images, for messages.
    """
    names = Images(images)
    stacks = Images(
        {file_of(path): file_of(path) for path in images.values() if file_of(path) != path}
    )
    by_id: dict[str, Annotated] = {}
    problems = [
        f"{file}: has the name of an image, but is damaged or of another format; export it again, "
        "or move it elsewhere"
        for file in found.unread
        if names.named(str(file.with_suffix("")))
    ]
    absent = []
    for one in found.images:
        ids = names.named(one.image)
        if len(ids) != 1:
            # Where files lie as their images do, the folders of the file say which one it is.
            ids = names.named(f"{one.file.parent.as_posix()}/{one.image}")
        if len(ids) > 1:
            first, second = sorted(images[id] for id in ids)[:2]
            problems.append(
                f"{one.file}: the name {one.image!r} may mean {first} and {second}; give the path "
                "of the image, or rename one of them"
            )
        elif not ids and one.shapes and (files := stacks.named(one.image)):
            page = min(id for id, path in images.items() if file_of(path) in files)
            problems.append(
                f"{one.file}: {one.image!r} is a stack; expected shapes of its pages, such as "
                f"{page!r}"
            )
        elif not ids:
            # Without a shape, nothing is lost.
            absent += [one] if one.shapes else []
        elif (before := by_id.setdefault(min(ids), one)) is not one:
            problems.append(
                f"{one.file}: describes {images[min(ids)]}, which {before.file} describes, too; "
                "keep one of the two"
            )
    if not absent:
        return by_id, problems, []
    names = first_of([one.image for one in absent], NAMED)
    shaped = sum(bool(one.shapes) for one in found.images)
    said = f"{len(absent)} of {shaped} images with shapes are not below {folder}: {names}"
    if partial:
        return by_id, problems, [f"{said}; they are left out"]
    problems.append(
        f"{absent[0].file}: {said}. Put them there, or leave them out: new_experiment.py "
        "--partial, or `partial: true` under `annotations`"
    )
    return by_id, problems, []
