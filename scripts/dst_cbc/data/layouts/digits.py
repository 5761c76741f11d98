"""The demo's scenes of handwritten digits, which the workflow draws itself.

Images are `images/<subset>/<id>.png`, masks `labels/<subset>/<id>.png`. The keys under `digits` say
how many scenes are drawn, and how they look.
"""

from collections.abc import Iterator
from pathlib import Path

from ...settings.data import DatasetStage
from ..digit_scenes import CLASSES, scene_ids
from .layout import Layout, Record


def _records(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    """Yield the scenes that will be drawn; their files need not exist yet."""
    assert dataset.digits is not None
    for subset, id in scene_ids(dataset.digits):
        yield Record(id, f"images/{subset}/{id}.png", f"labels/{subset}/{id}.png", subset)


LAYOUT = Layout(_records, CLASSES)
