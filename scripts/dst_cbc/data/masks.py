"""Reads masks as class numbers, and writes class numbers as PNGs that any viewer opens."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..runtime.errors import DataError
from ..runtime.files import write_bytes
from ..settings.data import IGNORED, DatasetStage
from .images import Decoded, decode_mask

VOC_BORDER = "#e0e0c0"
"""Colour of the pixels without a class in VOC's masks."""


def open_label(path: Path, table: LabelTable, sha256: str | None = None) -> Image.Image:
    """Read a mask as class numbers, mode L, 255 = ignored.

    sha256: as for `decode`. Raises what `decode_mask` raises, and DataError when the mask holds a
    value that is neither under `labels` nor under `ignore`, and when `labels` names numbers but the
    mask holds colours that its format does not define either.
    """
    return read_label(path, table, sha256).classes


class ReadLabel(NamedTuple):
    """A mask that was read.

    classes: class numbers, mode L, 255 = ignored. by_colour: whether the format's colours were used
    instead of numbers. file: what it was read from.
    """

    classes: Image.Image
    by_colour: bool
    file: Decoded


def read_label(path: Path, table: LabelTable, sha256: str | None = None) -> ReadLabel:
    """Read a mask as `open_label` does, and say more about it."""
    mask = decode_mask(path, sha256)
    if table.of_format and mask.image is not None and mask.image.mode in ("RGB", "RGBA"):
        classes = table.of_format.classes_of(colours_of(mask))
        # Otherwise the mask may hold class numbers, stored as grey RGB.
        if (classes >= 0).all():
            return ReadLabel(Image.fromarray(classes.astype(np.uint8)), True, mask)
    values = _mask_values(path, mask, table)
    classes = table.classes_of(values)
    if (classes < 0).any():
        unknown = list_values(values[classes < 0], table.coloured)
        raise DataError(
            f"{path}: mask values {unknown} are neither under `labels` nor under `ignore`"
        )
    return ReadLabel(Image.fromarray(classes.astype(np.uint8)), False, mask)


def palette_of(mask: Decoded) -> dict[int, str]:
    """Return the colours of the values of an indexed mask: value: '#rrggbb'; {} of other masks."""
    if mask.image is None or mask.image.mode != "P":
        return {}
    table = mask.image.getpalette() or []
    return {
        value: "#" + bytes(table[3 * value : 3 * value + 3]).hex()
        for value in np.unique(np.asarray(mask.image)).tolist()
        if len(table) >= 3 * value + 3
    }


def list_values(values: np.ndarray, coloured: bool) -> str:
    """Return the distinct values for a message: at most 20, and how many more there are."""
    found = np.unique(values).tolist()
    shown = [f"#{value:06x}" for value in found] if coloured else found
    return f"{shown[:20]}" + (f" and {len(shown) - 20} others" if len(shown) > 20 else "")


def colours_of(mask: Decoded) -> np.ndarray:
    """Return the colours of a mask, int32 (H, W), each 0xrrggbb."""
    assert mask.image is not None
    red, green, blue = np.asarray(mask.image.convert("RGB"), np.int32).transpose(2, 0, 1)
    return red << 16 | green << 8 | blue


def _mask_values(path: Path, mask: Decoded, table: LabelTable) -> np.ndarray:
    """Return a mask's numbers, or 0xrrggbb where `labels` names colours; int (H, W)."""
    if table.coloured:
        if mask.deep is not None:
            raise DataError(
                f"{path}: a 16-bit mask, but `labels` names colours; name the mask's numbers"
            )
        return colours_of(mask)
    values = numbers_of(mask)
    if values is None:
        raise DataError(
            f"{path}: a mask of colours, but `labels` names numbers"
            + _unknown_colours(mask, table)
            + "; get masks of numbers, or list each colour under `labels` or `ignore`: "
            "`labels: {'#rrggbb': class}`"
        )
    return values


def numbers_of(mask: Decoded) -> np.ndarray | None:
    """Return a mask's palette indexes or grey values, int (H, W); None for a mask of colours."""
    values = mask.deep
    if values is None:
        assert mask.image is not None
        # Every viewer shows the two values of a 1-bit image as 0 and 255.
        grey = mask.image.convert("L") if mask.image.mode == "1" else mask.image
        if grey.mode in ("LA", "RGBA"):
            grey = grey.convert(grey.mode[:-1])
        values = np.asarray(grey)
    if values.ndim == 3:
        return values[..., 0] if (values == values[..., :1]).all() else None
    return values


def _unknown_colours(mask: Decoded, table: LabelTable) -> str:
    """Lists the colours of an 8-bit mask that the format does not define; part of a message."""
    if mask.deep is not None:
        return ""
    colours = colours_of(mask)
    if not table.of_format:
        return f", found {list_values(colours, True)}"
    unknown = colours[table.of_format.classes_of(colours) < 0]
    return f", and no class has {list_values(unknown, True)}"


@dataclass(frozen=True)
class LabelTable:
    """Maps the values of a mask to class numbers.

    values: int64 (N,), ascending; 0xrrggbb each where `coloured`. classes: int16 (N,), the class
    number of each value, 255 = ignored. of_format: for a table of numbers, the table of the colours
    that the format defines, if any.
    """

    values: np.ndarray
    classes: np.ndarray
    coloured: bool
    of_format: LabelTable | None = None

    def classes_of(self, values: np.ndarray) -> np.ndarray:
        """Return class numbers in the shape of `values`: 255 where ignored, -1 where unknown.

        Their dtype is int16, or uint8 for 8-bit values that are all known.
        """
        if self.coloured:
            places = np.searchsorted(self.values, values).clip(max=len(self.values) - 1)
            return np.where(self.values[places] == values, self.classes[places], np.int16(-1))
        if values.dtype == np.uint8:
            # bytes.translate takes a fifth of the time of indexing.
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
    """Build the table of `labels` and `ignore`.

    VOC's masks are distributed as numbers or as colours, so its table includes VOC's colours.
    """
    table = _label_table(dataset.classes, dataset.labels, dataset.ignore)
    if dataset.format != "voc" or table.coloured:
        return table
    colours: dict[int | str, str] = {colour: name for name, colour in dataset.classes.items()}
    return replace(table, of_format=_label_table(dataset.classes, colours, [VOC_BORDER]))


def _label_table(
    names: Iterable[str], labels: Mapping[int | str, str], ignore: Iterable[int | str]
) -> LabelTable:
    numbers = {name: number for number, name in enumerate(names)}
    table = {mask_value(value): IGNORED for value in ignore}
    table |= {mask_value(value): numbers[name] for value, name in labels.items()}
    values = sorted(table)
    coloured = any(isinstance(value, str) for value in labels)
    classes = np.array([table[value] for value in values], np.int16)
    return LabelTable(np.array(values, np.int64), classes, coloured)


def mask_value(value: int | str) -> int:
    """Convert a value of `labels` or `ignore` to a number: a colour '#rrggbb' becomes 0xrrggbb."""
    return int(value[1:], 16) if isinstance(value, str) else value


def palette(colours: Sequence[str]) -> list[int]:
    """Return a PNG's palette, 768 numbers, from '#rrggbb' per class; 255 (ignored) is white."""
    colour_table = [0] * 768
    for number, colour in enumerate(colours):
        colour_table[3 * number : 3 * number + 3] = bytes.fromhex(colour[1:])
    colour_table[3 * IGNORED :] = [255, 255, 255]
    return colour_table


def indexed_png(
    classes: np.ndarray, colour_table: Sequence[int], notes: Mapping[str, str] | None = None
) -> bytes:
    """Encode class numbers, uint8 (H, W), as an indexed PNG.

    notes: keyword: text, stored in the file beside the pixels.
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
    """Write class numbers, uint8 (H, W), as a PNG; colours: class: '#rrggbb', in order."""
    write_bytes(path, indexed_png(classes, palette(list(colours.values()))))
