"""Draws the mask of an image from its shapes."""

from collections.abc import Iterable, Mapping

import numpy as np

from ...settings.data import IGNORED
from .shapes import Polygon, Runs, Shape, ring_area


def draw(
    shapes: Iterable[Shape],
    size: tuple[int, int],
    numbers: Mapping[str, int],
    unannotated: int,
    relative: bool = False,
) -> np.ndarray:
    """Return the mask of an image, uint8 (H, W): the number of a class for each pixel.

    size: (width, height). numbers: of the class of each label. unannotated: the number of pixels
    outside of all shapes. relative: as in `Annotated`. A pixel belongs to a shape if its centre
    lies inside. Later shapes cover earlier ones: they are drawn by `order`, and within one order
    the largest first.
    """
    # Imported late: it takes 0.1 s, and masks are rarely drawn.
    from rasterio.features import rasterize

    width, height = size
    scale = np.array(size if relative else (1, 1), np.float64)
    mask = np.full((height, width), unannotated, np.uint8)
    for shape in sorted(shapes, key=lambda shape: (shape.order, -area(shape))):
        number = IGNORED if shape.ignored else numbers[shape.label]
        if shape.polygons:
            areas = [(_geometry(polygon, scale), number) for polygon in shape.polygons]
            rasterize(areas, out=mask)
        if shape.mask:
            _put(mask, shape.mask, number)
    return mask


def area(shape: Shape) -> float:
    """Return the area of a shape in its own units, holes and parts outside of the image included.

    Polygons of one shape that overlap each other count twice.
    """
    polygons = sum(
        ring_area(rings[0]) - sum(map(ring_area, rings[1:])) for rings in shape.polygons if rings
    )
    return polygons + (int(shape.mask.counts[1::2].sum()) if shape.mask else 0)


def _geometry(polygon: Polygon, scale: np.ndarray) -> dict:
    """Return a polygon as GeoJSON, whose rings end where they begin."""
    rings = [np.concatenate([ring, ring[:1]]) * scale for ring in polygon]
    return {"type": "Polygon", "coordinates": [ring.tolist() for ring in rings]}


def _put(mask: np.ndarray, runs: Runs, number: int) -> None:
    """Set the pixels of `runs` that lie inside of the mask."""
    height, width = mask.shape
    left, top = max(0, runs.left), max(0, runs.top)
    right, bottom = min(width, runs.left + runs.width), min(height, runs.top + runs.height)
    if left < right and top < bottom:
        inside = runs.pixels()[
            top - runs.top : bottom - runs.top, left - runs.left : right - runs.left
        ]
        mask[top:bottom, left:right][inside] = number
