"""Images and masks, in one folder per subset.

Images are `images/<subset>/<id>.jpg` (or another type of image), masks `labels/<subset>/<id>.png`
(or `.tif`, `.bmp`). `<subset>` is `train`, `val` or `test`; an id may contain folders. A training
image without a mask is unlabeled.
"""

from collections.abc import Iterator
from pathlib import Path

from ...runtime.errors import DataError
from ...settings.data import DatasetStage, PairSettings
from .layout import IMAGE_SUFFIXES, MASK_SUFFIXES, Layout, Record, files_below, same_name


def _records(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    """Yield images/<subset>/<id>.<png|jpg|…>, mask labels/<subset>/<id>.<png|…> if there is one.

    Raises DataError when an image has two masks.
    """
    for subset in ("train", "val", "test"):
        masks: dict[str, str] = {}
        for id, path in files_below(root, f"labels/{subset}", MASK_SUFFIXES, "images"):
            if masks.setdefault(id, path) != path:
                raise DataError(f"{root}: two masks of {id!r}: {masks[id]} and {path}; keep one")
        composed = {same_name(id): path for id, path in masks.items()}
        for id, path in files_below(root, f"images/{subset}", IMAGE_SUFFIXES, "labels"):
            yield Record(id, path, masks.get(id) or composed.get(same_name(id), ""), subset)


LAYOUT = Layout(
    _records,
    folders=lambda dataset: PairSettings(images="images", labels="labels"),
    left_out="not below train, val or test; move them there",
)
