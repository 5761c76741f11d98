"""Draws the masks of a data set from annotation files, once, and again when something changes."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ...runtime import escape, pool
from ...runtime.errors import DataError, by_cause
from ...runtime.files import sha256, write_text
from ...runtime.paths import inside
from ...runtime.reading import read_text
from ...runtime.tables import read_csv, write_csv
from ...settings.data import IGNORED, AnnotationSettings, DatasetStage, PairSettings
from ..images import DIED, size_of
from ..layouts.annotations import COLUMNS, DRAWN_MASKS, images_of
from ..masks import write_indexed_png
from ..pages import file_of
from .drawing import draw
from .matching import matched
from .shapes import Annotated, Annotations
from .sources import candidates, read

STAMP = ".drawn_from"
"""File in the folder of masks: SHA-256 of all that they depend on, and of the masks, with times
instead of contents of files."""
_MANY = 100
"""From this number of masks on, several processes draw."""
_MOST_BYTES = 1000


@dataclass(frozen=True)
class Entry:
    """An image with shapes, or one that counts as labeled without. image: path below the data."""

    id: str
    image: str
    annotated: Annotated


def draw_masks(root: Path, dataset: DatasetStage, known: Sequence[Entry] | None = None) -> None:
    """Draw the masks of `format: annotations` into `dataset.drawn`, if they are not up to date.

    It reads nothing but names, sizes and times if nothing has changed; other formats have nothing
    to draw. known: what `entries_of` has just returned; if None, the files are read, and notices
    are printed to stderr. Raises DataError that names everything that is wrong in the annotation
    files; then no mask is written.
    """
    if dataset.annotations is None:
        return
    assert dataset.pairs is not None and dataset.drawn is not None
    folder, source = Path(dataset.drawn), root / dataset.pairs.labels
    images = images_of(root, dataset.pairs)
    stamp = _stamp(root, dataset, images)
    if _is_current(folder, stamp):
        return
    if known is None:
        found = read(source)[1]
        known, notices = entries_of(root, dataset.pairs, images, found, dataset.annotations)
        lines = [f"{source}: masks are drawn into {folder}", *notices]
        print(escape.terminal("\n".join(lines)), file=sys.stderr)
    _draw_all(root, folder, known, dataset)
    write_text(folder / STAMP, stamp + _states(folder / mask for mask in sorted(_listed(folder))))


def entries_of(
    root: Path,
    folders: PairSettings,
    images: Sequence[tuple[str, str]],
    found: Annotations,
    settings: AnnotationSettings,
) -> tuple[list[Entry], list[str]]:
    """Return the images that the annotations label, sorted by id, and notices.

    images: id and path below `root`. Raises DataError that lists everything that is wrong.
    """
    paths = dict(images)
    by_id, problems, notices = matched(found, paths, settings.partial, root / folders.images)
    entries, empty = [], 0
    for id, annotated in sorted(by_id.items()):
        empty += not annotated.shapes
        if annotated.shapes or settings.empty == "labeled":
            entries.append(Entry(id, paths[id], annotated))
    problems = [*found.problems, *problems, *_unknown(found, settings.names)]
    problems += filter(None, (_misfit(root, entry) for entry in entries))
    if problems:
        raise DataError(f"{len(problems)} problems in the annotations:\n{by_cause(problems)}")
    if not entries:
        start = (
            f"{root / folders.labels}: no image has a shape that covers an area; expected at least"
        )
        raise DataError("; ".join([f"{start} one labeled image", *found.notices]))
    if empty and settings.empty == "unlabeled":
        notices = [
            *notices,
            f"{empty} images are listed without a shape, and count as unlabeled. If all of them "
            "is background: `empty: labeled` under `annotations`",
        ]
    return entries, [*found.notices, *notices]


def _misfit(root: Path, entry: Entry) -> str:
    """Return how the size that the annotations give contradicts the image; "" if it does not."""
    annotated = entry.annotated
    try:
        size = size_of(root / entry.image)
    except DataError as error:
        return str(error)
    if annotated.size in (None, size):
        return ""
    turned = annotated.size == size[::-1]
    return (
        f"{annotated.file}: {annotated.image} has a size of {annotated.size} there, but the image "
        f"{root / entry.image} has {size}"
        + (", turned as its EXIF orientation says" if turned else "")
        + "; annotate the image as it is now"
    )


def _unknown(found: Annotations, names: Mapping[str, str]) -> list[str]:
    """Describe the labels that no class is given for."""
    first: dict[str, Annotated] = {}
    for image in found.images:
        for shape in image.shapes:
            if shape.label not in names and not shape.ignored:
                first.setdefault(shape.label, image)
    return [
        f"{image.file}: the label {label!r} is not under `annotations.names`; add a line "
        "`LABEL: CLASS` or `LABEL: ignore`"
        for label, image in first.items()
    ]


def _draw_all(root: Path, folder: Path, entries: Sequence[Entry], dataset: DatasetStage) -> None:
    before = _listed(folder)
    one = partial(write_mask, root, folder, dataset)
    if len(entries) < _MANY:
        done = map(one, entries)
    else:
        done = pool.results(one, entries, pool.usable_cores(), _ended)
    bar = tqdm(done, "masks", len(entries), unit="image", disable=None, leave=False)
    problems = [problem for problem in bar if problem]
    if problems:
        raise DataError("\n".join(problems))
    rows = [
        {
            "id": e.id,
            "mask": mask_name(e.id),
            "file": os.path.relpath(e.annotated.file, root),
            "shapes": len(e.annotated.shapes),
        }
        for e in entries
    ]
    write_csv(folder / DRAWN_MASKS, COLUMNS, rows)
    for name in before - {mask_name(e.id) for e in entries}:
        inside(folder, name).unlink(missing_ok=True)


def write_mask(root: Path, folder: Path, dataset: DatasetStage, entry: Entry) -> str:
    """Draw and write one mask; return what is wrong, "" if nothing is."""
    settings, annotated = dataset.annotations, entry.annotated
    assert settings is not None
    classes = {name: number for number, name in enumerate(dataset.classes)} | {"ignore": IGNORED}
    numbers = {label: classes[name] for label, name in settings.names.items()}
    outside = classes[settings.unannotated]
    size = size_of(root / entry.image)
    mask = draw(annotated.shapes, size, numbers, outside, annotated.relative)
    write_indexed_png(inside(folder, mask_name(entry.id)), mask, dataset.classes)
    return ""


def _ended(entry: Entry) -> str:
    return f"{entry.annotated.file}: {entry.annotated.image}: {DIED}"


def mask_name(id: str) -> str:
    """The path of an image's mask in the folder of masks."""
    return f"{id}.png"


def _stamp(root: Path, dataset: DatasetStage, images: Sequence[tuple[str, str]]) -> str:
    assert dataset.pairs is not None and dataset.annotations is not None
    files = [root / path for path in dict.fromkeys(file_of(path) for _, path in images)]
    files += candidates(root / dataset.pairs.labels)
    settings = [dataset.annotations.canonical(), list(dataset.classes.items())]
    return sha256(json.dumps(settings).encode()) + _states(files)


def _states(files: Iterable[Path]) -> str:
    """Return one digest of the names, sizes and times of files; a missing one has none."""
    states = []
    for file in files:
        now = file.stat() if file.is_file() else None
        states.append((str(file), now and (now.st_size, now.st_mtime_ns)))
    return sha256(json.dumps(states).encode())


def _is_current(folder: Path, stamp: str) -> bool:
    try:
        known = read_text(folder / STAMP, _MOST_BYTES)
    except (OSError, DataError):
        return False
    return known == stamp + _states(folder / mask for mask in sorted(_listed(folder)))


def _listed(folder: Path) -> set[str]:
    """Return the masks that the list names; none if it is missing or damaged."""
    try:
        return {row["mask"] for row in read_csv(folder / DRAWN_MASKS, COLUMNS)}
    except (OSError, DataError):
        return set()
