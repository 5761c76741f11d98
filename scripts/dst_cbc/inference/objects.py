"""`objects.csv`: the objects in the masks of a folder, one row each.

An object is a set of pixels of one class that touch, also at corners (8-connected).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ..data.images import decode_mask, size_of
from ..data.masks import numbers_of
from ..data.pixel_size import pixel_size
from ..runtime import signals
from ..runtime.errors import DataError
from ..runtime.tables import stream_csv
from .folders import CONFIDENCE, Outputs

OBJECTS = "objects.csv"
BACKGROUND = "background"
COLUMNS = [
    "image", "object", "class", "area_px", "x", "y", "left", "top", "width", "height",
    "confidence", "area_um2", "pixel_width_um", "pixel_height_um",
]  # fmt: skip

_STRIPE = 1 << 22
"""Pixels that are added up at once; `bincount` takes 16 bytes for each."""


def classes_of_objects(classes: Sequence[str], wanted: Sequence[str]) -> dict[int, str]:
    """Return the classes of `wanted`, by number; if it is empty, all but the background.

    classes: of the model. Raises DataError for a class that the model does not have.
    """
    for name in wanted:
        if name not in classes:
            raise DataError(
                f"--objects: the model has no class {name!r}; its classes are {', '.join(classes)}"
            )
    chosen = wanted or [name for name in classes if name.casefold() != BACKGROUND]
    return {number: name for number, name in enumerate(classes) if name in chosen}


def write_objects(
    images: Mapping[str, Path], outputs: Outputs, classes: Mapping[int, str], least: int
) -> dict[str, str]:
    """Write OBJECTS: the objects in the masks of images, as the masks are now.

    images: paths by id; each has a mask. classes: which are objects, by number. least: smallest
    area of an object in pixels. Returns the error messages of bad masks by id. Raises Stopped after
    a signal.
    """
    problems: dict[str, str] = {}

    def rows() -> Iterator[dict[str, Any]]:
        for id, path in tqdm(images.items(), "objects", disable=None):
            signals.stop_if_asked(f"finished masks are kept, {OBJECTS} is not finished")
            try:
                yield from _rows(id, path, outputs, classes, least)
            except DataError as error:
                problems[id] = str(error)

    stream_csv(outputs.folder / OBJECTS, COLUMNS, rows())
    return problems


def _rows(
    id: str, path: Path, outputs: Outputs, classes: Mapping[int, str], least: int
) -> Iterator[dict[str, Any]]:
    files = outputs.of(id)
    mask = _numbers(outputs.mask(id), size_of(path))
    confidence = _numbers(files[CONFIDENCE], mask.shape[::-1]) if outputs.confidence else None
    size = pixel_size(path)
    sides = {"pixel_width_um": _short(size[0]), "pixel_height_um": _short(size[1])} if size else {}
    for number, one in enumerate(measure(mask, classes, least, confidence), 1):
        area = {"area_um2": _short(one["area_px"] * size[0] * size[1])} if size else {}
        # With its suffix, a spreadsheet does not take the name for a number.
        yield {"image": f"{id}{path.suffix}", "object": number, **one, **area, **sides}


def _short(number: float) -> float:
    return float(f"{number:.6g}")


def _numbers(path: Path, size: tuple[int, ...]) -> np.ndarray:
    """The values of a file of an image of this (width, height), uint8 or uint16 (H, W)."""
    decoded = decode_mask(path)
    if decoded.size != size:
        raise DataError(
            f"{path}: size {decoded.size}, but its image has {size}; correct it, or delete it and "
            "run the same command again"
        )
    values = numbers_of(decoded)
    if values is None:
        raise DataError(
            f"{path}: colours, expected class numbers; save it as an indexed image with the "
            "palette of the other masks, or as grey values"
        )
    return values


def measure(
    mask: np.ndarray,
    classes: Mapping[int, str],
    least: int = 1,
    confidence: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Return the objects in a mask from top to bottom, as cells of COLUMNS by name.

    mask: class numbers (H, W). classes: name of each class whose pixels are objects, by number.
    least: smallest area in pixels. confidence: uint8 (H, W), 255 times a probability; its mean over
    an object is in 0..1, None without it. x and y are the mean of an object's pixels, where (0, 0)
    is the centre of the pixel at the top left.
    """
    found = []
    for number, name in classes.items():
        here = mask == number
        if not here.any():
            continue
        count, labels, *measures = cv2.connectedComponentsWithStats(
            here.view(np.uint8), connectivity=8
        )
        # Label 0 is all that is not of the class.
        boxes, centres = (each[1:] for each in measures)
        areas = boxes[:, cv2.CC_STAT_AREA]
        means = None if confidence is None else _sums(labels, confidence, count)[1:] / areas / 255
        for one in np.flatnonzero(areas >= least):
            left, top, width, height, area = boxes[one].tolist()
            x, y = centres[one].round(2).tolist()
            place = {"x": x, "y": y, "left": left, "top": top, "width": width, "height": height}
            mean = None if means is None else round(float(means[one]), 4)
            found.append({"class": name, "area_px": area, **place, "confidence": mean})
    return sorted(found, key=lambda one: (one["top"], one["left"], one["x"], one["y"]))


def _sums(labels: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """The sum of the values with each label from 1 on and below `count`, float64 (count,)."""
    rows = max(1, _STRIPE // labels.shape[1])
    sums = np.zeros(count)
    for top in range(0, len(labels), rows):
        part = labels[top : top + rows]
        inside = part > 0
        sums += np.bincount(part[inside], values[top : top + rows][inside], count)
    return sums
