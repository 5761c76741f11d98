"""Which unlabeled images most deserve a mask, and drafts of those masks to correct."""

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from ..data.layouts.pairs import group_of, shared_name
from ..data.masks import indexed_png, palette
from ..self_training import confidence
from ..self_training.predictions import Prediction
from ..settings.data import DatasetStage, PairSettings

COLUMNS = ["rank", "id", "image", "group", "uncertainty", "draft"]


@dataclass(frozen=True)
class Doubt:
    """How sure a model is of an image. uncertainty: 1 - mean probability of the winner, 0..1."""

    row: int
    id: str
    group: str
    uncertainty: float


def doubts(predictions: Iterable[Prediction], group: str | None) -> list[Doubt]:
    """One for each prediction; group: the pattern of the groups' names."""
    table = confidence.probabilities()
    return [
        Doubt(p.row, p.id, group_of(p.id, group), 1 - float(table[p.confidence].mean()))
        for p in predictions
    ]


def most_deserving(found: Sequence[Doubt], count: int) -> list[Doubt]:
    """The least certain images of all groups in turn: neighbours teach the same."""
    members = defaultdict(list)
    for doubt in sorted(found, key=lambda doubt: (-doubt.uncertainty, doubt.id)):
        members[doubt.group].append(doubt)
    turns = [(turn, doubt) for group in members.values() for turn, doubt in enumerate(group)]
    turns.sort(key=lambda pair: (pair[0], -pair[1].uncertainty, pair[1].id))
    return [doubt for _, doubt in turns[:count]]


def draft(classes: np.ndarray, dataset: DatasetStage) -> bytes:
    """Class numbers uint8 (H, W) as a PNG that the data set's own `labels` read as these."""
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


def draft_name(id: str, pairs: PairSettings | None) -> str:
    """Path of the draft in the folder of the drafts: as its mask would lie among the masks."""
    shared = shared_name(id, pairs.image_name) if pairs else None
    if pairs is None or shared is None:
        return f"{id}.png"
    path = PurePosixPath(shared)
    return (path.parent / f"{pairs.mask_name.replace('{}', path.name)}.png").as_posix()
