"""Images and masks, in one folder per subset.

Images are `images/<subset>/<id>.jpg` (or another type of image), masks `labels/<subset>/<id>.png`
(or `.tif`, `.bmp`). `<subset>` is `train`, `val` or `test`; an id may contain folders. A training
image without a mask is unlabeled. The pages of a TIFF stack are images; its mask has as many pages,
or each page has a mask of its own.
"""

from collections.abc import Iterator
from pathlib import Path

from ...runtime.errors import DataError
from ...settings.data import DatasetStage, PairSettings
from .layout import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    Layout,
    Record,
    each_page,
    files_below,
    masks_by_name,
)


def _records(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    """Yield images/<subset>/<id>.<png|jpg|…>, mask labels/<subset>/<id>.<png|…> if there is one.

    Raises DataError when an image has two masks, or a stack one of another number of pages.
    """
    for subset in ("train", "val", "test"):
        masks: dict[str, str] = {}
        for id, path in files_below(root, f"labels/{subset}", MASK_SUFFIXES, "images"):
            if masks.setdefault(id, path) != path:
                raise DataError(f"{root}: two masks of {id!r}: {masks[id]} and {path}; keep one")
        mask_of = masks_by_name(masks)
        for id, path in files_below(root, f"images/{subset}", IMAGE_SUFFIXES, "labels"):
            for page in each_page(root, id, path, id, mask_of):
                yield Record(*page, subset)


LAYOUT = Layout(
    _records,
    folders=lambda dataset: PairSettings(images="images", labels="labels"),
    left_out="not below train, val or test; move them there",
)
