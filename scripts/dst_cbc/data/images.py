"""Decodes images of any usual kind: 8 or 16 bits, grey or colour, any EXIF orientation."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..runtime.files import DataError

# In pixels. Pillow warns above this size, and fails above twice this size.
Image.MAX_IMAGE_PIXELS = 1 << 28

Window = tuple[int, int]
"""The two values of a 16-bit image that become black (0) and white (255)."""

_BITS_PER_SAMPLE = 258
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


def decode(path: Path) -> Decoded:
    """Decode an image: 8-bit or 16-bit; grey, palette or RGB; with or without alpha.

    Raises DataError when the file is missing, damaged or truncated, has several pages, or is of
    another kind (CMYK, floating point, 32-bit).
    """
    try:
        return _decode(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be decoded ({error}); replace or remove it") from error


def open_image(path: Path, window: Window | None = None) -> Image.Image:
    """Read an image as 8-bit RGB; alpha is dropped.

    window: the values of a 16-bit image that become 0 and 255. Raises DataError as `decode` does,
    and for a 16-bit image without a window.
    """
    decoded = decode(path)
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


def _decode(path: Path) -> Decoded:
    try:
        with Image.open(path) as image:
            # Phones may store a second picture in a JPEG (MPO); the first one is the photograph.
            if (pages := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":
                raise DataError(f"{path}: {pages} pages or frames; {_ONE_PAGE}")
            if _is_deep_colour(image):
                return _of_array(path, _decode_deep(path, image))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
    except UnidentifiedImageError:
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise
        return _of_array(path, _read_tiff(path))
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


def _decode_deep(path: Path, image: Image.Image) -> np.ndarray:
    if image.format == "TIFF":
        return _turned(_read_tiff(path), image)
    import imagecodecs

    try:
        return _turned(imagecodecs.png_decode(path.read_bytes()), image)
    except imagecodecs.PngError as error:
        raise ValueError(error) from error


def _read_tiff(path: Path) -> np.ndarray:
    """Read a TIFF of one page that Pillow cannot read, or only at 8 bits."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            if len(file.pages) != 1:
                raise DataError(f"{path}: {len(file.pages)} pages; {_ONE_PAGE}")
            page = file.pages[0]
            # Some files store the axis of the colour planes first.
            return np.moveaxis(page.asarray(), 0, -1) if page.axes == "SYX" else page.asarray()
    except (tifffile.TiffFileError, RuntimeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(error) from error


def _turned(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Mirror and turn pixels as the EXIF orientation of `image` says."""
    orientation: Any = image.getexif().get(ExifTags.Base.Orientation)
    mirrored, quarters = _ORIENTATIONS.get(orientation, (0, 0))
    return np.rot90(np.fliplr(pixels) if mirrored else pixels, quarters)


def _of_array(path: Path, pixels: np.ndarray) -> Decoded:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim > 3 or channels not in (1, 2, 3, 4):
        raise DataError(
            f"{path}: {pixels.dtype} pixels of shape {pixels.shape}, expected 8-bit or 16-bit grey "
            f"or RGB{_TO_16_BITS}"
        )
    colour = pixels[..., :3] if channels > 2 else pixels.reshape(*pixels.shape[:2], -1)[..., 0]
    alpha = channels in (2, 4)
    if pixels.dtype == np.uint8:
        return Decoded(Image.fromarray(np.ascontiguousarray(colour)), None, alpha)
    return Decoded(None, np.ascontiguousarray(colour), alpha)
