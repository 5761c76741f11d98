"""The interval of the difference between two studies that were evaluated on the same images."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..data.index import read_index
from ..inference.confusions import Confusions, Evaluated, read_confusions
from ..inference.paired import difference, resampling_groups
from .model_files import grouping_of, read_metrics, read_settings
from .summary import folder_of
from .tables import Row


def interval_text(first: Path, other: Path, pairs: Sequence[tuple[Row, Row]]) -> str:
    """What `tables.compare` writes behind a difference, e.g. ` (95 % interval -0.4 to 2.9, …)`.

    first, other: folders of studies. pairs: one row of the summary of each, for each seed. "" if
    there is no interval: not all models have confusions.csv with the same images and masks, or
    fewer than two groups of images have labeled pixels.
    """
    if not pairs or not (first / "dataset.csv").is_file():
        return ""
    found = [_confusions(first, one) for one, _ in pairs]
    found += [_confusions(other, one) for _, one in pairs]
    each = [one for one in found if one is not None and _are_alike(one, found[0])]
    if len(each) < len(found):
        return ""
    settings = read_settings(first / folder_of(pairs[0][0]) / "settings.json")
    known = read_index(first / "dataset.csv")
    groups = resampling_groups(each[0].ids, known, grouping_of(settings))
    of_first, of_other = np.split(np.stack([one.matrices for one in each]), 2)
    paired = difference(of_other, of_first, groups)
    if np.isnan(paired.low):
        return ""
    return f" (95 % interval {paired.low:z.2f} to {paired.high:z.2f}, {paired.groups} groups)"


def _confusions(study: Path, row: Row) -> Confusions | None:
    path = study / folder_of(row) / "confusions.csv"
    metrics = read_metrics(path.parent / "metrics.json", [row["subset"]])
    if metrics is None or not path.is_file():
        return None
    figures = metrics[row["checkpoint"]]["subsets"][row["subset"]]
    return _read(path, len(figures["classes"])).get((row["checkpoint"], row["subset"]))


@lru_cache(maxsize=16)
def _read(path: Path, classes: int) -> Evaluated:
    """As many as two studies of a few seeds have: the rows of one model follow each other."""
    return read_confusions(path, classes)


def _are_alike(one: Confusions, other: Confusions | None) -> bool:
    """Whether both have the same images, with as many pixels of each class."""
    if other is None or one.ids != other.ids:
        return False
    return np.array_equal(one.matrices.sum(-1), other.matrices.sum(-1))
