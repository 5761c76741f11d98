"""Images and models drawn from known distributions, so that the truth is known.

The truth is the mIoU of very many images.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.special import expit, ndtri

from measure import REPOSITORY, SCRIPTS

sys.path.insert(0, str(SCRIPTS))

from dst_cbc.inference.metrics import mean_ious

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
TRUTH_IMAGES = 40_000


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


def evaluate(
    random: np.random.Generator, images: Images, quality: float | np.ndarray
) -> np.ndarray:
    """int64 (trials, images, classes, classes): the matrices of a model with errors of its own.

    quality: of all models, or float64 that broadcasts to (trials, images, classes).
    """
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


def covered(ends: Sequence, truth: float) -> str:
    """How often intervals contain the truth, percent. ends: the lower and upper end of each."""
    return f"{100 * np.mean([low <= truth <= high for low, high in ends]):.1f}"


def width(ends: Sequence) -> str:
    """The median width of intervals."""
    return f"{np.median([high - low for low, high in ends]):.1f}"


def write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(path, *(" ".join(map(str, row.values())) for row in rows), sep="\n")


def parse(description: str | None) -> argparse.Namespace:
    """The options of a simulation: `trials` of each row, and the folder `out` of its tables."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--trials", type=int, default=1000, help="of each row (default 1000)")
    parser.add_argument(
        "--out",
        type=Path,
        default=REPOSITORY / "docs/results",
        help="folder (default docs/results)",
    )
    return parser.parse_args()
