"""Algorithm 1, lines 9 to 12: the confidence threshold that keeps a share alpha of the pixels."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from pathlib import Path

import numpy as np

from ..runtime.errors import DataError
from ..runtime.tables import iterate_csv, real, whole, write_csv
from . import confidence


@dataclass(frozen=True)
class Threshold:
    """One row of thresholds.csv.

    pixels: counted pixels that are predicted as this class. threshold: log-odds that a pixel must
    reach (-inf keeps all pixels, inf keeps none, None: the class is never predicted).
    threshold_probability: the same as a probability. kept: pixels that reach the threshold.
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
    """The lowest kept confidence level, which keeps a number of pixels nearest to floor(alpha n).

    counts: int64 (65536,), pixels per level; their sum n is > 0. Returns a level in 0 .. 65536;
    alpha 1 keeps all. Of two levels equally near, returns the one that keeps fewer pixels.
    sampling: above 1, the level is chosen as in the released code, which takes the pixel at index
    -floor(alpha n) - 1 of the ascending list: it keeps one pixel more than alpha says, and all
    pixels of the same level.
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
    """One threshold per class (balance `class`), or the same for all classes (`global`).

    counts: int64 (classes, 65536), over every `sampling`-th pixel of all unlabeled images.
    """
    pixels = counts.sum(1)
    common = cut(counts.sum(0), alpha, sampling) if balance == "global" and pixels.any() else None
    rows = []
    for number, name in enumerate(names):
        n = int(pixels[number])
        # A class may be predicted in pixels that were not sampled; alpha 1 labels these, too.
        if n == 0 and (sampling == 1 or alpha < 1):
            rows.append(Threshold(number, name, 0, None, None, 0, None))
            continue
        level = cut(counts[number], alpha, sampling) if common is None else common
        edge = confidence.lower_edge(level)
        kept = int(counts[number, level:].sum())
        share = kept / n if n else None
        rows.append(Threshold(number, name, n, edge, confidence.probability(edge), kept, share))
    return rows


def missed_shares(
    counted: Iterable[tuple[str, int, int]], alpha: Decimal, balance: str
) -> list[str]:
    """A sentence for each class that keeps another share than `alpha`; for `global`, of all pixels.

    counted: name, pixels and kept of each class, as in thresholds.csv. A tenth of a percent of the
    pixels, and one pixel, are no difference. Larger ones come from levels with very many pixels.
    """
    rows = [(f"class {name!r}", pixels, kept) for name, pixels, kept in counted]
    if balance == "global":
        rows = [("all classes", sum(pixels for _, pixels, _ in rows), sum(k for *_, k in rows))]
    return [
        f"{name}: {kept / pixels:.2%} of the pixels are kept, not {float(alpha):.2%}: too many "
        "pixels have equal confidence, because the network's logits are nearly equal or above "
        "100,000"
        for name, pixels, kept in rows
        if pixels and abs(kept - alpha * pixels) > 1 + pixels * _TOLERANCE
    ]


_TOLERANCE = Decimal("0.001")


def write_thresholds(path: Path, rows: Sequence[Threshold]) -> None:
    """Write thresholds.csv."""
    cells = (asdict(row) for row in rows)
    write_csv(path, HEADER, ({"class": row.pop("number"), **row} for row in cells))


def read_cutoffs(path: Path, names: Sequence[str]) -> np.ndarray:
    """int32 (256,): the lowest kept confidence level of each class; 65536 keeps nothing.

    Raises DataError as `read_thresholds` does.
    """
    cutoffs = np.full(256, confidence.BINS, np.int32)
    edges = read_thresholds(path, names)
    cutoffs[: len(edges)] = [confidence.level_from(edge) for edge in edges]
    return cutoffs


def read_thresholds(path: Path, names: Sequence[str]) -> list[float]:
    """The log-odds that each class's pixels must reach; inf for a class without a threshold.

    Reads thresholds.csv or an edited copy of it, of which only the columns `class` and `threshold`
    (log-odds) are used. Raises DataError if a value is invalid or a class has no row.
    """
    found: dict[int, float] = {}

    def new_class(text: str) -> int:
        number = whole(text.strip())
        if number in found or number >= len(names):
            raise ValueError(f"expected each of the classes 0 to {len(names) - 1} once")
        return number

    for cells in iterate_csv(path, {"class": new_class, "threshold": _log_odds}):
        found[cells["class"]] = cells["threshold"]
    missing = [name for number, name in enumerate(names) if number not in found]
    if missing:
        raise DataError(
            f"{path}: no row for class {missing[0]!r}; delete the file to make it again, or add a "
            "row for the class (an empty threshold keeps none of its pixels)"
        )
    return [found[number] for number in range(len(names))]


def _log_odds(text: str) -> float:
    text = text.strip()
    if text in ("", "inf", "-inf"):
        return float(text or "inf")
    try:
        return real(text)
    except ValueError:
        raise ValueError("expected log-odds, such as 1.5, inf, -inf or nothing") from None
