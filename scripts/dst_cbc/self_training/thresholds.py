"""Algorithm 1, lines 9 to 12: the confidence above which a share alpha of the pixels stays."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from pathlib import Path

import numpy as np

from ..runtime.files import DataError, read_csv, write_csv
from . import confidence


@dataclass(frozen=True)
class Threshold:
    """One row of thresholds.csv.

    pixels: predicted as the class, of those that are counted; threshold: log-odds that a pixel
    must reach (-inf: all stay, inf: none, None: never predicted, nothing to label); kept: pixels
    that reach it.
    """

    number: int
    name: str
    pixels: int
    threshold: float | None
    threshold_probability: float | None
    kept: int
    kept_fraction: float | None


HEADER = ["class", *(field.name for field in fields(Threshold) if field.name != "number")]


def cut(counts: np.ndarray, alpha: Decimal, sampling: int = 1) -> int:
    """The confidence level from which on the kept count is nearest to floor(alpha n).

    counts: int64 (65536,), pixels per level, n > 0 in all. Returns a level in 0 .. 65536;
    alpha 1 keeps all. Of two levels equally near, the one that keeps fewer. sampling: above 1,
    as the released code does it, the level of the pixel at place -floor(alpha n) - 1 of the
    ascending list: one pixel more than alpha says, and all that share its level.
    """
    if alpha == 1:
        return 0
    kept_from = np.append(np.cumsum(counts[::-1])[::-1], 0)
    wanted = math.floor(alpha * int(kept_from[0]))
    if sampling > 1:
        return int(np.flatnonzero(kept_from > wanted)[-1])
    distance = np.abs(kept_from - wanted)
    return int(np.flatnonzero(distance == distance.min())[-1])


def thresholds(
    counts: np.ndarray, names: Sequence[str], alpha: Decimal, balance: str, sampling: int = 1
) -> list[Threshold]:
    """One threshold per class (`class`), or the same for all (`global`).

    counts: int64 (classes, 65536), over every `sampling`-th pixel of all unlabeled images.
    """
    pixels = counts.sum(1)
    common = cut(counts.sum(0), alpha, sampling) if balance == "global" and pixels.any() else None
    rows = []
    for number, name in enumerate(names):
        n = int(pixels[number])
        # A class may be predicted where nothing was counted; alpha 1 labels that, too.
        if n == 0 and (sampling == 1 or alpha < 1):
            rows.append(Threshold(number, name, 0, None, None, 0, None))
            continue
        level = cut(counts[number], alpha, sampling) if common is None else common
        edge = confidence.lower_edge(level)
        kept = int(counts[number, level:].sum())
        share = kept / n if n else None
        rows.append(Threshold(number, name, n, edge, confidence.probability(edge), kept, share))
    return rows


def write_thresholds(path: Path, rows: Sequence[Threshold]) -> None:
    """Write thresholds.csv."""
    cells = (asdict(row) for row in rows)
    write_csv(path, HEADER, ({"class": row.pop("number"), **row} for row in cells))


def read_cutoffs(path: Path, names: Sequence[str]) -> np.ndarray:
    """int32 (256,): the lowest kept confidence level of each class; 65536 keeps nothing.

    Raises DataError as `read_thresholds`.
    """
    cutoffs = np.full(256, confidence.BINS, np.int32)
    edges = read_thresholds(path, names)
    cutoffs[: len(edges)] = [confidence.level_from(edge) for edge in edges]
    return cutoffs


def read_thresholds(path: Path, names: Sequence[str]) -> list[float]:
    """The log-odds that each class's pixels must reach; inf for a class without a threshold.

    Reads thresholds.csv or an edited copy of it: only `class` and `threshold` (log-odds) count.
    Raises DataError that names the line of a value that is none, or a class without a row.
    """
    found: dict[int, float] = {}
    for line, cells in enumerate(read_csv(path, ("class", "threshold")), 2):
        try:
            number, text = int(cells["class"]), cells["threshold"]
            if not 0 <= number < len(names):
                raise ValueError(f"there are classes 0 to {len(names) - 1}")
            if number in found:
                raise ValueError(f"class {number} occurs twice")
            found[number] = float(text) if text else math.inf
            if math.isnan(found[number]):
                raise ValueError("a threshold cannot be NaN")
        except ValueError as error:
            raise DataError(
                f"{path}, line {line}: {error}; expected class number and log-odds"
            ) from None
    missing = [name for number, name in enumerate(names) if number not in found]
    if missing:
        raise DataError(
            f"{path}: no row for class {missing[0]!r}; delete the file to have it made again, or "
            "give the class a row: without a threshold it keeps nothing"
        )
    return [found[number] for number in range(len(names))]
