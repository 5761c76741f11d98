"""Images and label masks: reading what people have, writing PNGs that any viewer opens."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from .files import DataError, write_bytes
from .settings import IGNORED, DatasetStage

# Pillow warns above this and fails above twice this; a training image never comes near.
Image.MAX_IMAGE_PIXELS = 1 << 28

Window = tuple[int, int]
"""Values of a 16-bit image that become black, 0, and white, 255."""

VOC_BORDER = "#e0e0c0"
"""Colour of the pixels without a class in VOC's masks."""

_BITS_PER_SAMPLE = 258
_ONE_PAGE = (
    "expected one image: write each page to a file of its own, or one of them: "
    "tifffile.imwrite(NEW, tifffile.imread(OLD)[0])"
)
_TO_16_BITS = (
    "; floating point or 32 bits: write x as 16 bits, with one low and high for all images: "
    "tifffile.imwrite(NEW, numpy.uint16(65535 * ((x - low) / (high - low)).clip(0, 1)))"
)
# EXIF orientation: mirrored left to right?, then quarter turns counter-clockwise.
_ORIENTATIONS = {2: (1, 0), 3: (0, 2), 4: (1, 2), 5: (1, 1), 6: (0, 3), 7: (1, 3), 8: (0, 1)}


@dataclass(frozen=True)
class Decoded:
    """An image as it is in its file, turned as its EXIF orientation says.

    image: 8 bits a channel, or a mask's indexes; None where deep. deep: uint16 (H, W) grey or
    (H, W, 3) RGB. alpha: whether the file has a channel of transparency, which nothing uses.
    """

    image: Image.Image | None
    deep: np.ndarray | None
    alpha: bool

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.image.size if self.deep is None else self.deep.shape[1::-1]


def decode(path: Path) -> Decoded:
    """Any image that we read: 8-bit or 16-bit, grey, palette or RGB, with or without alpha.

    Raises DataError when the file is missing, damaged, truncated, of several pages, or of another
    kind (CMYK, floating point, 32-bit).
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
    """An image as 8-bit RGB; alpha is dropped.

    window: of 16-bit images, the values that become 0 and 255. Raises DataError as `decode`, and
    for a 16-bit image when there is no window.
    """
    decoded = decode(path)
    if decoded.deep is None:
        # Converted to its own mode it would be copied.
        return decoded.image if decoded.image.mode == "RGB" else decoded.image.convert("RGB")
    if window is None:
        raise DataError(
            f"{path}: a 16-bit image, but there was none among the training images, which say "
            "what is black and what is white; set `window: [black, white]`"
        )
    return Image.fromarray(_window_table(*window)[decoded.deep]).convert("RGB")


@lru_cache(maxsize=2)
def _window_table(black: int, white: int) -> np.ndarray:
    shares = (np.arange(1 << 16) - black) / (white - black)
    return np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)


def measured_window(counts: np.ndarray) -> Window:
    """The values that 0.1 % of all pixels lie below and 0.1 % above, at least 1 apart.

    counts: int64 (65536,), how many pixels have each value.
    """
    sums = np.cumsum(counts)
    black, white = np.searchsorted(sums, [0.001 * sums[-1], 0.999 * sums[-1]])
    return int(black), max(int(white), int(black) + 1)


def open_label(path: Path, table: LabelTable) -> Image.Image:
    """A mask as class numbers, mode L, 255 = ignored.

    Raises DataError as `decode`, and when the mask holds a value that the experiment maps to no
    class, or colours where the experiment names numbers and the format has no such colours.
    """
    return read_label(path, table)[0]


def read_label(path: Path, table: LabelTable) -> tuple[Image.Image, bool]:
    """The same, and whether it was read by the colours of the format, not by its numbers."""
    mask = decode(path)
    if table.of_format and mask.deep is None and mask.image.mode in ("RGB", "RGBA"):
        classes = table.of_format.classes_of(colours_of(mask))
        # A few formats store numbers as grey RGB.
        if (classes >= 0).all():
            return Image.fromarray(classes.astype(np.uint8)), True
    values = _mask_values(path, mask, table)
    classes = table.classes_of(values)
    if (classes < 0).any():
        unknown = in_words(values[classes < 0], table.coloured)
        raise DataError(
            f"{path}: mask values {unknown} are neither under `labels` nor under `ignore`"
        )
    return Image.fromarray(classes.astype(np.uint8)), False


def in_words(values: np.ndarray, coloured: bool) -> str:
    found = np.unique(values).tolist()
    shown = [f"#{value:06x}" for value in found] if coloured else found
    return f"{shown[:20]}" + (f" and {len(shown) - 20} others" if len(shown) > 20 else "")


def colours_of(mask: Decoded) -> np.ndarray:
    """int (H, W): 0xrrggbb."""
    red, green, blue = np.asarray(mask.image.convert("RGB"), np.int32).transpose(2, 0, 1)
    return red << 16 | green << 8 | blue


def _mask_values(path: Path, mask: Decoded, table: LabelTable) -> np.ndarray:
    """int (H, W): the indexes of a mask; where `labels` names colours, 0xrrggbb."""
    if table.coloured:
        if mask.deep is not None:
            raise DataError(f"{path}: a 16-bit mask, but `labels` names colours")
        return colours_of(mask)
    values = numbers_of(mask)
    if values is None:
        raise DataError(
            f"{path}: a mask of colours, but `labels` names numbers"
            + _unknown_colours(mask, table)
            + "; get masks of numbers, or name each colour under `labels` or `ignore`: "
            "`labels: {'#rrggbb': class}`"
        )
    return values


def numbers_of(mask: Decoded) -> np.ndarray | None:
    """int (H, W): a mask's indexes or grey values, black and white as 0 and 255; None: colours."""
    values = mask.deep
    if values is None:
        # One bit a pixel is black and white, 0 and 255, as in every viewer.
        grey = mask.image.convert("L") if mask.image.mode == "1" else mask.image
        if grey.mode in ("LA", "RGBA"):
            grey = grey.convert(grey.mode[:-1])
        values = np.asarray(grey)
    if values.ndim == 3:
        return values[..., 0] if (values == values[..., :1]).all() else None
    return values


def _unknown_colours(mask: Decoded, table: LabelTable) -> str:
    """Those of a mask of 8 bits, in words; without those that the format knows."""
    if mask.deep is not None:
        return ""
    colours = colours_of(mask)
    if not table.of_format:
        return f", found {in_words(colours, True)}"
    unknown = colours[table.of_format.classes_of(colours) < 0]
    return f", and no class has {in_words(unknown, True)}"


@dataclass(frozen=True)
class LabelTable:
    """Which class a mask's value is. values: int64, ascending; classes: int16, 255 = ignored.

    of_format: beside a table of numbers the one of the colours that the format's masks may have.
    """

    values: np.ndarray
    classes: np.ndarray
    coloured: bool
    of_format: LabelTable | None = None

    def classes_of(self, values: np.ndarray) -> np.ndarray:
        """Of the same shape: class number, 255 where ignored, -1 where unknown.

        int16, or uint8 where none of 8-bit values is unknown.
        """
        if self.coloured:
            places = np.searchsorted(self.values, values).clip(max=len(self.values) - 1)
            return np.where(self.values[places] == values, self.classes[places], np.int16(-1))
        if values.dtype == np.uint8:
            # A fifth of the time of indexing.
            classes, known = self._of_bytes
            content = values.tobytes()
            if not content.translate(None, known):
                return np.frombuffer(content.translate(classes), np.uint8).reshape(values.shape)
        return self._of_numbers[values]

    @cached_property
    def _of_numbers(self) -> np.ndarray:
        table = np.full(1 << 16, -1, np.int16)
        table[self.values] = self.classes
        return table

    @cached_property
    def _of_bytes(self) -> tuple[bytes, bytes]:
        """For bytes.translate: the class of every 8-bit value, and the values that have one."""
        classes = self._of_numbers[:256]
        return classes.astype(np.uint8).tobytes(), np.flatnonzero(classes >= 0).astype(
            "B"
        ).tobytes()


def label_table(dataset: DatasetStage) -> LabelTable:
    """What `labels` and `ignore` say; of VOC, whose masks come both ways, its colours, too."""
    table = _label_table(dataset.classes, dataset.labels, dataset.ignore)
    if dataset.format != "voc" or table.coloured:
        return table
    colours = {colour: name for name, colour in dataset.classes.items()}
    return replace(table, of_format=_label_table(dataset.classes, colours, [VOC_BORDER]))


def _label_table(
    names: Iterable[str], labels: Mapping[int | str, str], ignore: Iterable[int | str]
) -> LabelTable:
    numbers = {name: number for number, name in enumerate(names)}
    table = {_mask_value(value): IGNORED for value in ignore}
    table |= {_mask_value(value): numbers[name] for value, name in labels.items()}
    values = sorted(table)
    coloured = any(isinstance(value, str) for value in labels)
    classes = np.array([table[value] for value in values], np.int16)
    return LabelTable(np.array(values, np.int64), classes, coloured)


def _mask_value(value: int | str) -> int:
    return int(value[1:], 16) if isinstance(value, str) else value


def palette(colours: Sequence[str]) -> list[int]:
    """768 numbers for an indexed PNG: '#rrggbb' per class; 255, ignored, is white."""
    colour_table = [0] * 768
    for number, colour in enumerate(colours):
        colour_table[3 * number : 3 * number + 3] = bytes.fromhex(colour[1:])
    colour_table[3 * IGNORED :] = [255, 255, 255]
    return colour_table


def indexed_png(
    classes: np.ndarray, colour_table: Sequence[int], notes: Mapping[str, str] | None = None
) -> bytes:
    """A uint8 (H, W) array of class numbers as the bytes of an indexed PNG.

    notes: texts that the file carries beside its pixels, by keyword.
    """
    image = Image.frombytes("P", classes.shape[::-1], np.ascontiguousarray(classes).tobytes())
    image.putpalette(colour_table)
    buffer = io.BytesIO()
    texts = PngInfo()
    for key, text in (notes or {}).items():
        texts.add_text(key, text)
    image.save(buffer, "PNG", optimize=False, compress_level=6, pnginfo=texts)
    return buffer.getvalue()


def write_indexed_png(path: Path, classes: np.ndarray, colours: Mapping[str, str]) -> None:
    """Write uint8 (H, W) class numbers as a PNG in the data set's colours."""
    write_bytes(path, indexed_png(classes, palette(list(colours.values()))))


def _decode(path: Path) -> Decoded:
    try:
        with Image.open(path) as image:
            # A phone's JPEG may carry a second picture (MPO); the first is the photograph.
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                raise DataError(f"{path}: {image.n_frames} pages or frames; {_ONE_PAGE}")
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


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether Pillow would halve the bits: it has no mode for 16-bit colour."""
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
    """The one page of a TIFF that Pillow cannot read, or not to its full depth."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            if len(file.pages) != 1:
                raise DataError(f"{path}: {len(file.pages)} pages; {_ONE_PAGE}")
            page = file.pages[0]
            # Planes of colour come first in some files.
            return np.moveaxis(page.asarray(), 0, -1) if page.axes == "SYX" else page.asarray()
    except (tifffile.TiffFileError, RuntimeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(error) from error


def _turned(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Pixels turned as the EXIF orientation of `image` says."""
    # Mirrored first where at all, then quarter turns counter-clockwise.
    mirrored, quarters = _ORIENTATIONS.get(image.getexif().get(ExifTags.Base.Orientation), (0, 0))
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
