"""Decodes images of any usual kind: 8 or 16 bits, grey, colour or bands, any orientation."""

import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..runtime.errors import Changed, DataError
from ..runtime.escape import shown
from ..runtime.files import open_regular
from ..runtime.reading import read_bytes
from ..settings.base import MOST_BANDS, Bands
from .pages import TIFF_SUFFIXES, Plane, numbered, sha256_of, split, stack_of

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

_File = io.BufferedReader | Plane

Window = tuple[int, int]
"""The two values of a 16-bit image that become black (0) and white (255)."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES_PER_PIXEL, _ORIENTATION = 258, 262, 277, 274
# TIFF's numbers of associated and unassociated alpha.
_ALPHA = {1, 2}
# BMP's numbers of its two compressions, which Pillow decodes byte by byte in Python.
_RUN_LENGTHS = (1, 2)
# TIFF's numbers of none, LZW, Deflate (two), PackBits, LZMA and Zstandard.
_COMPRESSIONS = (1, 5, 8, 32946, 32773, 34925, 50000)
_SMALLER = (
    "cut it and its mask into smaller images, or raise MOST_PIXELS in "
    "scripts/dst_cbc/data/images.py if your memory holds several such images"
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
    16-bit image, uint16 (H, W) grey or (H, W, 3) RGB; None for 8 bits. unused: a clause about the
    channels of the file that are in neither; "" if there are none. turned: whether the pixels have
    another order than in the file.
    """

    image: Image.Image | None
    deep: np.ndarray | None
    unused: str
    turned: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        if self.deep is not None:
            return self.deep.shape[1::-1]
        assert self.image is not None
        return self.image.size

    @property
    def notes(self) -> list[str]:
        """Clauses about what a person must know of the image."""
        turned = "image is turned as its EXIF orientation says; its mask must fit the turned image"
        return [*([self.unused] if self.unused else []), *([turned] if self.turned else [])]


def size_problem(mask: Path, size: tuple[int, int], image: Decoded) -> str:
    """Says that a mask of this (width, height) is not of the size of its image; "" if it is."""
    if size == image.size:
        return ""
    explained = image.turned and size == image.size[::-1]
    return f"{mask}: size {size}, but its image has {image.size}" + (
        ", turned as its EXIF orientation says; turn its mask, too" if explained else ""
    )


def decode(path: Path, sha256: str | None = None, bands: Bands | None = None) -> Decoded:
    """Decode an image: 8-bit or 16-bit; grey, palette or RGB; with or without alpha.

    path: a file, or a page of a stack (`pages.split`). sha256: of the file at the data check,
    compared with what is decoded. bands: the channels, numbers from 1 or names, that become grey or
    RGB; None: the first, or the first three. Raises Changed if the file has another SHA-256 now, or
    is missing. Raises DataError when the file is missing, damaged or truncated, is none of FORMATS,
    has more than MOST_PIXELS, is a stack of several images, has more than four channels and `bands`
    is None, lacks a channel of `bands`, or is of another kind (CMYK, floating point, 32-bit).
    """
    return _decode_checked(path, sha256, bands)


def decode_mask(path: Path, sha256: str | None = None) -> Decoded:
    """Decode a mask: like `decode`, and whole numbers of any other type become 8 or 16 bits.

    Raises what `decode` raises, and DataError for numbers below 0, above 65535 or with a fraction.
    """
    return _decode_checked(path, sha256, mask=True)


@dataclass(frozen=True)
class _Wanted:
    """What becomes of the channels. mask: whether 32 bits, 64 bits and floating point are read.

    bands: numbers from 1. names: of the channels of the file, if it names them.
    """

    bands: tuple[int, ...] | None = None
    mask: bool = False
    names: tuple[str, ...] = ()


def _number(path: Path, band: int | str, names: Sequence[str]) -> int:
    """The number of a channel that `bands` may name."""
    if isinstance(band, int):
        return band
    if names.count(band) == 1:
        return names.index(band) + 1
    if band in names:
        found = f"{names.count(band)} channels of the file have this name; write their numbers"
    elif any(names):
        found = f"the channels of the file are {', '.join(map(shown, names))}"
    else:
        found = "the file does not name its channels, as an OME-TIFF does; write their numbers"
    raise DataError(f"{path}: `bands` names channel {shown(band)}, but {found}")


def _decode_checked(
    path: Path, sha256: str | None, bands: Bands | None = None, mask: bool = False
) -> Decoded:
    file, _ = split(path)
    with _explained(path):
        if sha256 is not None and not file.exists():
            raise Changed(f"{path}: no such file, but the data check has read it. {GO_ON}")
        with _planes(path, mask) as (planes, names):
            try:
                numbers = tuple(_number(path, band, names) for band in bands or ())
                wanted = _Wanted(numbers or None, mask, names)
                if len(planes) > 1:
                    return _decode_planes(path, planes, wanted)
                return _decode(path, planes[0], wanted)
            finally:
                # After decoding, so that a change in the meantime shows, too.
                if sha256 is not None:
                    _require_same(path, sha256)


@contextmanager
def _planes(path: Path, mask: bool) -> Iterator[tuple[list[_File], tuple[str, ...]]]:
    """Open an image; yields a file for each of its channels that is a page, and their names."""
    file, page = split(path)
    stack = stack_of(file)
    pages = stack.pages(mask)
    if page is None and len(pages) > 1:
        raise DataError(
            f"{path}: several pages, {len(pages)}; expected one image, or one with its reduced "
            "copies and masks. Only `format: pairs`, `folder` and `annotations` and "
            "scripts/infer.py read stacks; for others, write each page to a file"
        )
    if page is not None and not 1 <= page <= len(pages):
        raise DataError(
            f"{path}: no such page; the file has {numbered(1)} to {numbered(len(pages))}"
        )
    with open_regular(file) as opened:
        yield [Plane(opened, one) if one else opened for one in pages[(page or 1) - 1]], stack.names


def _require_same(path: Path, sha256: str) -> None:
    found = sha256_of(path)
    if found != sha256:
        raise Changed(
            f"{path}: has changed since the data check: its SHA-256 starts with {found[:8]}, "
            f"expected {sha256[:8]}. {GO_ON}"
        )


def size_of(path: Path, mask: bool = False) -> tuple[int, int]:
    """Return (width, height) as `decode` does, from the header. Raises DataError as `decode`.

    mask: whether the file is a mask, as for `decode_mask`.
    """
    with _explained(path), _planes(path, mask) as (planes, _):
        file = planes[0]
        try:
            with Image.open(cast(Any, file), formats=FORMATS) as image:
                # Of a TIFF, Pillow says the size after the turn. In a PNG without an orientation in
                # its header, it would decode all pixels to look for one.
                if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
                    return image.size
                width, height = image.size
                return (height, width) if _quarters(_orientation(image)) % 2 else (width, height)
        except UnidentifiedImageError:
            if not _is_tiff(path):
                raise
        with _tiff_page(path, file) as page:
            height, width = _shape(page)[:2]
            return (height, width) if _quarters(_page_orientation(page)) % 2 else (width, height)


def _is_tiff(path: Path) -> bool:
    return split(path)[0].suffix.lower() in TIFF_SUFFIXES


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


def open_image(
    path: Path,
    window: Window | None = None,
    sha256: str | None = None,
    bands: Bands | None = None,
) -> Image.Image:
    """Read an image as 8-bit RGB; alpha is dropped.

    window: the values of a 16-bit image that become 0 and 255. sha256, bands: as for `decode`.
    Raises what `decode` raises, and DataError for a 16-bit image without a window.
    """
    decoded = decode(path, sha256, bands)
    if decoded.image is not None:
        # convert("RGB") would copy an image that is RGB already.
        return decoded.image if decoded.image.mode == "RGB" else decoded.image.convert("RGB")
    if window is None:
        raise DataError(
            f"{path}: a 16-bit image, but no training image has 16 bits, so black and white were "
            "not measured; give the values that become black and white: --window BLACK WHITE for "
            "scripts/infer.py, `window: [BLACK, WHITE]` in an experiment file"
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


def _decode(path: Path, file: _File, wanted: _Wanted) -> Decoded:
    try:
        with Image.open(cast(Any, file), formats=FORMATS) as image:
            # Phones may store a second picture in a JPEG (MPO); the first one is the photograph.
            if getattr(image, "is_animated", False) and image.format not in ("MPO", "TIFF"):
                raise DataError(
                    f"{path}: several frames; expected one image: write only one of them"
                )
            if image.format == "BMP" and image.info.get("compression") in _RUN_LENGTHS:
                raise DataError(
                    f"{path}: a compressed BMP; write it without compression, or as PNG"
                )
            channels = _channels(image)
            _require_bands(path, channels, wanted)
            if _is_for_others(image, channels, wanted):
                return _of_array(path, *_decode_deep(path, file, image, wanted), wanted)
            # Before Pillow turns the image, which removes the entry.
            turned = _orientation(image) in _ORIENTATIONS
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
    except UnidentifiedImageError:
        if not _is_tiff(path):
            raise
        return _of_array(path, *_read_tiff(path, file, wanted), wanted)
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        found = _of_array(path, np.asarray(image).astype(np.uint16), False, 1, wanted)
        return replace(found, turned=turned)
    if image.mode not in ("1", "L", "P", "RGB", "LA", "PA", "RGBA"):
        raise DataError(
            f"{path}: image of mode {image.mode}, expected 8-bit or 16-bit grey, palette or RGB"
            + (_TO_16_BITS if image.mode in ("F", "I") else "")
        )
    if wanted.bands:
        kind = {"1": "L", "P": "RGB", "PA": "RGBA"}.get(image.mode, image.mode)
        found = _of_array(path, np.asarray(image.convert(kind)), False, 1, wanted)
        return replace(found, turned=turned)
    alpha = image.mode.endswith("A") or "transparency" in image.info
    unused = _ALPHA_UNUSED if alpha else _unused(channels, wanted, False)
    return Decoded(image, None, unused, turned)


def _is_for_others(image: Any, channels: int, wanted: _Wanted) -> bool:
    """Whether Pillow would lose a part of the image that is wanted."""
    return (
        _is_deep_colour(image)
        # It drops the channels of a TIFF that its modes do not have.
        or (wanted.bands is not None and channels > len(image.getbands()))
        # It swaps the bytes of compressed 32-bit numbers.
        or (wanted.mask and image.format == "TIFF" and image.mode in ("I", "F"))
        # It turns white to black in fewer bits only.
        or (image.mode == "I;16" and image.format == "TIFF" and _is_white_first(image))
    )


def _is_white_first(image: Any) -> bool:
    """Whether 0 is white in a TIFF ("MinIsWhite")."""
    return image.tag_v2.get(_PHOTOMETRIC) == 0


def _channels(image: Any) -> int:
    """The number of channels of an image, as its header says; 3 for a palette."""
    if image.format == "TIFF" and image.mode != "P":
        return image.tag_v2.get(_SAMPLES_PER_PIXEL, 1)
    return 3 if image.mode in ("P", "PA") else len(image.getbands())


_IMAGES = (
    "; if the pages are images instead, write them so: "
    "tifffile.imwrite(NEW, tifffile.imread(OLD), photometric='minisblack')"
)


def _require_bands(path: Path, channels: int, wanted: _Wanted, more: str = "") -> None:
    """Raise DataError for too many channels. more: end of the message that a choice is missing."""
    bands = wanted.bands
    if channels > 4 and wanted.mask:
        raise DataError(f"{path}: {channels} channels; expected a mask of one channel, or of RGB")
    if channels > MOST_BANDS:
        raise DataError(
            f"{path}: {channels} channels, more than {MOST_BANDS}, the most that are read; write "
            "the channels that you need to a file of their own"
        )
    if channels > 4 and not bands:
        names = f" ({', '.join(map(shown, wanted.names))})" if wanted.names else ""
        raise DataError(
            f"{path}: {channels} channels{names}, expected at most 4, or a choice of one (grey) or "
            "three (red, green, blue) of them: `bands: [4, 3, 2]` in an experiment file, or "
            f"--bands 4 3 2 for scripts/new_experiment.py and scripts/infer.py{more}"
        )
    if bands and max(bands) > channels:
        raise DataError(
            f"{path}: {channels} channels, but `bands` names channel {max(bands)}; name channels "
            "that every image has, or remove this image"
        )


_ALPHA_UNUSED = "alpha channel of the image is not used"


def _unused(channels: int, wanted: _Wanted, alpha: bool) -> str:
    """A clause about the channels of an image that are not used; "" if all are.

    alpha: whether the last channel is alpha.
    """
    if wanted.bands:
        rest = channels - len(set(wanted.bands))
        return f"{rest} of {channels} channels of the image are not used (`bands`)" if rest else ""
    if channels in (1, 3):
        return ""
    if alpha:
        return _ALPHA_UNUSED
    names = wanted.names if len(wanted.names) == channels else ()
    name = f" ({names[-1]})" if names else ""
    others = "[2]" if channels == 2 else "[4, 3, 2]"
    return f"channel {channels}{name} of the image is not used (to use it: `bands: {others}`)"


def _is_deep_colour(image: Any) -> bool:
    """Whether Pillow would reduce 16 bits to 8, since it has no mode for 16-bit colour."""
    if image.format == "TIFF":
        return image.mode in ("RGB", "RGBA") and max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) > 8
    return image.format == "PNG" and any(";16" in str(tile.args) for tile in image.tile[:1]) and (
        image.mode != "I;16"
    )  # fmt: skip


def _decode_deep(
    path: Path, file: _File, image: Image.Image, wanted: _Wanted
) -> tuple[np.ndarray, bool, Any]:
    """All channels of an image before any turn, whether the last one is alpha, the orientation."""
    if image.format == "TIFF":
        return _read_tiff(path, file, wanted)
    import imagecodecs

    pixels = imagecodecs.png_decode(read_bytes(path))
    return pixels, pixels.ndim == 3 and pixels.shape[2] in (2, 4), _orientation(image)


def _decode_planes(path: Path, planes: Sequence[_File], wanted: _Wanted) -> Decoded:
    """`_decode` of an image whose channels are pages."""
    _require_bands(path, len(planes), wanted, _IMAGES)
    found: list[np.ndarray] = []
    orientation = None
    for plane in planes:
        pixels, _, orientation = _read_tiff(path, plane, replace(wanted, bands=None), len(planes))
        found.append(pixels)
    if len({(one.shape, one.dtype) for one in found}) > 1 or found[0].ndim > 2:
        raise DataError(
            f"{path}: pages of different size or type, but the file says that they are channels of "
            f"one image{_IMAGES}"
        )
    decoded = _of_array(path, np.stack(found, -1), False, orientation, wanted)
    if wanted.bands or len(planes) != 3:
        return decoded
    names = f" ({', '.join(wanted.names)})" if wanted.names else ""
    return replace(
        decoded, unused=f"three pages are red, green and blue of one image, as the file says{names}"
    )


def _read_tiff(
    path: Path, file: _File, wanted: _Wanted, pages: int = 1
) -> tuple[np.ndarray, bool, Any]:
    """Read a page of a TIFF that Pillow cannot read, or only in part; all of its channels.

    pages: that the image has. Returns the same as `_decode_deep`.
    """
    with _tiff_page(path, file) as page:
        shape = _shape(page)
        _require_usable(path, page.dtype, shape, wanted)
        tile = page.tilewidth * page.tilelength * max(1, page.tiledepth)
        if max(math.prod(shape[:2]), tile) > MOST_PIXELS:
            raise DataError(
                f"{path}: {shape[0]} x {shape[1]} pixels in tiles of {tile}, more than "
                f"{MOST_PIXELS} pixels, the most that are read; {_SMALLER}"
            )
        channels = pages * page.samplesperpixel
        bytes_ = max(math.prod(shape[:2]), tile) * channels * page.dtype.itemsize
        if bytes_ > 8 * MOST_PIXELS:
            raise DataError(
                f"{path}: {bytes_} bytes in {channels} channels, more than "
                f"{8 * MOST_PIXELS}, the most that are read; cut it into smaller images, or write "
                "fewer channels"
            )
        if page.compression not in _COMPRESSIONS:
            raise DataError(
                f"{path}: TIFF compression {page.compression}, expected none, LZW, Deflate, "
                "PackBits, LZMA or Zstandard; write it again: "
                "tifffile.imwrite(NEW, tifffile.imread(OLD))"
            )
        pixels = np.moveaxis(page.asarray(), 0, -1) if page.axes == "SYX" else page.asarray()
        if page.photometric == 0 and page.dtype in (np.uint8, np.uint16):
            pixels = (1 << page.bitspersample) - 1 - pixels
        return pixels, bool(_ALPHA & set(page.extrasamples[-1:])), _page_orientation(page)


def _page_orientation(page: Any) -> Any:
    tag = page.tags.get(_ORIENTATION)
    return tag.value if tag else None


@contextmanager
def _tiff_page(path: Path, file: _File) -> Iterator[Any]:
    """Open a TIFF by tifffile; yields its first page, of which no pixels are read."""
    import tifffile

    # What it logs, it also raises.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    file.seek(0)
    with tifffile.TiffFile(cast(Any, file), name=str(path)) as tiff:
        yield tiff.pages[0]


def _shape(page: Any) -> tuple[int, ...]:
    """(height, width) of a page of tifffile, or (height, width, channels)."""
    # Some files store the axis of the colour planes first.
    return page.shape[1:] + page.shape[:1] if page.axes == "SYX" else page.shape


def _orientation(image: Image.Image) -> Any:
    return image.getexif().get(ExifTags.Base.Orientation)


def _quarters(orientation: Any) -> int:
    return _ORIENTATIONS.get(orientation, (0, 0))[1]


def _turned(pixels: np.ndarray, orientation: Any) -> np.ndarray:
    """Mirror and turn pixels as an EXIF orientation says."""
    mirrored, quarters = _ORIENTATIONS.get(orientation, (0, 0))
    return np.rot90(np.fliplr(pixels) if mirrored else pixels, quarters)


def _require_usable(
    path: Path, dtype: np.dtype | None, shape: tuple[int, ...], wanted: _Wanted
) -> None:
    is_number = wanted.mask and dtype is not None and dtype.kind in "iuf"
    if not (is_number or dtype in (np.uint8, np.uint16)) or len(shape) not in (2, 3):
        raise DataError(
            f"{path}: {dtype} pixels of shape {shape}, expected 8-bit or 16-bit grey or RGB"
            f"{'' if wanted.mask else _TO_16_BITS}"
        )
    _require_bands(path, shape[2] if len(shape) == 3 else 1, wanted)


def _of_array(
    path: Path, pixels: np.ndarray, alpha: bool, orientation: Any, wanted: _Wanted
) -> Decoded:
    """Turn an image and choose its channels. alpha: whether its last channel is alpha."""
    _require_usable(path, pixels.dtype, pixels.shape, wanted)
    bands = wanted.bands
    pixels = _turned(pixels, orientation)
    channels = pixels.reshape(*pixels.shape[:2], -1)
    count = channels.shape[2]
    if bands:
        chosen = channels[..., [band - 1 for band in bands]]
    else:
        chosen = channels[..., : 3 if count > 2 else 1]
    chosen = np.ascontiguousarray(chosen if chosen.shape[2] == 3 else chosen[..., 0])
    if wanted.mask:
        chosen = _whole_numbers(path, chosen)
    unused = _unused(count, wanted, alpha)
    if chosen.dtype == np.uint8:
        return Decoded(Image.fromarray(chosen), None, unused, orientation in _ORIENTATIONS)
    return Decoded(None, chosen, unused, orientation in _ORIENTATIONS)


def _whole_numbers(path: Path, pixels: np.ndarray) -> np.ndarray:
    """A mask's numbers as uint8 or uint16."""
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    low, high = pixels.min().item(), pixels.max().item()
    # In this form, it also refuses NaN.
    if not (low >= 0 and high <= 65535):
        raise DataError(
            f"{path}: a mask with values from {low} to {high}, expected whole numbers from 0 to "
            "65535; write pixels without a class as 255"
        )
    whole = pixels.astype(np.uint8 if high <= 255 else np.uint16)
    if (whole != pixels).any():
        found = pixels[whole != pixels][0]
        raise DataError(
            f"{path}: a mask with the value {found}, expected whole numbers; write the number of "
            "a class for each pixel"
        )
    return whole
