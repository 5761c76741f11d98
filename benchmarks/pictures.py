"""Draw data sets for benchmarks into a folder: photograph-like images with masks of blobs."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from dst_cbc.data.index import Row, write_index
from dst_cbc.data.masks import write_indexed_png
from dst_cbc.runtime.files import sha256_file
from dst_cbc.settings.data import DatasetStage

CLASSES = {f"class{number}": f"#{9 * number:02x}5a{255 - 9 * number:02x}" for number in range(21)}
BLOBS = 5  # classes in one picture
DRAWN = 64  # different pictures; further images are hard links to them


@dataclass(frozen=True)
class Pictures:
    """A data set in the layout `folder`: every fourth image in val, the others in train."""

    root: Path
    dataset: DatasetStage
    rows: list[Row]

    def without_masks(self) -> Pictures:
        """The same images, unlabeled."""
        rows = [replace(row, label="", label_sha256="") for row in self.rows]
        return Pictures(self.root, self.dataset, rows)

    def write_lists(self, folder: Path) -> None:
        """Write dataset.csv, and ids.txt with all ids, into `folder`."""
        write_index(folder / "dataset.csv", self.rows)
        (folder / "ids.txt").write_text("".join(f"{row.id}\n" for row in self.rows))


def write(
    root: Path, count: int, size: tuple[int, int] = (375, 500), masks: bool = True
) -> Pictures:
    """Write `count` JPEG files of (height, width) and, if `masks`, an indexed PNG for each."""
    random = np.random.default_rng(0)
    sources = root / "sources"
    for number in range(min(count, DRAWN)):
        sources.mkdir(parents=True, exist_ok=True)
        photograph(random, size).save(sources / f"{number}.jpg", quality=92)
        write_indexed_png(sources / f"{number}.png", blobs(random, size), CLASSES)
    rows = []
    for number in range(count):
        id, subset = f"{number:05d}", "train" if number % 4 else "val"
        image, label = f"images/{subset}/{id}.jpg", f"labels/{subset}/{id}.png" if masks else ""
        digests = {"": ""}
        for path in filter(None, (image, label)):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            source = sources / f"{number % DRAWN}{Path(path).suffix}"
            os.link(source, root / path)
            digests[path] = sha256_file(source)
        rows.append(Row(id, image, label, *size, subset, digests[image], digests[label]))
    return Pictures(root, dataset(), rows)


def dataset() -> DatasetStage:
    """Settings of the data sets that `write` draws."""
    return DatasetStage(
        format="folder",
        classes=CLASSES,
        labels=dict(enumerate(CLASSES)),
        ignore=(255,),
        test_from_val=0,
        digits=None,
    )


def photograph(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Smooth colours with texture and noise; takes about as long to decode as a photograph."""
    colours = smooth(random, size, 32, 3) * 255
    texture = 16 * (smooth(random, size, 4) - 0.5) + random.normal(0, 2, (*size, 1))
    pixels = np.clip(colours + texture, 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


def blobs(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A mask, uint8 (height, width): large blobs of a few classes, borders of 255 as in VOC."""
    classes = random.permutation(len(CLASSES))[:BLOBS]
    winner = smooth(random, size, 64, BLOBS).argmax(-1)
    border = np.zeros(size, bool)
    border[:, 2:] |= winner[:, 2:] != winner[:, :-2]
    border[2:] |= winner[2:] != winner[:-2]
    return np.where(border, 255, classes[winner]).astype(np.uint8)


def smooth(
    random: np.random.Generator, size: tuple[int, int], cell: int, channels: int = 1
) -> np.ndarray:
    """Noise in about 0..1, float32 (height, width, channels), upsampled by a factor of `cell`."""
    coarse = [-(-side // cell) + 1 for side in size]
    layers = [
        Image.fromarray(random.random(coarse, np.float32)).resize(
            size[::-1], Image.Resampling.BICUBIC
        )
        for _ in range(channels)
    ]
    return np.stack(layers, -1)
