"""`confusions.csv`: the confusion matrix of each evaluated image, so that models can be paired."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.errors import DataError
from ..runtime.paths import require_relative
from ..runtime.tables import read_csv, whole, write_csv

COLUMNS = ["checkpoint", "subset", "id", "truth", "predicted", "pixels"]


@dataclass(frozen=True)
class Confusions:
    """One model on one subset. matrices: int64 (images, classes, classes), row = truth.

    ids: of the images, in the order of `matrices`.
    """

    ids: list[str]
    matrices: np.ndarray


Evaluated = Mapping[tuple[str, str], Confusions]
"""(checkpoint, subset) -> matrices; checkpoint is `best` or `last`."""


def write_confusions(path: Path, found: Evaluated) -> None:
    """Write one row for each entry above 0; an image without any pixel gets a row of 0 pixels."""
    rows = [
        {
            "checkpoint": checkpoint,
            "subset": subset,
            "id": id,
            "truth": truth,
            "predicted": predicted,
            "pixels": matrix[truth, predicted],
        }
        for (checkpoint, subset), of in found.items()
        for id, matrix in zip(of.ids, of.matrices, strict=True)
        for truth, predicted in (np.argwhere(matrix) if matrix.any() else [(0, 0)])
    ]
    write_csv(path, COLUMNS, rows)


def read_confusions(path: Path, classes: int) -> dict[tuple[str, str], Confusions]:
    """Read the file of `write_confusions` for a model of so many classes.

    Raises DataError if it is damaged, or names a class that does not exist.
    """
    cells = {"checkpoint": str, "subset": str, "id": str}
    cells |= dict.fromkeys(("truth", "predicted", "pixels"), whole)
    images: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for row in read_csv(path, cells):
        _check(path, row, classes)
        of_subset = images.setdefault((row["checkpoint"], row["subset"]), {})
        matrix = of_subset.setdefault(row["id"], np.zeros((classes, classes), np.int64))
        matrix[row["truth"], row["predicted"]] = row["pixels"]
    return {key: Confusions([*found], np.array([*found.values()])) for key, found in images.items()}


def _check(path: Path, row: dict[str, Any], classes: int) -> None:
    require_relative(row["id"], path)
    for key in ("truth", "predicted"):
        if row[key] >= classes:
            raise DataError(
                f"{path}: {key}: found {row[key]}, expected a class number below {classes}; delete "
                "the file to have the model evaluated again"
            )
