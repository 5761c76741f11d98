"""What all layouts share: the records that they yield, and the search for image files."""

import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...settings.data import IGNORED, DatasetStage, PairSettings
from .listing import entries


@dataclass(frozen=True)
class Record:
    """One image. image, label: paths below the data set's folder, with `/`; label may be ""."""

    id: str
    image: str
    label: str
    subset: str


@dataclass(frozen=True)
class Layout:
    """How a format lists its images, and what an experiment need not say about it.

    classes: name: '#rrggbb'. labels: mask value: class; None where masks hold 0, 1, 2, … in the
    order of the classes. ignore: mask values without a class. valtiny: ids of the authors' few
    validation images. hint: end of the message that the data set's folder is missing.
    folders: where images and masks lie, and how a mask is named; None if lists say it. left_out:
    which images below the folder the format does not use.
    """

    records: Callable[[Path, DatasetStage], Iterator[Record]]
    classes: Mapping[str, str] | None = None
    labels: Mapping[int, str] | None = None
    ignore: tuple[int, ...] = (IGNORED,)
    valtiny: tuple[str, ...] = ()
    hint: str = ""
    folders: Callable[[DatasetStage], PairSettings | None] = lambda dataset: None
    left_out: str = ""


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")


def files_below(
    root: Path, folder: str, suffixes: tuple[str, ...], apart: str | None = None
) -> Iterator[tuple[str, str]]:
    """Yield id and path below `root` of each file with one of the suffixes, sorted by path.

    Subfolders are searched, too, and links to folders. Hidden files are left out, as is what
    systems leave behind (`listing.is_left_behind`). apart: a folder below `root` to leave out.
    """
    for entry in entries(root / folder, None if apart is None else root / apart):
        id, suffix = os.path.splitext(entry.path)
        if entry.kind == "file" and suffix.lower() in suffixes:
            yield id, (PurePosixPath(folder) / entry.path).as_posix()


def same_name(name: str) -> str:
    """Return a name in Unicode's form NFC. Some systems store an accent as a letter of its own."""
    return unicodedata.normalize("NFC", name)
