"""Turns class numbers into polygons whose corners a person can move in a program for labeling."""

from collections.abc import Mapping, Sequence

import numpy as np
from rasterio.features import rasterize, shapes, sieve
from rasterio.transform import Affine

from ..data.annotations.shapes import Ring, Shape, ring_area

LEAST_PIXELS = 10
"""Areas of fewer pixels get the class of their largest neighbour: as shapes they only disturb."""
GATE = 0.9
"""Length of the gates through which simplified lines pass, in pixels.

A gate lies across each edge between two pixels, on the line from the centre of one to that of the
other. A line that passes the same gates leaves every centre on its side, so the polygon covers the
same pixels; and it is nowhere a pixel away from their edges. Less than 1: rounding changes nothing.
"""


def outlines(classes: np.ndarray, labels: Mapping[int, str], holes: bool) -> list[Shape]:
    """Return the connected areas of class numbers, uint8 (H, W), as shapes; the largest first.

    labels: class number: label of the shapes. Other classes become no shape. holes: whether a
    polygon may have holes, as further rings. Otherwise it has one ring: it covers a hole in which
    other shapes leave no gap, and those are drawn over it; a cut leads to every other hole.
    """
    classes = sieve(classes, LEAST_PIXELS)
    covered = np.isin(classes, list(labels))
    found = []
    for geometry, number in shapes(classes, mask=covered, connectivity=4):
        rings = [np.array(ring[:-1], np.int64) for ring in geometry["coordinates"]]
        if not holes:
            rings = [_joined([rings[0], *(r for r in rings[1:] if not _is_full(r, covered))])]
        found.append(Shape(labels[int(number)], [[_simplified(ring) for ring in rings]]))
    return sorted(found, key=lambda shape: -ring_area(shape.polygons[0][0]))


def _is_full(hole: Ring, covered: np.ndarray) -> bool:
    """Whether every pixel in a hole is in `covered`, bool (H, W)."""
    (left, top), (right, bottom) = hole.min(0), hole.max(0)
    geometry = {"type": "Polygon", "coordinates": [[*hole.tolist(), hole[0].tolist()]]}
    inside = rasterize(
        [geometry], (bottom - top, right - left), transform=Affine.translation(left, top)
    )
    return bool(covered[top:bottom, left:right][inside == 1].all())


def _joined(rings: Sequence[Ring]) -> Ring:
    """Join holes to the ring around them, by cuts to the left, along edges of pixels."""
    joined = rings[0]
    # What lies to the left of a hole's leftmost corner is then part of the ring.
    for hole in sorted(rings[1:], key=lambda hole: tuple(min(hole.tolist()))):
        start = min(range(len(hole)), key=lambda i: tuple(hole[i]))
        x, y = hole[start]
        ahead = np.roll(joined, -1, 0)
        meets = (np.minimum(joined[:, 1], ahead[:, 1]) <= y) & (
            y <= np.maximum(joined[:, 1], ahead[:, 1])
        )
        meets &= (joined[:, 0] == ahead[:, 0]) & (joined[:, 0] <= x)
        edge = np.flatnonzero(meets)[joined[meets, 0].argmax()]
        end = [[joined[edge, 0], y]]
        around = [*np.roll(hole, -start, 0), hole[start]]
        joined = np.concatenate([joined[: edge + 1], end, around, end, joined[edge + 1 :]])
    return joined


def _simplified(ring: Ring) -> Ring:
    """Return a ring along edges of pixels with few corners, each in the middle of such an edge."""
    steps = np.roll(ring, -1, 0) - ring
    lengths = np.abs(steps).sum(1)
    # Edges of one pixel each, and how many of the same straight part come before.
    before = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    steps = np.repeat(np.sign(steps), lengths, 0)
    middles = np.repeat(ring, lengths, 0) + steps * (before[:, None] + 0.5)
    gates = np.concatenate([middles, GATE / 2 * steps[:, ::-1] * (1, -1)], 1)
    gates = np.concatenate([gates, gates[:1]]).tolist()
    kept = [0]
    while kept[-1] < len(middles):
        kept.append(_last_seen(gates, kept[-1]))
    return middles[kept[:-1]]


def _last_seen(gates: Sequence[Sequence[float]], start: int) -> int:
    """Return the last gate whose middle is seen from that of `start`, through all gates between.

    gates: of each, its middle (x, y), and its left end relative to it; the right end is opposite.
    """
    (x0, y0, *_), seen = gates[start], start + 1
    left = right = (0.0, 0.0)
    for number in range(start + 1, len(gates)):
        x, y, across, down = gates[number]
        x, y = x - x0, y - y0
        ends = (x + across, y + down), (x - across, y - down)
        if number == start + 1:
            left, right = ends
        if _turn(left, (x, y)) >= 0 and _turn((x, y), right) >= 0:
            seen = number
        if _turn(left, ends[0]) > 0:
            left = ends[0]
        if _turn(ends[1], right) > 0:
            right = ends[1]
        if _turn(left, right) <= 0:
            break
    return seen


def _turn(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Positive where the direction `b` lies to the right of `a`, as y points down."""
    return a[0] * b[1] - a[1] * b[0]
