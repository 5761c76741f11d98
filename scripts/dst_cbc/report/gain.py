"""The gains of methods over labels alone, from several studies: one table with intervals.

A cell is one model of the table: a data set, a choice of its test images, a scenario, a number of
labels, a seed, a method and a checkpoint. Each method is paired with three baselines of the same
cell. docs/explanation/gains.md explains the intervals, and shows by simulation how often they hold.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ..inference.paired import jackknifed
from ..runtime.errors import DataError
from ..settings.methods import SUPERVISED
from .tables import CONTROL

BASELINES = {"gain": SUPERVISED, "over_control": CONTROL, "over_passes": "supervised-passes"}
"""Column -> the method that it compares with: round 0, equal steps, equal passes. A baseline itself
is compared with those before it."""
ROW = ("dataset", "scenario", "labels", "method", "checkpoint")
COST = ("steps", "passes", "core_minutes")
_GAINS = [f"{name}{end}" for name in BASELINES for end in ("", "_low", "_high")]
COLUMNS = [*ROW, "planned", "cells", "tests", "seeds", "miou", *_GAINS, *COST]
CELL_COLUMNS = [*ROW, "test", "seed", "images", "groups", "miou", *_GAINS, *COST]


@dataclass(frozen=True)
class Cell:
    """The last model of a method on one choice of test images, with one seed.

    test: name of the choice of test images. checkpoint: `best` or `last`. labeled: ids of the
    labeled images. images: ids of the test images. points: float64 (1 + groups,) of
    `inference.paired.leave_out`; None, like the costs, until the model is evaluated. steps, passes
    and core_minutes are those of the whole chain.
    """

    dataset: str
    scenario: str
    labels: int
    method: str
    checkpoint: str
    test: str
    seed: int
    labeled: Sequence[str]
    images: Sequence[str] = ()
    points: np.ndarray | None = None
    steps: int | None = None
    passes: float | None = None
    core_minutes: float | None = None


def interval(tests: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """A gain and its 95 % interval: what other seeds and other images of these kinds could change.

    tests: for each choice of test images, float64 (seeds, 1 + groups): the difference of two models
    in points, on all images and without each of the groups. All choices count the same.

    Two variances are estimated. That of the seeds, from how much they differ within each choice; it
    contains the errors that each training makes alone on these images. And that of the images: the
    jackknife of the mean over the seeds, less the part that the seeds do not share, which the first
    one has already. Each is multiplied by its own square of Student's t, so that few seeds widen
    only their own part (Banerjee, Sankhya 22, 1960). Both ends are NaN unless one choice has two
    seeds and all have two groups; all is NaN without any choice.
    """
    if not tests:
        return math.nan, math.nan, math.nan
    mean = fmean(float(points[:, 0].mean()) for points in tests)
    of_seeds = sum(len(points) - 1 for points in tests)
    of_images = sum(points.shape[1] - 2 for points in tests)
    if not of_seeds or any(points.shape[1] < 3 for points in tests):
        return mean, math.nan, math.nan
    spread = sum(len(points) * np.var(points[:, 0]) for points in tests) / of_seeds
    seeds = spread * sum(1 / len(points) for points in tests) / len(tests) ** 2
    images = max(0.0, sum(map(_images, tests))) / len(tests) ** 2
    reach = math.hypot(
        stdtrit(of_seeds, 0.975) * math.sqrt(seeds), stdtrit(of_images, 0.975) * math.sqrt(images)
    )
    return mean, mean - reach, mean + reach


def _images(points: np.ndarray) -> float:
    """What the images add to the variance of the mean over the seeds; may be below 0.

    points: float64 (seeds, 1 + groups).
    """
    without, seeds, groups = points[:, 1:], len(points), points.shape[1] - 1
    influence = (groups - 1) * (without.mean(1, keepdims=True) - without)
    shared = influence.mean(0)
    own = influence - shared
    found = (shared**2).sum() - (own**2).sum() / max(1, seeds * (seeds - 1))
    return float(found) / (groups * (groups - 1))


# --------------------------------------------------------------------------- tables


def gain_rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The rows of gain.csv: means over the finished cells of a method; empty without any.

    planned, cells: numbers of planned and of finished cells. miou: percent; gains and their
    intervals: points. Raises DataError if two choices of a data set's test images share images, or
    a cell occurs twice.
    """
    _check(cells)
    known = _by_place(cells)
    return [
        _gain_row(row, group, known)
        for together in _groups(cells, ROW[:3]).values()
        for row, group in _groups(together, ROW).items()
    ]


def _gain_row(row: tuple, group: Sequence[Cell], known: Mapping) -> dict[str, Any]:
    done = [cell for cell in group if cell.points is not None]
    by_test = _groups(done, ("test",)).values()
    mious = [fmean(float(cell.points[0]) for cell in one) for one in by_test]  # type: ignore[index]
    found: dict[str, Any] = {
        **dict(zip(ROW, row, strict=True)),
        "planned": len(group),
        "cells": len(done),
        "tests": len(by_test),
        "seeds": len({cell.seed for cell in done}),
        "miou": _rounded(fmean(mious) if mious else None, 2),
    }
    for column in BASELINES:
        pairs = [[_difference(cell, column, known) for cell in one] for one in by_test]
        tests = [np.stack(some) for one in pairs if (some := [p for p in one if p is not None])]
        found |= _three(column, interval(tests))
    return found | _costs(done)


def cell_rows(cells: Sequence[Cell]) -> Iterator[dict[str, Any]]:
    """The rows of cells.csv: every cell alone. Its intervals say what other images could change."""
    known = _by_place(cells)
    for cell in cells:
        row = {key: getattr(cell, key) for key in (*ROW, "test", "seed")}
        if cell.points is not None:
            row |= {"images": len(cell.images), "groups": len(cell.points) - 1}
            row |= {"miou": _rounded(cell.points[0], 2)} | _costs([cell])
            for column in BASELINES:
                points = _difference(cell, column, known)
                if points is not None:
                    paired = jackknifed(points, len(cell.images))
                    row |= _three(column, (paired.mean, paired.low, paired.high))
        yield {column: row.get(column) for column in CELL_COLUMNS}


def _difference(cell: Cell, column: str, known: Mapping) -> np.ndarray | None:
    """float64 (1 + groups,): a finished cell's points above those of the baseline; None if none.

    The baseline is that of the same scenario, or of another one with the same labeled images: it
    uses no unlabeled images. Raises DataError unless both have the same images.
    """
    names = [*BASELINES.values()]
    method = BASELINES[column]
    if cell.method in names and names.index(method) >= names.index(cell.method):
        return None
    others = [one for one in known.get(_place(cell, method), ()) if one.points is not None]
    others = [one for one in others if one.labeled == cell.labeled]
    others.sort(key=lambda one: one.scenario != cell.scenario)
    if not others:
        return None
    if others[0].images != cell.images:
        raise DataError(
            f"{cell.dataset}, {cell.test}, seed {cell.seed}: {cell.method} and {method} were "
            "evaluated on other images; delete the older metrics.json to have that model "
            "evaluated again"
        )
    assert cell.points is not None
    return cell.points - others[0].points


def _place(cell: Cell, method: str) -> tuple:
    return (cell.dataset, cell.test, cell.seed, cell.checkpoint, method)


def _by_place(cells: Iterable[Cell]) -> dict[tuple, list[Cell]]:
    found: dict[tuple, list[Cell]] = {}
    for cell in cells:
        found.setdefault(_place(cell, cell.method), []).append(cell)
    return found


def _groups(cells: Iterable[Cell], columns: Sequence[str]) -> dict[tuple, list[Cell]]:
    found: dict[tuple, list[Cell]] = {}
    for cell in cells:
        found.setdefault(tuple(getattr(cell, column) for column in columns), []).append(cell)
    return found


def _check(cells: Sequence[Cell]) -> None:
    for key, group in _groups(cells, (*ROW, "test", "seed")).items():
        if len(group) > 1:
            raise DataError(
                f"{', '.join(map(str, key))}: two models for one cell of the table; give their "
                "splits other names under `scenarios`, or their studies another `test`"
            )
    for (dataset,), group in _groups(cells, ("dataset",)).items():
        images = {cell.test: {*cell.images} for cell in group if cell.points is not None}
        for (first, ours), (other, theirs) in combinations(images.items(), 2):
            if shared := sorted(ours & theirs):
                raise DataError(
                    f"{dataset}: the test images of {first} and {other} share {shared[0]!r}; "
                    "expected choices without common images, which count as independent"
                )


def _three(column: str, found: tuple[float, float, float]) -> dict[str, float | None]:
    names = (column, f"{column}_low", f"{column}_high")
    return {name: _rounded(value, 2) for name, value in zip(names, found, strict=True)}


def _costs(done: Sequence[Cell]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for key, digits in zip(COST, (0, 0, 1), strict=True):
        known = [value for cell in done if (value := getattr(cell, key)) is not None]
        found[key] = _rounded(fmean(known) if known else None, digits)
    return found


def _rounded(value: float | None, digits: int) -> float | None:
    if value is None or math.isnan(value):
        return None
    # Adding 0 makes -0.0 a plain 0.
    return round(float(value), digits or None) + 0
