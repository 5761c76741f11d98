"""Suggests which unlabeled images to label next, and drafts their masks for correction."""

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from ..data.groups import groups_of
from ..data.layouts.pairs import shared_name
from ..data.masks import indexed_png, palette
from ..data.pages import file_of
from ..self_training import confidence
from ..self_training.predictions import Prediction
from ..settings.data import DatasetStage, Grouping, PairSettings

COLUMNS = ["rank", "id", "image", "group", "uncertainty", "draft"]


@dataclass(frozen=True)
class Doubt:
    """How uncertain a model is about an image.

    row: of the image in the id list. uncertainty: 1 - mean probability of the predicted
    classes, 0..1.
    """

    row: int
    id: str
    group: str
    uncertainty: float


def doubts(predictions: Iterable[Prediction], group: Grouping | None) -> list[Doubt]:
    """Return the uncertainty of each prediction. group: `DatasetStage.group`."""
    table = confidence.probabilities()
    found = {p.id: (p.row, 1 - float(table[p.confidence].mean())) for p in predictions}
    groups = groups_of(found, group)
    return [Doubt(row, id, groups[id], doubt) for id, (row, doubt) in found.items()]


def most_deserving(found: Sequence[Doubt], count: int) -> list[Doubt]:
    """Choose the most uncertain images, groups in turn: images of one group teach the same."""
    members = defaultdict(list)
    for doubt in sorted(found, key=lambda doubt: (-doubt.uncertainty, doubt.id)):
        members[doubt.group].append(doubt)
    turns = [(turn, doubt) for group in members.values() for turn, doubt in enumerate(group)]
    turns.sort(key=lambda pair: (pair[0], -pair[1].uncertainty, pair[1].id))
    return [doubt for _, doubt in turns[:count]]


def draft(classes: np.ndarray, dataset: DatasetStage) -> bytes:
    """Encode class numbers, uint8 (H, W), as a PNG mask in the values of `dataset.labels`."""
    values: Mapping[str, int | str] = {
        name: value for value, name in reversed(dataset.labels.items())
    }
    of_class: list[Any] = [values.get(name, 0) for name in dataset.classes]
    if any(isinstance(value, str) for value in of_class):
        return indexed_png(classes, palette(of_class))
    numbers = np.array(of_class)[classes]
    if max(of_class) > 255:
        buffer = io.BytesIO()
        Image.fromarray(numbers.astype(np.uint16)).save(buffer, "PNG")
        return buffer.getvalue()
    table = [0] * 768
    for value, colour in zip(of_class, dataset.classes.values(), strict=True):
        table[3 * value : 3 * value + 3] = bytes.fromhex(colour[1:])
    return indexed_png(numbers.astype(np.uint8), table)


def draft_name(id: str, pairs: PairSettings | None, image: str = "") -> str:
    """Return a draft's path in the folder of drafts: its mask's path in the folder of masks.

    image: its path; a page of a stack has its mask in a folder named as the stack.
    """
    page = f"/{PurePosixPath(id).name}" if image and file_of(image) != image else ""
    shared = shared_name(id.removesuffix(page), pairs.image_name) if pairs else None
    if pairs is None or shared is None:
        return f"{id}.png"
    path = PurePosixPath(shared + page)
    return (path.parent / f"{pairs.mask_name.replace('{}', path.name)}.png").as_posix()
