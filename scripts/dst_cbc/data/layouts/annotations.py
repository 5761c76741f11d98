"""A folder of images, and files of a labeling tool that describe shapes in some of them.

Masks are drawn from the shapes before the workflow plans its jobs, in `results/<study>/masks`. The
images are used in place.
"""

from collections.abc import Iterator
from pathlib import Path

from ...runtime.errors import DataError
from ...runtime.tables import read_csv
from ...settings.data import DatasetStage, PairSettings
from .layout import IMAGE_SUFFIXES, Layout, Record, each_page, files_below
from .pairs import in_subsets

DRAWN_MASKS = "masks.csv"
"""List of the masks that are drawn, in their folder."""
COLUMNS = ("id", "mask", "file", "shapes")
"""Its columns. mask: path in the folder. file: the annotation file, a path below the data set's
folder. shapes: their number."""


def images_of(root: Path, pairs: PairSettings) -> list[tuple[str, str]]:
    """Return id and path below `root` of each image, sorted; each page of a stack is an image.

    Raises DataError without a folder.
    """
    if not (root / pairs.images).is_dir():
        raise DataError(f"{root / pairs.images}: no such folder; `pairs` names it, below `data`")
    found = sorted(files_below(root, pairs.images, IMAGE_SUFFIXES, pairs.labels))
    pages = (each_page(root, id, image, id, lambda _: "") for id, image in found)
    return [(id, image) for of_file in pages for id, image, _ in of_file]


def drawn_masks(folder: Path) -> dict[str, str]:
    """Return the mask of each image by id, a path in the folder of the drawn masks."""
    return {row["id"]: row["mask"] for row in read_csv(folder / DRAWN_MASKS, COLUMNS)}


def _records(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    assert dataset.pairs is not None and dataset.drawn is not None
    drawn = drawn_masks(Path(dataset.drawn))
    images = images_of(root, dataset.pairs)
    found = [(id, image, drawn.get(id, "")) for id, image in images]
    return in_subsets(root, dataset.pairs, found, dataset.group_pattern)


LAYOUT = Layout(
    _records,
    left_out="in a group of which other images are held out for val or test",
)
