"""Decodes images of any usual kind: 8 or 16 bits, grey or colour, any EXIF orientation."""

import hashlib
import io
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..runtime.errors import Changed, DataError
from ..runtime.files import open_regular
from ..runtime.reading import read_bytes

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
"""The formats, in Pillow's names, that are read. Pillow knows more, and runs a program for one."""

MOST_PIXELS = 1 << 29
"""Images with more pixels are refused by their header, before memory is allocated."""

DIED = (
    "the process that decoded it ended: the file is damaged, or there is too little memory; "
    "replace or remove it"
)
"""The message for an image whose decoder has ended its process."""

GO_ON = (
    "Run the same command again: it checks the data again, and uses what is there now. If this "
    "message comes back, the file has changed but has kept its size and its time. Then bring the "
    "old file back (drawn scenes: snakemake DATA/scenes.json --forcerun DATA/scenes.json), or "
    "accept the new one: delete .fingerprints.json beside dataset.csv, and run the command again"
)
"""The end of the messages about files that have changed since the data check."""

# Pillow warns above this size, and fails above twice this size.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2

# What harms the pixels, Pillow raises; it warns of metadata and colours that are not used here.
warnings.filterwarnings("ignore", module=r"PIL\.")

Window = tuple[int, int]
"""The two values of a 16-bit image that become black (0) and white (255)."""

_BITS_PER_SAMPLE = 258
# BMP's numbers of its two compressions, which Pillow decodes byte by byte in Python.
_RUN_LENGTHS = (1, 2)
# TIFF's numbers of none, LZW, Deflate (two), PackBits, LZMA and Zstandard.
_COMPRESSIONS = (1, 5, 8, 32946, 32773, 34925, 50000)
_SMALLER = (
    "cut it and its mask into smaller images, or raise MOST_PIXELS in "
    "scripts/dst_cbc/data/images.py if your memory holds several such images"
)
_ONE_PAGE = (
    "expected one image: write each page to its own file, or only the first one: "
    "tifffile.imwrite(NEW, tifffile.imread(OLD)[0])"
)
_TO_16_BITS = (
    "; convert floating point or 32-bit pixels x to 16 bits, with the same low and high for all "
    "images: "
    "tifffile.imwrite(NEW, numpy.uint16(65535 * ((x - low) / (high - low)).clip(0, 1)))"
)
# EXIF orientation: (1 to mirror left and right first, counter-clockwise quarter turns after it).
_ORIENTATIONS = {2: (1, 0), 3: (0, 2), 4: (1, 2), 5: (1, 1), 6: (0, 3), 7: (1, 3), 8: (0, 1)}


@dataclass(frozen=True)
class Decoded:
    """The pixels of an image file, turned as its EXIF orientation says.

    image: an 8-bit image, or a mask's palette indexes; None for 16 bits. deep: the pixels of a
    16-bit image, uint16 (H, W) grey or (H, W, 3) RGB; None for 8 bits. alpha: whether the file has
    an alpha channel, which is not used.
    """

    image: Image.Image | None
    deep: np.ndarray | None
    alpha: bool

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        if self.deep is not None:
            return self.deep.shape[1::-1]
        assert self.image is not None
        return self.image.size


def decode(path: Path, sha256: str | None = None) -> Decoded:
    """Decode an image: 8-bit or 16-bit; grey, palette or RGB; with or without alpha.

    sha256: of the file at the data check, compared with what is decoded. Raises Changed if it has
    another now, or is missing. Raises DataError when the file is missing, damaged or truncated, is
    none of FORMATS, has more than MOST_PIXELS or several pages, or is of another kind (CMYK,
    floating point, 32-bit).
    """
    with _explained(path):
        if sha256 is not None and not path.exists():
            raise Changed(f"{path}: no such file, but the data check has read it. {GO_ON}")
        with open_regular(path) as file:
            try:
                return _decode(path, file)
            finally:
                # After decoding, so that a change in the meantime shows, too.
                if sha256 is not None:
                    _require_same(path, file, sha256)


def _require_same(path: Path, file: io.BufferedReader, sha256: str) -> None:
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise Changed(
            f"{path}: has changed since the data check: its SHA-256 starts with {found[:8]}, "
            f"expected {sha256[:8]}. {GO_ON}"
        )


def size_of(path: Path) -> tuple[int, int]:
    """Return (width, height) from the header, before any turn. Raises DataError as `decode`."""
    with _explained(path), open_regular(path) as file, Image.open(file, formats=FORMATS) as image:
        return image.size


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn every error of a decoder into a DataError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (DataError, Changed):
        raise
    except UnidentifiedImageError:
        raise DataError(
            f"{path}: cannot be decoded: damaged, or no {', '.join(FORMATS)}; replace or remove it"
        ) from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{path}: more than {MOST_PIXELS} pixels, the most that are read; {_SMALLER}"
        ) from None
    except MemoryError:
        raise DataError(f"{path}: too little memory to decode it; make it smaller") from None
    # On damaged files, decoders raise errors of any class: struct.error, IndexError, TypeError, …
    except Exception as error:
        raise DataError(
            f"{path}: cannot be decoded ({str(error) or type(error).__name__}); replace or remove "
            "it"
        ) from error


def open_image(path: Path, window: Window | None = None, sha256: str | None = None) -> Image.Image:
    """Read an image as 8-bit RGB; alpha is dropped.

    window: the values of a 16-bit image that become 0 and 255. sha256: as for `decode`. Raises what
    `decode` raises, and DataError for a 16-bit image without a window.
    """
    decoded = decode(path, sha256)
    if decoded.image is not None:
        # convert("RGB") would copy an image that is RGB already.
        return decoded.image if decoded.image.mode == "RGB" else decoded.image.convert("RGB")
    if window is None:
        raise DataError(
            f"{path}: a 16-bit image, but no training image has 16 bits, so black and white were "
            "not measured; set `window: [black, white]`"
        )
    return Image.fromarray(_window_table(*window)[decoded.deep]).convert("RGB")


@lru_cache(maxsize=2)
def _window_table(black: int, white: int) -> np.ndarray:
    shares = (np.arange(1 << 16) - black) / (white - black)
    return np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)


def measured_window(counts: np.ndarray) -> Window:
    """Return the values below which 0.1 % and 99.9 % of all pixels lie, at least 1 apart.

    counts: int64 (65536,), number of pixels with each value.
    """
    sums = np.cumsum(counts)
    black, white = np.searchsorted(sums, [0.001 * sums[-1], 0.999 * sums[-1]])
    return int(black), max(int(white), int(black) + 1)


def _decode(path: Path, file: io.BufferedReader) -> Decoded:
    try:
        with Image.open(file, formats=FORMATS) as image:
            # Phones may store a second picture in a JPEG (MPO); the first one is the photograph.
            if getattr(image, "is_animated", False) and image.format != "MPO":
                raise DataError(f"{path}: several pages or frames; {_ONE_PAGE}")
            if image.format == "BMP" and image.info.get("compression") in _RUN_LENGTHS:
                raise DataError(
                    f"{path}: a compressed BMP; write it without compression, or as PNG"
                )
            if _is_deep_colour(image):
                return _of_array(path, _decode_deep(path, file, image))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
    except UnidentifiedImageError:
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise
        return _of_array(path, _read_tiff(path, file))
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        return Decoded(None, np.asarray(image).astype(np.uint16), False)
    if image.mode not in ("1", "L", "P", "RGB", "LA", "PA", "RGBA"):
        raise DataError(
            f"{path}: image of mode {image.mode}, expected 8-bit or 16-bit grey, palette or RGB"
            + (_TO_16_BITS if image.mode in ("F", "I") else "")
        )
    alpha = image.mode.endswith("A") or "transparency" in image.info
    return Decoded(image, None, alpha)


def _is_deep_colour(image: Any) -> bool:
    """Whether Pillow would reduce 16 bits to 8, since it has no mode for 16-bit colour."""
    if image.format == "TIFF":
        return image.mode in ("RGB", "RGBA") and max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) > 8
    return image.format == "PNG" and any(";16" in str(tile.args) for tile in image.tile[:1]) and (
        image.mode != "I;16"
    )  # fmt: skip


def _decode_deep(path: Path, file: io.BufferedReader, image: Image.Image) -> np.ndarray:
    if image.format == "TIFF":
        return _turned(_read_tiff(path, file), image)
    import imagecodecs

    return _turned(imagecodecs.png_decode(read_bytes(path)), image)


def _read_tiff(path: Path, file: io.BufferedReader) -> np.ndarray:
    """Read a TIFF of one page that Pillow cannot read, or only at 8 bits."""
    import tifffile

    # What it logs, it also raises.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    file.seek(0)
    with tifffile.TiffFile(file, name=str(path)) as tiff:
        if tiff.pages.is_multipage:
            raise DataError(f"{path}: several pages or frames; {_ONE_PAGE}")
        page: Any = tiff.pages[0]
        # Some files store the axis of the colour planes first.
        shape = page.shape[1:] + page.shape[:1] if page.axes == "SYX" else page.shape
        _require_usable(path, page.dtype, shape)
        tile = page.tilewidth * page.tilelength * max(1, page.tiledepth)
        if max(math.prod(shape[:2]), tile) > MOST_PIXELS:
            raise DataError(
                f"{path}: {shape[0]} x {shape[1]} pixels in tiles of {tile}, more than "
                f"{MOST_PIXELS} pixels, the most that are read; {_SMALLER}"
            )
        if page.compression not in _COMPRESSIONS:
            raise DataError(
                f"{path}: TIFF compression {page.compression}, expected none, LZW, Deflate, "
                "PackBits, LZMA or Zstandard; write it again: "
                "tifffile.imwrite(NEW, tifffile.imread(OLD))"
            )
        return np.moveaxis(page.asarray(), 0, -1) if page.axes == "SYX" else page.asarray()


def _turned(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Mirror and turn pixels as the EXIF orientation of `image` says."""
    orientation: Any = image.getexif().get(ExifTags.Base.Orientation)
    mirrored, quarters = _ORIENTATIONS.get(orientation, (0, 0))
    return np.rot90(np.fliplr(pixels) if mirrored else pixels, quarters)


def _require_usable(path: Path, dtype: np.dtype | None, shape: tuple[int, ...]) -> None:
    grey_or_colour = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 2, 3, 4))
    if dtype not in (np.uint8, np.uint16) or not grey_or_colour:
        raise DataError(
            f"{path}: {dtype} pixels of shape {shape}, expected 8-bit or 16-bit grey or RGB"
            f"{_TO_16_BITS}"
        )


def _of_array(path: Path, pixels: np.ndarray) -> Decoded:
    _require_usable(path, pixels.dtype, pixels.shape)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    colour = pixels[..., :3] if channels > 2 else pixels.reshape(*pixels.shape[:2], -1)[..., 0]
    alpha = channels in (2, 4)
    if pixels.dtype == np.uint8:
        return Decoded(Image.fromarray(np.ascontiguousarray(colour)), None, alpha)
    return Decoded(None, np.ascontiguousarray(colour), alpha)
