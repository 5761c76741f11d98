"""What all layouts share: the records that they yield, and the search for image files."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...settings.data import IGNORED, DatasetStage


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
    """

    records: Callable[[Path, DatasetStage], Iterator[Record]]
    classes: Mapping[str, str] | None = None
    labels: Mapping[int, str] | None = None
    ignore: tuple[int, ...] = (IGNORED,)
    valtiny: tuple[str, ...] = ()
    hint: str = ""


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")


def files_below(root: Path, folder: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield id and path below `root` of each file with one of the suffixes, also in subfolders."""
    for path in (root / folder).rglob("*"):
        if path.suffix.lower() in suffixes and path.is_file():
            id = path.relative_to(root / folder).with_suffix("").as_posix()
            yield id, path.relative_to(root).as_posix()
