"""Draws a data set of handwriting on paper from scikit-learn's digits, without a download.

A scene is a sheet of shaded, stained and perhaps ruled paper with a few handwritten digits in
ink. Each scene depends on its seed, subset and index, but not on the number of scenes.
"""

import io
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ..runtime.files import write_bytes, write_text
from ..settings.data import DrawSettings
from .masks import write_indexed_png

SUBSETS = ("train", "val", "test")

# Okabe and Ito's palette with wine, grey and lilac, on black; ignored pixels are white.
CLASSES = {
    "background": "#000000", "0": "#c8b6ff", "1": "#e69f00", "2": "#56b4e9", "3": "#009e73",
    "4": "#f0e442", "5": "#0072b2", "6": "#d55e00", "7": "#cc79a7", "8": "#882255", "9": "#999999",
}  # fmt: skip

# Every ink is darker than every paper: a dozen scenes do not suffice to learn other combinations.
_PAPERS = (
    (250, 247, 240), (244, 235, 214), (236, 224, 196), (238, 240, 243), (247, 238, 226),
    (229, 232, 220),
)  # fmt: skip
_INKS = (
    (24, 26, 34), (22, 36, 96), (30, 58, 132), (70, 42, 30), (122, 24, 34), (20, 78, 60),
    (74, 74, 80),
)  # fmt: skip

_MASTER = 96  # side of a smoothed digit with its margin, in pixels, before it is placed


def scene_ids(settings: DrawSettings) -> Iterator[tuple[str, str]]:
    """Yield subset and id of every scene, whether it is drawn already or not."""
    for subset in SUBSETS:
        for index in range(getattr(settings, subset)):
            yield subset, f"{subset}-{index:04d}"


def write_scenes(settings: DrawSettings, folder: Path) -> None:
    """Draw all scenes into images/<subset>/<id>.png and labels/<subset>/<id>.png.

    `scenes.json`, the settings, is written last: where it exists, the data set is complete.
    """
    scenes = list(scene_ids(settings))
    for subset, id in tqdm(scenes, "draw", unit="scene", disable=None):
        image, label = draw_scene(settings, subset, int(id.removeprefix(f"{subset}-")))
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG")
        write_bytes(folder / "images" / subset / f"{id}.png", png.getvalue())
        write_indexed_png(folder / "labels" / subset / f"{id}.png", label, CLASSES)
    write_text(folder / "scenes.json", settings.model_dump_json(indent=2) + "\n")


@cache
def _load() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All digits, (1797, 8, 8) float32 in 0..1 with 1 = ink; and their classes, (1797,) in 0..9."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    return (data.images / 16).astype(np.float32), data.target


@cache
def pools(seed: int) -> dict[str, NDArray[np.int64]]:
    """Indexes of the digits that each subset uses: disjoint, 60, 15 and 25 % of 0..1796."""
    count = len(_load()[1])
    order = np.random.default_rng(np.random.SeedSequence((seed, len(SUBSETS)))).permutation(count)
    parts = np.split(order, [count * 60 // 100, count * 75 // 100])
    return dict(zip(SUBSETS, parts, strict=True))


@cache
def _master(digit: int) -> Image.Image:
    """A digit smoothed to an L image of side _MASTER, with an empty cell around its 8x8 cells."""
    cells = np.pad(_load()[0][digit], 1)
    return Image.fromarray((cells * 255).astype(np.uint8)).resize(
        (_MASTER, _MASTER), Image.Resampling.BICUBIC
    )


def _clouds(rng: np.random.Generator, size: int, cells: int) -> NDArray[np.float32]:
    """Smooth noise, (size, size) float32 in 0..1, about `cells` blobs per side."""
    grid = Image.fromarray(rng.random((cells + 1, cells + 1), dtype=np.float32))
    return np.clip(np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC)), 0, 1)


def _paper(settings: DrawSettings, rng: np.random.Generator) -> NDArray[np.float32]:
    """An empty sheet, (size, size, 3) float32 in 0..255."""
    size = settings.size
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    paper = np.full((size, size, 3), _PAPERS[rng.integers(len(_PAPERS))], np.float32)
    if rng.random() < settings.ruled:
        gap, tilt = rng.uniform(0.12, 0.2), rng.uniform(-0.04, 0.04)
        count = 2 if rng.random() < 0.4 else 1  # 2: squared paper, 1: lined paper
        for line, phase in zip(
            (y + tilt * x, x - tilt * y)[:count], rng.random(2)[:count], strict=True
        ):
            distance = np.abs((line / gap + phase) % 1 - 0.5) * gap * size
            strength = 0.35 * np.clip(1.2 - distance, 0, 1)[..., None]
            paper += strength * (np.array((120, 150, 200), np.float32) - paper)
    for _ in range(rng.integers(settings.stains + 1)):
        centre, radius = rng.uniform(0, 1, 2), rng.uniform(0.08, 0.3)
        wobble = 0.06 * (_clouds(rng, size, 5) - 0.5)
        distance = np.hypot(y - centre[0], x - centre[1]) + wobble - radius
        # A stain looks like a dried drop of coffee: a pale inside and a darker rim.
        inside = 0.10 / (1 + np.exp(np.clip(distance * 60, -30, 30)))
        rim = 0.14 * np.exp(-((distance * 35) ** 2))
        paper += (
            rng.uniform(0.3, 1)
            * (inside + rim)[..., None]
            * (np.array((120, 80, 40), np.float32) - paper)
        )
    angle = rng.uniform(0, 2 * math.pi)
    light = ((x - 0.5) * math.cos(angle) + (y - 0.5) * math.sin(angle)) / math.sqrt(2) + 0.5
    light = 0.6 * light + 0.4 * _clouds(rng, size, 3)
    paper *= 1 - rng.uniform(0, settings.shade) * light[..., None]
    fibres = _clouds(rng, size, size // 3) - 0.5
    return paper + 8 * fibres[..., None]


def _stroke(settings: DrawSettings, rng: np.random.Generator, digit: int) -> NDArray[np.float32]:
    """Share of each pixel that a digit's ink covers, (height, width) float32, cut to the ink."""
    height = rng.uniform(*settings.digit_size)
    width = height * settings.stretch ** rng.uniform(-1, 1)
    angle = math.radians(rng.uniform(-settings.rotation, settings.rotation))
    slant = rng.uniform(-settings.slant, settings.slant)
    side = math.ceil(1.6 * max(height, width))
    # PIL wants the map from the patch to the master: it undoes rotation, slant and scale.
    undo = np.array(((1, slant), (0, 1))) @ np.array(
        ((math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle)))
    )
    undo = np.diag((_MASTER * 0.8 / width, _MASTER * 0.8 / height)) @ undo
    shift = _MASTER / 2 - undo @ (side / 2, side / 2)
    data = (*undo[0], shift[0], *undo[1], shift[1])
    patch = _master(digit).transform(
        (side, side), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC
    )
    threshold = rng.uniform(0.4, 0.5)  # a thick or a thin pen
    ink: Any = np.clip((np.asarray(patch, np.float32) / 255 - threshold) * 4 + 0.5, 0, 1)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw_scene(
    settings: DrawSettings, subset: str, index: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a scene: its image, (size, size, 3) uint8 in RGB, and its label, (size, size) uint8.

    The label is 0 on the background and d + 1 where the ink of digit d is.
    """
    rng = np.random.default_rng(
        np.random.SeedSequence((settings.seed, SUBSETS.index(subset), index))
    )
    size, pool, targets = settings.size, pools(settings.seed)[subset], _load()[1]
    image = _paper(settings, rng)
    label = np.zeros((size, size), np.uint8)
    taken = np.zeros((size, size), bool)
    pen = np.array(_INKS[rng.integers(len(_INKS))], np.float32)  # for most digits
    count = rng.integers(settings.digits[0], settings.digits[1] + 1)
    # All digits of a sheet differ, so that every class occurs in a dozen labeled scenes.
    for target in rng.permutation(10)[:count]:
        digit = int(rng.choice(pool[targets[pool] == target]))
        ink = _stroke(settings, rng, digit)
        colour = (
            pen if rng.random() < 0.8 else np.array(_INKS[rng.integers(len(_INKS))], np.float32)
        )
        opacity = rng.uniform(*settings.ink) * (0.8 + 0.2 * _clouds(rng, max(ink.shape), 4))
        opacity = opacity[: ink.shape[0], : ink.shape[1]] * ink
        # Digits never overlap: one that finds no free place in 40 tries is left out.
        for _ in range(40):
            top, left = (int(rng.integers(size - length)) for length in ink.shape)
            box = (slice(top, top + ink.shape[0]), slice(left, left + ink.shape[1]))
            if not taken[box].any():
                break
        else:
            continue
        taken[box] = True
        image[box] += opacity[..., None] * (colour + rng.uniform(-8, 8, 3) - image[box])
        label[box][ink > 0.5] = target + 1
    image += rng.normal(0, rng.uniform(*settings.noise), image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), label
