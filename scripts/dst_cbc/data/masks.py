"""Masks: values of a file to class numbers, and class numbers to PNGs that any viewer opens."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..runtime.files import DataError, write_bytes
from ..settings.data import IGNORED, DatasetStage
from .images import Decoded, decode

VOC_BORDER = "#e0e0c0"
"""Colour of the pixels without a class in VOC's masks."""


def open_label(path: Path, table: LabelTable) -> Image.Image:
    """A mask as class numbers, mode L, 255 = ignored.

    Raises DataError as `decode`, and when the mask holds a value that the experiment maps to no
    class, or colours where the experiment names numbers and the format has no such colours.
    """
    return read_label(path, table)[0]


def read_label(path: Path, table: LabelTable) -> tuple[Image.Image, bool]:
    """The same, and whether it was read by the colours of the format, not by its numbers."""
    mask = decode(path)
    if table.of_format and mask.image is not None and mask.image.mode in ("RGB", "RGBA"):
        classes = table.of_format.classes_of(colours_of(mask))
        # A few formats store numbers as grey RGB.
        if (classes >= 0).all():
            return Image.fromarray(classes.astype(np.uint8)), True
    values = _mask_values(path, mask, table)
    classes = table.classes_of(values)
    if (classes < 0).any():
        unknown = list_values(values[classes < 0], table.coloured)
        raise DataError(
            f"{path}: mask values {unknown} are neither under `labels` nor under `ignore`"
        )
    return Image.fromarray(classes.astype(np.uint8)), False


def list_values(values: np.ndarray, coloured: bool) -> str:
    found = np.unique(values).tolist()
    shown = [f"#{value:06x}" for value in found] if coloured else found
    return f"{shown[:20]}" + (f" and {len(shown) - 20} others" if len(shown) > 20 else "")


def colours_of(mask: Decoded) -> np.ndarray:
    """int (H, W): 0xrrggbb."""
    assert mask.image is not None
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
        assert mask.image is not None
        # One bit a pixel is black and white, 0 and 255, as in every viewer.
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
    """A value of `labels` or `ignore` as it is in a mask: a number, or 0xrrggbb of a colour."""
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
