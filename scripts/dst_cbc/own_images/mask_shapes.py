"""Measures where the values of a mask lie: in areas, or between other values at their edges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.ndimage import find_objects

from ..settings.data import IGNORED

BORDER = 6
"""A band of 255 at most so many pixels wide is a border."""
_ACROSS = 5
"""An area that smoothing has changed counts if it is narrower than this many pixels."""


@dataclass(frozen=True)
class Shapes:
    """Where the pixels of a mask, or of several masks, lie.

    flat: value: its pixels in blocks of 3 x 3 equal pixels. between: value: its other pixels that
    have both lower and higher values, or channels of colours, within 2 pixels. sharp, smooth: how
    often, along rows and columns, an area of such blocks touches the next one, or is parted from it
    by fewer than _ACROSS pixels in between. Values that differ by 1 do not count there. border: the
    pixels of 255 in bands of at most BORDER pixels that run along other values than 0. numbered:
    n if the values other than 0 are 1 to n, and each is one connected piece; else 0; of several
    masks, the largest.
    """

    flat: Mapping[int, int] = field(default_factory=dict)
    between: Mapping[int, int] = field(default_factory=dict)
    sharp: int = 0
    smooth: int = 0
    border: int = 0
    numbered: int = 0

    @staticmethod
    def total(shapes: Sequence[Shapes]) -> Shapes:
        """Return the sums over several masks."""
        return Shapes(
            _sum(one.flat for one in shapes),
            _sum(one.between for one in shapes),
            sum(one.sharp for one in shapes),
            sum(one.smooth for one in shapes),
            sum(one.border for one in shapes),
            max((one.numbered for one in shapes), default=0),
        )


def measured(values: np.ndarray, coloured: bool) -> Shapes:
    """Measure a mask: numbers, or 0xrrggbb where `coloured`, int (H, W)."""
    channels = _channels(values, coloured)
    low, high = _extremes(channels, 3)
    blocks = (low == high).all(2).astype(np.uint8)
    flat = cv2.dilate(blocks, np.ones((3, 3), np.uint8)).astype(bool)
    low, high = _extremes(channels, 5)
    between = ((low < channels) & (channels < high)).any(2) & ~flat
    rows = _changes(channels, flat, between)
    columns = _changes(channels.swapaxes(0, 1), flat.T, between.T)
    sharp, smooth = np.add(rows, columns).tolist()
    border = 0 if coloured else _border(values, flat & (values != 0) & (values != IGNORED))
    numbered = 0 if coloured else _numbered(values)
    return Shapes(_counts(values[flat]), _counts(values[between]), sharp, smooth, border, numbered)


def _channels(values: np.ndarray, coloured: bool) -> np.ndarray:
    """Return the channels of colours, uint8 (H, W, 3), or numbers, uint8 or float32 (H, W, 1)."""
    if coloured:
        return np.stack([values >> 16, values >> 8 & 255, values & 255], 2).astype(np.uint8)
    return (values if values.dtype == np.uint8 else values.astype(np.float32))[..., None]


def _extremes(channels: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest value in the square of `side` pixels around each pixel."""
    square = np.ones((side, side), np.uint8)
    low, high = cv2.erode(channels, square), cv2.dilate(channels, square)
    return low.reshape(channels.shape), high.reshape(channels.shape)


def _changes(channels: np.ndarray, flat: np.ndarray, between: np.ndarray) -> tuple[int, int]:
    """Count along rows how often two flat areas touch, and how often they are parted."""
    sharp = smooth = 0
    gap, blended = np.ones_like(flat), np.zeros_like(flat)
    for step in range(1, min(_ACROSS + 1, flat.shape[1])):
        first = slice(None, flat.shape[1] - step)
        ends = flat[:, first] & flat[:, step:] & gap[:, first]
        rows, starts = np.nonzero(ends & (channels[:, first] != channels[:, step:]).any(2))
        one, other = channels[rows, starts], channels[rows, starts + step]
        differ = np.abs(one.astype(np.float32) - other).max(1) >= 2
        if step == 1:
            sharp = int(np.count_nonzero(differ))
        else:
            smooth += int(np.count_nonzero(differ & blended[rows, starts]))
        gap[:, first] &= ~flat[:, step:]
        blended[:, first] |= between[:, step:]
    return sharp, smooth


def _border(values: np.ndarray, objects: np.ndarray) -> int:
    white = (values == IGNORED).astype(np.uint8)
    if not white.any() or not objects.any():
        return 0
    wide = cv2.morphologyEx(white, cv2.MORPH_OPEN, np.ones((BORDER + 1, BORDER + 1), np.uint8))
    near = cv2.dilate(objects.astype(np.uint8), np.ones((2 * BORDER + 1,) * 2, np.uint8))
    return int(np.count_nonzero((white > wide) & (near > 0)))


def _numbered(values: np.ndarray) -> int:
    numbers = np.unique(values[values != 0])
    # Some numbers are missing where objects were removed.
    if not numbers.size or numbers[-1] > 1.1 * numbers.size:
        return 0
    boxes = enumerate(find_objects(values.astype(np.int32)), 1)
    pieces = [
        cv2.connectedComponents((values[box] == number).astype(np.uint8))[0] - 1
        for number, box in boxes
        if box
    ]
    return len(numbers) if pieces.count(1) >= 0.9 * len(pieces) else 0


def _sum(counts: Iterable[Mapping[int, int]]) -> Counter[int]:
    total: Counter[int] = Counter()
    for one in counts:
        total.update(one)
    return total


def _counts(values: np.ndarray) -> dict[int, int]:
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))
