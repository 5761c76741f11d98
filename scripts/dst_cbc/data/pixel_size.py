"""The size of a pixel in the thing that an image shows, where the file of the image says it."""

import logging
import re
from functools import lru_cache
from pathlib import Path

from defusedxml.ElementTree import fromstring
from PIL import Image

from ..runtime.files import open_regular
from .pages import TIFF_SUFFIXES, remembered, split

PixelSize = tuple[float, float]
"""Width and height of a pixel in micrometres."""

MOST_OF_A_PROGRAM = 360
"""Pixels per inch up to which a resolution says nothing of the thing that the image shows.

Cameras and programs write 72, 96, 180, 300 or 350 whatever an image shows; microscopes and fine
scans have more.
"""

_INCH, _CENTIMETRE = 25_400.0, 10_000.0
# In lower case, in which the sign of micro becomes the Greek letter. ImageJ may write it as \u00B5.
_MICROMETRES = {
    "nm": 1e-3, "mm": 1e3, "cm": _CENTIMETRE, "m": 1e6, "inch": _INCH,
    **dict.fromkeys(("μm", "\\u00b5m", "um", "micron", "microns", "micrometer"), 1.0),
}  # fmt: skip
# TIFF's numbers of units of its resolution.
_UNITS = {2: _INCH, 3: _CENTIMETRE}


def pixel_size(path: Path) -> PixelSize | None:
    """Return the size of a pixel as the file of an image says it; None if it does not.

    path: a file, or a page of a stack. It is read from PhysicalSizeX and PhysicalSizeY of the first
    image of an OME-TIFF, the resolution and `unit` of ImageJ, the resolution per inch or centimetre
    of any other TIFF, and that per metre of a PNG. A resolution per inch, and each without a
    `unit`, counts only above MOST_OF_A_PROGRAM. Width and height are those in the file, before any
    turn by an EXIF orientation.
    """
    file, _ = split(path)
    is_tiff = file.suffix.lower() in TIFF_SUFFIXES
    try:
        found = remembered(_of_tiff, file) if is_tiff else _of_png(file)
    # What a file says beside its pixels is free text and any numbers, over which libraries raise
    # errors of any class. Whoever decodes the image says what is wrong with it.
    except Exception:
        return None
    return found if found and all(0 < side < 1e9 for side in found) else None


@lru_cache(maxsize=1024)
def _of_tiff(path: Path, *_: int) -> PixelSize | None:
    import tifffile

    # What it cannot read, it logs.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    with open_regular(path) as file, tifffile.TiffFile(file, name=path.name) as tiff:
        page = tiff.pages.first
        said, resolution, unit = page.description, page.resolution, page.resolutionunit
    if "<OME" in said:
        return _of_ome(said)
    imagej = re.search(r"\AImageJ=.*^unit=([^\n]*)$", said, re.MULTILINE | re.DOTALL)
    if imagej:
        size = _scaled(_MICROMETRES.get(imagej[1].casefold()), resolution)
        return _measured(size) if imagej[1] == "inch" else size
    return _measured(_scaled(_UNITS.get(unit), resolution))


def _of_ome(said: str) -> PixelSize | None:
    pixels = fromstring(said).find("{*}Image/{*}Pixels")
    if pixels is None:
        return None
    sides = [
        float(pixels.get(f"PhysicalSize{axis}", 0))
        * _MICROMETRES.get(pixels.get(f"PhysicalSize{axis}Unit", "μm").casefold(), 0)
        for axis in "XY"
    ]
    return sides[0], sides[1]


def _of_png(path: Path) -> PixelSize | None:
    # Formats of photographs are left out: their resolution is that of a print.
    with Image.open(path, formats=["PNG"]) as image:
        return _measured(_scaled(_INCH, image.info.get("dpi")))


def _scaled(unit: float | None, resolution: tuple[float, float] | None) -> PixelSize | None:
    """unit: in micrometres; resolution: pixels per unit along x and y."""
    return (unit / resolution[0], unit / resolution[1]) if unit and resolution else None


def _measured(size: PixelSize | None) -> PixelSize | None:
    """None for a size that a program may write whatever an image shows."""
    return size if size and _INCH / max(size) > MOST_OF_A_PROGRAM else None
