"""Images and masks, in one folder per subset.

Images are `images/<subset>/<id>.jpg` (or another type of image), masks `labels/<subset>/<id>.png`
(or `.tif`, `.bmp`). `<subset>` is `train`, `val` or `test`; an id may contain folders. A training
image without a mask is unlabeled.
"""

from collections.abc import Iterator
from pathlib import Path

from ...runtime.errors import DataError
from ...settings.data import DatasetStage
from .layout import IMAGE_SUFFIXES, MASK_SUFFIXES, Layout, Record, files_below


def _records(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    """Yield images/<subset>/<id>.<png|jpg|…>, mask labels/<subset>/<id>.<png|…> if there is one.

    Raises DataError when an image has two masks.
    """
    for subset in ("train", "val", "test"):
        masks: dict[str, str] = {}
        for id, path in files_below(root, f"labels/{subset}", MASK_SUFFIXES):
            if masks.setdefault(id, path) != path:
                raise DataError(f"{root}: two masks of {id!r}: {masks[id]} and {path}; keep one")
        for id, path in files_below(root, f"images/{subset}", IMAGE_SUFFIXES):
            yield Record(id, path, masks.get(id, ""), subset)


LAYOUT = Layout(_records)
