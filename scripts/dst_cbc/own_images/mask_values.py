"""Decides what the values of the user's masks are: numbers, or colours of pixels and palettes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..runtime.errors import DataError, first_of
from .class_list import ClassList
from .mask_shapes import Shapes

ADVICE = (
    "Write all masks with one palette, as numbers, or all as RGB with one colour a class; or say "
    "how to read them: --classes FILE with the numbers or the colours"
)


@dataclass(frozen=True)
class MaskSeen:
    """What one mask holds.

    file: its path, for messages. kind: such as `8-bit grey`. pixels: value: number of pixels; the
    values are 0xrrggbb where `coloured`. palette: value: '#rrggbb', of an indexed mask. shapes:
    where the pixels lie.
    """

    file: str
    kind: str
    pixels: Mapping[int, int]
    coloured: bool
    palette: Mapping[int, str]
    shapes: Shapes

    def colour(self, value: int) -> int:
        """Return the colour, 0xrrggbb, in which viewers show a value."""
        if self.coloured:
            return value
        if self.kind == "palette":
            return int(self.palette.get(value, "#000000")[1:], 16)
        return value * 0x010101

    @property
    def colours(self) -> set[int]:
        """The colours of its pixels."""
        return {self.colour(value) for value in self.pixels}

    def by_colour(self) -> MaskSeen:
        """Return the mask with its colours for values."""

        def counted(counts: Mapping[int, int]) -> Counter[int]:
            found: Counter[int] = Counter()
            for value, count in counts.items():
                found[self.colour(value)] += count
            return found

        flat, between = counted(self.shapes.flat), counted(self.shapes.between)
        shapes = replace(self.shapes, flat=flat, between=between)
        return replace(self, pixels=counted(self.pixels), coloured=True, shapes=shapes)


def are_colours(masks: Sequence[MaskSeen]) -> tuple[bool, list[str]]:
    """Return whether the masks are read by colour, and what to warn the user of.

    Raises DataError where masks contradict each other read by number, and also read by colour.
    """
    if any(mask.coloured for mask in masks):
        _require_same_colours(masks)
        return True, []
    two = _contradiction(masks)
    if two is None:
        return False, []
    value, first, second = two
    colours = {colour for mask in masks for colour in mask.colours}
    numbers = {number for mask in masks for number in mask.pixels}
    contradiction = (
        f"the palettes of the masks contradict each other: value {value} is "
        f"{first.palette[value]} in {first.file}, and {second.palette[value]} in {second.file}"
    )
    if len(colours) > len(numbers):
        raise DataError(
            f"{contradiction}. By value there are {len(numbers)} classes, by colour "
            f"{len(colours)}. {ADVICE}"
        )
    return True, [f"{contradiction}. So the masks are read by colour: `labels` lists colours"]


def listed_as_colours(masks: Sequence[MaskSeen], listed: ClassList) -> tuple[bool, list[str]]:
    """Return whether masks are read by colour, as a file lists their values, and what to warn of.

    Masks without the listed colours may hold the numbers of the list's lines instead. Raises
    DataError where the file lists numbers, but a mask holds colours.
    """
    if not listed.coloured:
        _require_numbers(masks, listed.file)
        return False, []
    if listed.by_line is None or any(mask.coloured for mask in masks):
        return True, []
    colours = {colour for mask in masks for colour in mask.colours}
    numbers = {number for mask in masks for number in mask.pixels}
    if colours <= listed.values or not numbers <= listed.by_line.values:
        return True, []
    return False, [
        f"the masks hold numbers without the colours of {listed.file}, so they are read as the "
        "numbers of its lines: 0 is the first class, 1 the second"
    ]


def _require_numbers(masks: Sequence[MaskSeen], why: Path) -> None:
    coloured = [mask for mask in masks if mask.coloured]
    if coloured:
        raise DataError(
            f"{why}: lists numbers, but {len(coloured)} masks hold colours: {coloured[0].file} "
            f"holds {_some(coloured[0].colours, True)}; list these"
        )


def _require_same_colours(masks: Sequence[MaskSeen]) -> None:
    """Raise DataError unless masks without colours of their own hold the colours of the others."""
    rgb = [mask for mask in masks if mask.coloured or mask.kind == "8-bit RGB"]
    indexed = [mask for mask in masks if mask.kind == "palette"]
    known = {colour for mask in rgb for colour in mask.colours}
    shown = {colour for mask in indexed for colour in mask.colours}
    for mask in masks:
        fits = mask.colours <= known or (mask.kind == "palette" and known <= shown)
        if mask.kind != "8-bit RGB" and not fits:
            other = next(mask for mask in rgb if mask.coloured)
            raise DataError(
                f"masks of numbers are mixed with masks of colours: {mask.file} ({mask.kind}) "
                f"holds {_some(mask.pixels, False)}"
                + (f", shown as {_some(mask.colours, True)}" if mask.kind == "palette" else "")
                + f"; {other.file} ({other.kind}) holds {_some(other.colours, True)}. {ADVICE}"
            )


def _contradiction(masks: Sequence[MaskSeen]) -> tuple[int, MaskSeen, MaskSeen] | None:
    """Return a value with different colours in two palettes, and both masks."""
    first: dict[int, MaskSeen] = {}
    for mask in masks:
        for value, colour in mask.palette.items():
            if first.setdefault(value, mask).palette[value] != colour:
                return value, first[value], mask
    return None


def _some(values: Sequence[int] | set[int] | Mapping[int, int], coloured: bool) -> str:
    found = sorted(values)
    return first_of([f"#{value:06x}" if coloured else str(value) for value in found], 5, "others")
