"""Says what masks of numbers may mean otherwise than `labels` reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..settings.data import IGNORED, DatasetStage
from .masks import ReadLabel, palette_of


@dataclass(frozen=True)
class HeldMask:
    """What the data check keeps of a mask.

    pixels, ignored: number of its pixels, and of those without a class. palette: value: '#rrggbb'.
    """

    file: str
    pixels: int
    ignored: int
    palette: dict[int, str]

    @classmethod
    def of(cls, path: Path, read: ReadLabel) -> HeldMask:
        """Return what is kept of a mask that was read from `path`."""
        counts = read.classes.histogram()
        return cls(str(path), sum(counts), counts[IGNORED], palette_of(read.file))


def notices_of(masks: Sequence[HeldMask], dataset: DatasetStage) -> Iterator[str]:
    """Yield a notice where pixels of 255 are ignored, and where palettes contradict each other.

    Both change nothing: the masks are read as `labels` says. There is none where it lists colours.
    """
    if any(isinstance(value, str) for value in dataset.labels):
        return
    ignoring = [mask for mask in masks if mask.ignored]
    if ignoring and IGNORED in dataset.ignore:
        share = sum(mask.ignored for mask in ignoring) / sum(mask.pixels for mask in masks)
        yield (
            f"{share:.2%} of the mask pixels, in {len(ignoring)} of {len(masks)} masks, have no "
            f"class: their values are under `ignore`, {list(dataset.ignore)[:5]}. If 255 is a "
            "class, list it under `labels`"
        )
    first: dict[int, HeldMask] = {}
    for mask in masks:
        for value, colour in mask.palette.items():
            before = first.setdefault(value, mask)
            if before.palette[value] != colour:
                yield (
                    f"palettes contradict each other: value {value} is {before.palette[value]} in "
                    f"{before.file} and {colour} in {mask.file}. Both are read as the number "
                    f"{value}; if the colours are right, list them under `labels`"
                )
                return
