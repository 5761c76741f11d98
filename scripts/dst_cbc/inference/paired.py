"""Two models on the same images: the difference of their mIoU, and how sure it is.

Images of one group, such as the frames of a scene, are alike: they say less than as many images of
their own. So whole groups are drawn again, and never single images.
"""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ..data.layouts.pairs import groups_of
from ..runtime.errors import DataError
from .confusions import Confusions
from .metrics import drawn_miou, mean_iou


@dataclass(frozen=True)
class Difference:
    """How much higher our mIoU is than theirs, in points (percent).

    low, high: the ends of its 95 % interval. above: the share of draws in which ours is higher,
    0..1, equal ones by half. All three are NaN for fewer than two groups; mean, too, if no image
    has a labeled pixel.
    """

    mean: float
    low: float
    high: float
    above: float
    images: int
    groups: int


def resampling_groups(
    ids: Sequence[str], known_ids: Collection[str], pattern: str | None
) -> list[int]:
    """Return the number of each image's group, from 0 on in the order of `ids`.

    known_ids: all ids of dataset.csv. pattern: `pairs.group`. Without one, names that differ only
    in their last number are frames of one sequence. Frames of `ids` without another known frame
    between them are a run; a run of n is cut into blocks of the cube root of n, rounded up: the
    block bootstrap (Künsch, 1989), with the length of Hall, Horowitz and Jing (1995). So a sequence
    that is a whole subset is several groups. All other images are groups of their own.
    """
    names = groups_of(ids, pattern) if pattern is not None else dict(_blocks(ids, known_ids))
    numbers: dict[str, int] = {}
    return [numbers.setdefault(names[id], len(numbers)) for id in ids]


def _blocks(ids: Collection[str], known_ids: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield each image with the first image of its block."""
    chosen = {*ids}
    frames = sorted(chosen.union(known_ids), key=_frame)
    for (_, is_chosen), found in groupby(frames, lambda one: (_frame(one)[0], one in chosen)):
        if is_chosen:
            run = [*found]
            length = math.ceil(len(run) ** (1 / 3))
            yield from ((id, run[place // length * length]) for place, id in enumerate(run))


def _frame(id: str) -> tuple[tuple[str, ...], int, str]:
    """The sequence of an image: its name around the last number; that number; and its name."""
    before, number, after = re.findall(r"^(.*?)(\d*)(\D*)$", id, re.DOTALL)[0]
    return ((before, after), int(number), id) if number else ((id,), 0, id)


def difference(ours: np.ndarray, theirs: np.ndarray, groups: Sequence[int]) -> Difference:
    """Compare two models by the pooled mIoU of the same images.

    ours, theirs: int64 (images, classes, classes), the matrices of the same images in the same
    order; or (seeds, images, classes, classes), then the differences of the seeds are averaged.
    groups: of `resampling_groups`; both models get the same draws.
    """
    count = len({*groups})
    mean = _points(ours) - _points(theirs)
    if count < 2 or math.isnan(mean):
        return Difference(mean, math.nan, math.nan, math.nan, len(groups), count)
    drawn = _drawn_points(ours, groups) - _drawn_points(theirs, groups)
    drawn = drawn[~np.isnan(drawn)]
    above = float(np.mean(drawn > 0) + np.mean(drawn == 0) / 2)
    return Difference(mean, *_ends(drawn), above, len(groups), count)


def interval(matrices: np.ndarray, groups: Sequence[int]) -> tuple[float, float]:
    """95 % interval of one model's mIoU in percent: lower and upper end; NaN as in `Difference`.

    matrices, groups: as in `difference`, with the same draws.
    """
    if len({*groups}) < 2 or math.isnan(_points(matrices)):
        return math.nan, math.nan
    drawn = _drawn_points(matrices, groups)
    return _ends(drawn[~np.isnan(drawn)])


def _points(matrices: np.ndarray) -> float:
    pooled = matrices.sum(-3)
    return 100 * float(np.mean([mean_iou(one) for one in pooled.reshape(-1, *pooled.shape[-2:])]))


def _drawn_points(matrices: np.ndarray, groups: Sequence[int]) -> np.ndarray:
    drawn = drawn_miou(matrices, groups)
    return 100 * drawn.reshape(-1, drawn.shape[-1]).mean(0)


def _ends(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def paired(
    ours: Confusions, theirs: Confusions, known_ids: Collection[str], pattern: str | None
) -> Difference:
    """Compare two models that were evaluated on the same images.

    known_ids, pattern: see `resampling_groups`. Raises DataError if the images are not the same.
    """
    require_same_images(ours, theirs)
    groups = resampling_groups(ours.ids, known_ids, pattern)
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
    DataError if the images are not the same. candidates: at least one.
    """
    best = 0
    for place, candidate in enumerate(candidates):
        require_same_images(candidate, candidates[best])
        if _points(candidate.matrices) > _points(candidates[best].matrices):
            best = place
    return best


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
