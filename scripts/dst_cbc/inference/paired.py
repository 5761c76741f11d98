"""Two models on the same images: the difference of their mIoU, and how sure it is.

Images of one group, such as the frames of a scene, are alike: they say less than as many images of
their own. So the images are resampled by whole groups. The interval is Student's t about the
standard error of a jackknife that leaves each group out (Tukey, 1958; Efron and Tibshirani, An
introduction to the bootstrap, 1993, chapter 11). In simulations it covers the truth in about 95 %
of trials from 4 groups on, where the percentiles of a bootstrap over 4 groups cover it in 80 %.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from ..data.groups import blocks, groups_of
from ..runtime.errors import DataError
from ..settings.data import Grouping
from .confusions import Confusions
from .metrics import group_sums, mean_ious


@dataclass(frozen=True)
class Difference:
    """How much higher our mIoU is than theirs, in points (percent).

    low, high: the ends of its 95 % interval. above: how sure it is that ours is higher, 0..1. All
    three are NaN unless two groups have labeled pixels; mean, too, if none has.
    """

    mean: float
    low: float
    high: float
    above: float
    images: int
    groups: int


def resampling_groups(
    ids: Sequence[str], known_ids: Collection[str], group: Grouping | None
) -> list[int]:
    """Return the number of each image's group, from 0 on in the order of `ids`.

    known_ids: all ids of dataset.csv. group: `DatasetStage.group`, a pattern or the number of
    images in a block. Without it, names that differ only in their last number are frames of one
    sequence. Frames of `ids` without another known frame between them are a run; a run of n is cut
    into blocks of the cube root of n, rounded up: the block bootstrap (Künsch, 1989), with the
    length of Hall, Horowitz and Jing (1995). So a sequence that is a whole subset is several
    groups. All other images are groups of their own.
    """
    by_pattern = isinstance(group, str)
    names = groups_of(ids, group) if by_pattern else dict(blocks(ids, known_ids, group))
    numbers: dict[str, int] = {}
    return [numbers.setdefault(names[id], len(numbers)) for id in ids]


def difference(ours: np.ndarray, theirs: np.ndarray, groups: Sequence[int]) -> Difference:
    """Compare two models by the pooled mIoU of the same images.

    ours, theirs: int64 (images, classes, classes), the matrices of the same images in the same
    order; or (seeds, images, classes, classes), then the differences of the seeds are averaged.
    groups: of `resampling_groups`.
    """
    return jackknifed(_points(ours, groups) - _points(theirs, groups), len(groups))


def jackknifed(points: np.ndarray, images: int) -> Difference:
    """Return how sure a difference is that so many images give.

    points: float64 (1 + groups,), the difference on all images, and without each of the groups.
    """
    mean, error, degrees = _jackknife(points)
    low, high = _ends(points)
    # An error of 0 is certainty.
    above = float(stdtr(degrees, mean / (error or 1e-9)))
    return Difference(mean, low, high, above, images, degrees + 1)


def interval(matrices: np.ndarray, groups: Sequence[int]) -> tuple[float, float]:
    """95 % interval of one model's mIoU in percent: lower and upper end; NaN as in `Difference`.

    matrices, groups: as in `difference`.
    """
    low, high = np.clip(_ends(_points(matrices, groups)), 0, 100)
    return float(low), float(high)


def leave_out(matrices: np.ndarray, groups: Sequence[int]) -> np.ndarray:
    """float64 (…, 1 + groups): the mIoU in percent of all images, and without each of the groups.

    matrices: int64 (…, images, classes, classes). groups: the number of each image's group.
    """
    sums = group_sums(matrices, groups)
    total = sums.sum(-3, keepdims=True)
    return 100 * mean_ious(np.concatenate([total, total - sums], -3))


def _points(matrices: np.ndarray, groups: Sequence[int]) -> np.ndarray:
    """float64 (1 + groups,): `leave_out`, mean over the seeds."""
    found = leave_out(matrices, groups)
    return found.reshape(-1, found.shape[-1]).mean(0)


def _ends(points: np.ndarray) -> tuple[float, float]:
    """95 % interval by Student's t about the jackknife's standard error."""
    mean, error, degrees = _jackknife(points)
    reach = float(stdtrit(degrees, 0.975)) * error
    return mean - reach, mean + reach


def _jackknife(points: np.ndarray) -> tuple[float, float, int]:
    """Estimate, standard error and degrees of freedom, from the values of `_points`."""
    without, count = points[1:], len(points) - 1
    error = math.sqrt((count - 1) * np.var(without))
    return float(points[0]), error, count - 1


def paired(
    ours: Confusions, theirs: Confusions, known_ids: Collection[str], group: Grouping | None
) -> Difference:
    """Compare two models that were evaluated on the same images.

    known_ids, group: see `resampling_groups`. Raises DataError if the images are not the same.
    """
    require_same_images(ours, theirs)
    groups = resampling_groups(ours.ids, known_ids, group)
    return difference(ours.matrices, theirs.matrices, groups)


def require_same_images(ours: Confusions, theirs: Confusions) -> None:
    """Raise DataError unless both have the same images in the same order."""
    if ours.ids != theirs.ids:
        apart = sorted({*ours.ids} ^ {*theirs.ids})
        what = f"{apart[0]!r} is only in one" if apart else "their order differs"
        raise DataError(
            f"confusions.csv: found {len(ours.ids)} and {len(theirs.ids)} images, {what}; expected "
            "two models that were evaluated on the same images; delete the older file to have that "
            "model evaluated again"
        )


def choose(candidates: Sequence[Confusions]) -> int:
    """Return the place of the model to use, by the images on which all were evaluated.

    In order, each replaces the best so far if its paired mean, see `Difference`, is above. Raises
    DataError if the images are not the same. candidates: at least one; matrices as in `difference`.
    """
    best = 0
    for place, candidate in enumerate(candidates):
        require_same_images(candidate, candidates[best])
        if _miou(candidate) > _miou(candidates[best]):
            best = place
    return best


def _miou(found: Confusions) -> float:
    return float(np.mean(mean_ious(found.matrices.sum(-3))))


def describe(found: Difference) -> str:
    """The difference in words, for logs and reports: `+1.2 points (95 % interval …)`."""
    if math.isnan(found.mean):
        return "unknown: no pixel of these images has a class"
    images = "1 image" if found.images == 1 else f"{found.images} images"
    points = f"{found.mean:+z.1f} points"
    if math.isnan(found.low):
        return f"{points} (no interval: {images} in one group)"
    sure = found.above if found.mean > 0 else 1 - found.above
    percent = "over 99 %" if sure > 0.99 else f"{100 * sure:.0f} %"
    return (
        f"{points} (95 % interval {found.low:z.1f} to {found.high:z.1f} over {images} in "
        f"{found.groups} groups; {percent} sure)"
    )
