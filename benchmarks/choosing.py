"""Simulate how often intervals cover the truth, and how often each rule chooses the better model.

Images and models are drawn from known distributions, so the truth is known: the mIoU of very many
images. Writes choosing-intervals.csv and choosing.csv, the same in every run, within two minutes.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.special import expit, ndtri

from measure import REPOSITORY, SCRIPTS

sys.path.insert(0, str(SCRIPTS))

from dst_cbc.inference.metrics import DRAWS, group_sums, mean_ious
from dst_cbc.inference.paired import difference, interval

SHARE = np.array([0.45, 0.25, 0.15, 0.08, 0.05, 0.02])
"""Share of the pixels of each class, where it is in an image."""
PRESENCE = np.array([0.99, 0.9, 0.8, 0.7, 0.6, 0.5])
"""Share of the images that have the class."""
LOGIT = np.array([2.5, 1.5, 1.0, 0.5, 0.0, -0.5])
"""Logit of the share of its pixels that a model of quality 0 gets right."""
SIZE, HARD, HARD_CLASS, OWN = 0.5, 0.25, 0.35, 0.3
"""Standard deviations between images: logarithm of a class's size; logit of how hard an image is,
and a class in it, for every model; and what one model finds hard."""
WITHIN = 0.3
"""Share of these variances that is between the frames of one scene."""
CHAIN = (0.0, 2.5, 4.0, 3.0, 1.0, -1.0)
"""True points of mIoU of round 0 and five rounds, over round 0: they rise, then fall."""
GAIN, PATIENCE, TRUTH_IMAGES = 3.0, 2, 40_000


@dataclass(frozen=True)
class Images:
    """Of each trial. pixels, hard: float64 (trials, scenes x frames, classes)."""

    pixels: np.ndarray
    hard: np.ndarray
    frames: int


def varying(random: np.random.Generator, trials: int, scenes: int, frames: int, width: int):
    """Standard normal, float64 (trials, scenes * frames, width): frames of a scene are alike."""
    between = random.normal(0, 1, (trials, scenes, 1, width))
    within = random.normal(0, 1, (trials, scenes, frames, width))
    return (np.sqrt(1 - WITHIN) * between + np.sqrt(WITHIN) * within).reshape(trials, -1, width)


def draw(random: np.random.Generator, trials: int, scenes: int, frames: int = 1) -> Images:
    def vary(width: int) -> np.ndarray:
        return varying(random, trials, scenes, frames, width)

    sizes = SHARE * np.exp(SIZE * vary(6)) * (vary(6) < ndtri(PRESENCE))
    pixels = 10_000 * sizes / np.maximum(sizes.sum(-1, keepdims=True), 1e-9)
    return Images(pixels, HARD * vary(1) + HARD_CLASS * vary(6), frames)


def evaluate(random: np.random.Generator, images: Images, quality: float) -> np.ndarray:
    """int64 (trials, images, classes, classes): the matrices of a model with errors of its own."""
    trials, count, classes = images.pixels.shape
    own = OWN * varying(random, trials, count // images.frames, images.frames, classes)
    right = images.pixels * expit(LOGIT + quality - images.hard - own)
    # What is wrong is taken for the other classes, as often as they are frequent.
    others = SHARE * (1 - np.eye(classes))
    wrong = others / others.sum(-1, keepdims=True)
    found = (images.pixels - right)[..., None] * wrong + right[..., None] * np.eye(classes)
    return np.rint(found).astype(np.int64)


def miou(matrices: np.ndarray) -> np.ndarray:
    """In percent: of the images of each trial, pooled."""
    return 100 * mean_ious(matrices.sum(-3))


@cache
def truths() -> tuple[np.ndarray, np.ndarray]:
    """Qualities, and their mIoU on so many images that it is the truth."""
    random = np.random.default_rng(0)
    many, qualities = draw(random, 1, TRUTH_IMAGES), np.linspace(-0.3, 0.5, 9)
    return qualities, np.array([miou(evaluate(random, many, one))[0] for one in qualities])


def quality_of(points: float) -> float:
    """The quality of a model that is so many points of mIoU above one of quality 0."""
    qualities, found = truths()
    return float(np.interp(np.interp(0, qualities, found) + points, found, qualities))


def percentiles(ours: np.ndarray, theirs: np.ndarray, groups: Sequence[int]) -> np.ndarray:
    """The other usual interval of a difference: the percentiles of a bootstrap over groups."""
    sums = [group_sums(one, groups).astype(np.float64) for one in (ours, theirs)]
    count = len(sums[0])
    drawn = np.random.default_rng(0).multinomial(count, [1 / count] * count, size=DRAWS)
    each = [mean_ious(np.tensordot(drawn.astype(np.float64), one, 1)) for one in sums]
    return 100 * np.percentile(each[0] - each[1], [2.5, 97.5])


# --------------------------------------------------------------------------- intervals


def covering(trials: int, scenes: int, frames: int, by_image: bool = False) -> dict[str, object]:
    """How often intervals cover the truth: a difference of 0, and the mIoU of one model."""
    random = np.random.default_rng(1)
    images = draw(random, trials, scenes, frames)
    pairs = zip(*(evaluate(random, images, 0) for _ in range(2)), strict=True)
    groups = np.arange(scenes * frames) // (1 if by_image else frames)
    qualities, found = truths()
    truth = np.interp(0, qualities, found)
    ends, drawn, alone = [], [], []
    for ours, theirs in pairs:
        paired = difference(ours, theirs, groups.tolist())
        ends.append((paired.low, paired.high))
        drawn.append(percentiles(ours, theirs, groups.tolist()))
        alone.append(interval(ours, groups.tolist()))
    return {
        "images": scenes * frames,
        "scenes": scenes,
        "resampled by": "images" if by_image or frames == 1 else "scenes",
        "difference: covered %": _covered(ends, 0),
        "difference: width": _width(ends),
        "bootstrap: covered %": _covered(drawn, 0),
        "one model: covered %": _covered(alone, truth),
        "one model: width": _width(alone),
    }


def _covered(ends: Sequence, truth: float) -> str:
    return f"{100 * np.mean([low <= truth <= high for low, high in ends]):.1f}"


def _width(ends: Sequence) -> str:
    return f"{np.median([high - low for low, high in ends]):.1f}"


# --------------------------------------------------------------------------- rules


def scores(
    random: np.random.Generator, trials: int, images: int, points: Sequence[float], same: bool
) -> np.ndarray:
    """float64 (trials, models): mIoU of models that are so many points above the first.

    same: whether all are evaluated on the same images, or each on as many of its own.
    """
    drawn = draw(random, trials, images)
    found = []
    for one in points:
        found.append(miou(evaluate(random, drawn, quality_of(one))))
        drawn = drawn if same else draw(random, trials, images)
    return np.stack(found, -1)


def until_patience_ends(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chosen model of each chain that ends after PATIENCE rounds without a better one.

    Also the number of its rounds. found: float64 (trials, models).
    """
    best, rounds = np.zeros(len(found), int), np.zeros(len(found), int)
    for place in range(1, found.shape[1]):
        goes_on = place - 1 - best < PATIENCE
        better = goes_on & (found[:, place] > np.take_along_axis(found, best[:, None], 1)[:, 0])
        best, rounds = np.where(better, place, best), rounds + goes_on
    return best, rounds


def choosing(trials: int) -> Iterator[dict[str, object]]:
    """How often each rule chooses the better of two models, and what it loses in a chain."""
    lost = max(CHAIN) - np.array(CHAIN)

    def row(rule: str, images: int | str, better: float, chosen, rounds: float = len(CHAIN) - 1):
        return {
            "rule": rule,
            "val images": images,
            "better of two %": f"{100 * better:.0f}",
            "chain: points below its best": f"{np.mean(lost[chosen]):.2f}",
            "rounds": f"{np.mean(rounds):.1f}",
        }

    # The better one is the later one in half of the studies.
    yield row("last", "any", 0.5, np.array([-1]))
    for images in (6, 12, 30):
        for rule, same in (("unpaired", False), ("paired", True)):
            random = np.random.default_rng(2)
            two = scores(random, trials, images, (0.0, GAIN), same)
            better = float(np.mean(two[:, 1] > two[:, 0]))
            chain = scores(random, trials, images, CHAIN, same)
            yield row(rule, images, better, chain.argmax(1))
            if same:
                chosen, rounds = until_patience_ends(chain)
                yield row(f"paired, patience {PATIENCE}", images, better, chosen, rounds)


# --------------------------------------------------------------------------- files


def write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(path, *(" ".join(map(str, row.values())) for row in rows), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="of each row (default 1000)")
    parser.add_argument(
        "--out",
        type=Path,
        default=REPOSITORY / "docs/results",
        help="folder (default docs/results)",
    )
    arguments = parser.parse_args()
    cases = [(scenes, 1, False) for scenes in (4, 6, 12, 30, 100)]
    cases += [(scenes, 10, by_image) for scenes in (6, 12, 30) for by_image in (False, True)]
    write(
        arguments.out / "choosing-intervals.csv",
        [covering(arguments.trials, *case) for case in cases],
    )
    write(arguments.out / "choosing.csv", [*choosing(arguments.trials)])


if __name__ == "__main__":
    main()
