"""Simulate tables of gains: how often the interval finds no gain where there is none, or one of 2.

Writes gaining.csv, the same in every run, within two minutes.
"""

import sys
from collections.abc import Sequence

import numpy as np

from measure import SCRIPTS

sys.path.insert(0, str(SCRIPTS))

from dst_cbc.inference.metrics import group_sums, mean_ious
from dst_cbc.inference.paired import leave_out
from dst_cbc.report.gain import interval
from simulated import covered, draw, evaluate, parse, quality_of, varying, width, write

SEEDS, GAIN, DRAWS = 3, 2.0, 500
METHOD = 0.15
"""Standard deviation between images, as a logit, of what a method finds hard with every seed."""


def matrices(
    random: np.random.Generator, trials: int, scenes: int, frames: int, spread: float, points: float
) -> np.ndarray:
    """int64 (2, trials, seeds, images, classes, classes): a method and its control.

    All seeds have the same images. spread: standard deviation, in points of mIoU, of the difference
    that the seeds alone make. points: how much better the method truly is.
    """
    images = draw(random, trials, scenes, frames)
    point = (quality_of(1) - quality_of(-1)) / 2
    both = []
    for better in (quality_of(points), 0.0):
        always = better + METHOD * varying(random, trials, scenes, frames, images.pixels.shape[-1])
        luck = random.normal(0, spread * point / np.sqrt(2), (SEEDS, trials, 1, 1))
        both.append([evaluate(random, images, always + one) for one in luck])
    return np.moveaxis(np.array(both), 1, 2)


def bootstrap(tests: Sequence[np.ndarray], groups: np.ndarray) -> np.ndarray:
    """The usual interval, of percentiles: seeds are drawn, then groups of images.

    tests: int64 (2, seeds, images, classes, classes) of each choice of test images.
    """
    random, drawn = np.random.default_rng(0), []
    for one in tests:
        sums = np.moveaxis(group_sums(one, groups.tolist()), 2, 0).astype(np.float64)
        count = len(sums)
        images = random.multinomial(count, [1 / count] * count, size=DRAWS).astype(np.float64)
        ours, theirs = np.moveaxis(mean_ious(np.tensordot(images, sums, 1)), 1, 0)
        seeds = random.multinomial(SEEDS, [1 / SEEDS] * SEEDS, size=DRAWS) / SEEDS
        drawn.append(((ours - theirs) * seeds).sum(-1))
    return 100 * np.percentile(np.mean(drawn, 0), [2.5, 97.5])


def gaining(
    trials: int, tests: int, scenes: int, frames: int, spread: float, usual: bool = True
) -> dict[str, object]:
    """One row: how often the interval contains 0 where there is no gain, and not where there is.

    usual: whether the bootstrap is tried, too.
    """
    groups = np.arange(scenes * frames) // frames

    def trial(points: float):
        random = np.random.default_rng(3)
        found = [matrices(random, trials, scenes, frames, spread, points) for _ in range(tests)]
        without = [leave_out(one, groups.tolist()) for one in found]
        pairs = zip(*(ours - theirs for ours, theirs in without), strict=True)
        return [interval(one)[1:] for one in pairs], found

    nothing, found = trial(0)
    ends, _ = trial(GAIN)
    row: dict[str, object] = {
        "test choices": tests,
        "images of each": scenes * frames,
        "groups": scenes,
        "spread of the seeds": spread,
        "no gain: covered %": covered(nothing, 0),
        "width": width(nothing),
    }
    if usual:
        each = zip(*(np.moveaxis(one, 1, 0) for one in found), strict=True)
        row["bootstrap: covered %"] = covered([bootstrap(one, groups) for one in each], 0)
    return row | {"2 points: found %": f"{100 * np.mean([low > 0 for low, _ in ends]):.0f}"}


def main() -> None:
    arguments = parse(__doc__)
    cases = [
        (tests, scenes, frames, spread)
        for tests in (1, 3)
        for scenes, frames in ((8, 4), (16, 1), (30, 3))
        for spread in (0.5, 1.0, 2.0)
    ]
    rows = [gaining(arguments.trials, *case) for case in cases]
    write(arguments.out / "gaining.csv", rows)


if __name__ == "__main__":
    main()
