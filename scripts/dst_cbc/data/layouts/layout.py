"""What all layouts share: the records that they yield, and how files of a kind are found."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...settings.data import IGNORED, DatasetStage


@dataclass(frozen=True)
class Record:
    """One image: paths below the data set's folder, with `/`; label "" where there is none."""

    id: str
    image: str
    label: str
    subset: str


@dataclass(frozen=True)
class Layout:
    """What a format knows by itself.

    labels: None where masks hold 0, 1, 2, … in classes' order. valtiny: ids of val.
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
    """Id and path below `root` of each file of these kinds in a folder and the folders in it."""
    for path in (root / folder).rglob("*"):
        if path.suffix.lower() in suffixes and path.is_file():
            id = path.relative_to(root / folder).with_suffix("").as_posix()
            yield id, path.relative_to(root).as_posix()
