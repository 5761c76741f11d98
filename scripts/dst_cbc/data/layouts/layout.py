"""What all layouts share: the records that they yield, and the search for image files."""

import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...runtime.errors import DataError
from ...settings.data import IGNORED, DatasetStage, PairSettings
from ..pages import listed, numbered, stack_of
from .listing import entries


@dataclass(frozen=True)
class Record:
    """One image. image, label: paths below the data set's folder, with `/`; label may be "".

    The path of a page of a stack is the file and its number: `images/stack.tif/0003`.
    """

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


def masks_by_name(masks: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that gives the mask of a name, or ""; its Unicode form may differ."""
    composed = {same_name(name): path for name, path in masks.items()}
    return lambda name: masks.get(name) or composed.get(same_name(name), "")


def each_page(
    root: Path, id: str, image: str, name: str, mask_of: Callable[[str], str]
) -> Iterator[tuple[str, str, str]]:
    """Yield (id, image, mask) of each page of an image, mask "" if there is none.

    A stack has a mask of as many pages, or its pages have masks of their own, such as `NAME/0003`.
    name: that the image shares with its mask. Raises DataError if image and mask have different
    numbers of pages.
    """
    mask = mask_of(name)
    images, masks = listed(root, image), listed(root, mask, mask=True) if mask else []
    if mask and len(images) != len(masks):
        for path in (image, mask):
            # If it is damaged, this says so.
            stack_of(root / path)
        raise DataError(
            f"{root / mask}: a mask of {_pages(masks)}, but its image, {root / image}, has "
            f"{_pages(images)}; expected as many. Masks of single pages may be files: "
            f"{name}/{numbered(1)}.png and so on, in the folder of the masks"
        )
    if len(images) == 1:
        yield id, image, mask
        return
    for number, page in enumerate(images, 1):
        last = numbered(number)
        yield f"{id}/{last}", page, masks[number - 1] if mask else mask_of(f"{name}/{last}")


def _pages(paths: Sequence[str]) -> str:
    return f"{len(paths)} pages" if len(paths) > 1 else "one page"


def same_name(name: str) -> str:
    """Return a name in Unicode's form NFC. Some systems store an accent as a letter of its own."""
    return unicodedata.normalize("NFC", name)
