"""Images and label masks: reading what people have, writing PNGs that any viewer opens."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .files import DataError, write_bytes
from .settings import IGNORED, DatasetStage

# Pillow warns above this and fails above twice this; a training image never comes near.
Image.MAX_IMAGE_PIXELS = 1 << 28


def open_image(path: Path) -> Image.Image:
    """An image as 8-bit RGB, decoded.

    Raises DataError when the file is missing, damaged, truncated, or of a mode other than 8-bit
    grey, palette or RGB (an alpha channel is dropped).
    """
    image = _decode(path)
    if image.mode not in ("RGB", "L", "P", "RGBA"):
        raise DataError(f"{path}: image of mode {image.mode}, expected 8-bit grey, palette or RGB")
    return image.convert("RGB")


def open_label(path: Path, lookup: np.ndarray) -> Image.Image:
    """A mask as class numbers, mode L, 255 = ignored.

    lookup: int16 (256,), from `label_lookup`. Raises DataError when the file is damaged, not an
    8-bit index mask, or holds a value that the experiment maps to no class.
    """
    mask = _decode(path)
    if mask.mode not in ("L", "P"):
        raise DataError(f"{path}: mask of mode {mask.mode}, expected 8-bit indexed or grey")
    values = np.asarray(mask)
    classes = lookup[values]
    if (classes < 0).any():
        unknown = sorted(set(np.unique(values[classes < 0]).tolist()))
        raise DataError(
            f"{path}: mask values {unknown} are neither under `labels` nor under `ignore`"
        )
    return Image.fromarray(classes.astype(np.uint8))


def label_lookup(dataset: DatasetStage) -> np.ndarray:
    """int16 (256,): class number of each mask value, 255 where ignored, -1 where unknown."""
    numbers = {name: number for number, name in enumerate(dataset.classes)}
    lookup = np.full(256, -1, np.int16)
    lookup[list(dataset.ignore)] = IGNORED
    for value, name in dataset.labels.items():
        lookup[value] = numbers[name]
    return lookup


def palette(colours: Sequence[str]) -> list[int]:
    """768 numbers for an indexed PNG: '#rrggbb' per class; 255, ignored, is white."""
    colour_table = [0] * 768
    for number, colour in enumerate(colours):
        colour_table[3 * number : 3 * number + 3] = bytes.fromhex(colour[1:])
    colour_table[3 * IGNORED :] = [255, 255, 255]
    return colour_table


def indexed_png(classes: np.ndarray, colour_table: Sequence[int]) -> bytes:
    """A uint8 (H, W) array of class numbers as the bytes of an indexed PNG."""
    image = Image.frombytes("P", classes.shape[::-1], np.ascontiguousarray(classes).tobytes())
    image.putpalette(colour_table)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=False, compress_level=6)
    return buffer.getvalue()


def write_indexed_png(path: Path, classes: np.ndarray, colours: Mapping[str, str]) -> None:
    """Write uint8 (H, W) class numbers as a PNG in the data set's colours."""
    write_bytes(path, indexed_png(classes, palette(list(colours.values()))))


def _decode(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be decoded ({error}); replace or remove it") from error
    return image
