"""Agreement between the rounds of a method, without ground truth: `agreement.csv`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import repeat
from pathlib import Path

import numpy as np

from ..data.index import Row
from ..runtime.paths import require_relative
from ..runtime.tables import write_csv
from ..self_training import confidence
from ..self_training.predictions import Prediction, read_predictions
from ..self_training.pseudo_labels import read_labels
from ..settings.data import IGNORED
from .model_files import read_settings


@dataclass(frozen=True)
class Round:
    """The pseudo labels of one round, and the predictions that they were made from.

    labels: folder of the PNGs; predictions: predictions.h5, None if it is deleted or soon will be.
    """

    number: int
    labels: Path
    predictions: Path | None


@dataclass(frozen=True)
class Agreement:
    """One image in one round, a row of agreement.csv.

    height, width: of the pseudo label, pixels. kept: pixels with a class; both: pixels with a class
    in this round and in the round before; same: pixels of `both` that have the same class in both
    rounds. changed: share of all pixels whose predicted class, before any threshold, differs from
    the round before, 0..1. confidence: mean probability of the predicted class over all pixels,
    0..1. None where there is no round before, or no prediction.
    """

    id: str
    round: int
    height: int
    width: int
    kept: int
    both: int | None = None
    same: int | None = None
    changed: float | None = None
    confidence: float | None = None


COLUMNS = [field.name for field in fields(Agreement)]


def labels_from(folder: Path) -> Path:
    """Return the path of the predictions that the labels of `…/<method>/round<r>` are made from.

    This is `predictions.h5` of the round before (for round 1, of `supervised`), unless the key
    `labels_from` in the round's settings.json names another file.
    """
    written = folder / "settings.json"
    named = read_settings(written).get("labels_from") if written.is_file() else None
    # `labels_from` is relative to the split's folder. A method may have subfolders: peers/a.
    above = (parent for parent in folder.parents if (parent / "supervised").is_dir())
    split = next(above, folder.parents[1])
    if named:
        return split / require_relative(named, written)
    number = int(folder.name.removeprefix("round"))
    before = folder.with_name(f"round{number - 1}") if number > 1 else split / "supervised"
    return before / "predictions.h5"


def round_in(folder: Path, later: bool = True, predictions: Path | None = None) -> Round:
    """Return the Round in the folder `…/<method>/round<r>`.

    later: False ignores predictions of round 1 and later, because they are deleted after use.
    predictions: that its labels are made from; None: as `labels_from` says.
    """
    predictions = predictions or labels_from(folder)
    known = predictions.is_file() and (later or predictions.parent.name == "supervised")
    number = int(folder.name.removeprefix("round"))
    return Round(number, folder / "pseudo_labels", predictions if known else None)


def labels_of(round: Round, row: Row, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read the pseudo label of an image, uint8 (H, W); DataError if it has not the given size."""
    return read_labels(round.labels / f"{row.id}.png", size)


def measure(rounds: Sequence[Round], rows: Sequence[Row]) -> Iterator[list[Agreement]]:
    """Yield for each image its Agreement in every round.

    rounds: in order; rows: all unlabeled images, in the order of the id list.
    """
    ids = [row.id for row in rows]
    streams = [
        read_predictions(round.predictions, ids) if round.predictions else repeat(None)
        for round in rounds
    ]
    for row, *predictions in zip(rows, *streams, strict=False):
        first = labels_of(rounds[0], row)
        labels = [first, *(labels_of(round, row, first.shape) for round in rounds[1:])]
        yield [
            _agreement(row, round.number, mine, before, found, found_before)
            for round, mine, before, found, found_before in zip(
                rounds, labels, [None, *labels], predictions, [None, *predictions], strict=False
            )
        ]


def _agreement(
    row: Row,
    round: int,
    labels: np.ndarray,
    before: np.ndarray | None,
    prediction: Prediction | None,
    predicted_before: Prediction | None,
) -> Agreement:
    kept = labels != IGNORED
    both = same = changed = sure = None
    if before is not None:
        both = int((kept & (before != IGNORED)).sum())
        same = int((kept & (before == labels)).sum())
    if prediction and predicted_before:
        changed = float((prediction.classes != predicted_before.classes).mean())
    if prediction:
        sure = float(confidence.probabilities()[prediction.confidence].mean(dtype=np.float64))
    height, width = labels.shape
    return Agreement(row.id, round, height, width, int(kept.sum()), both, same, changed, sure)


def write_agreement(path: Path, rows: Iterable[Agreement]) -> None:
    """Write agreement.csv: one row per image and round."""
    write_csv(path, COLUMNS, (asdict(row) for row in rows))
