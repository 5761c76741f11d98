"""Decides whether 255 in the user's masks is a class, or marks pixels without a class."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..settings.data import IGNORED
from .drawn_values import share_of
from .inspection import Inspection
from .mask_shapes import BORDER

Meaning = Literal["class", "same as 1", "no class"]


def meaning(values: Sequence[int], found: Inspection) -> tuple[Meaning, str] | None:
    """Return what 255 means, and what to tell the user; None where it is not the largest value.

    values: the mask values that were drawn, with 255.
    """
    if found.coloured or len(values) < 2 or max(values) != IGNORED:
        return None
    objects = {*values} - {0, IGNORED}
    sets = [{*mask.pixels} & {*values} for mask in found.masks]
    border = sum(mask.shapes.border for mask in found.masks) / found.pixels[IGNORED]
    alone = [one for one in sets if IGNORED in one and not one & objects]
    if not objects:
        return "class", _said(found, border, "it is read as the class 'foreground'")
    if {*values} == {0, 1, IGNORED} and len(alone) == found.images[IGNORED]:
        why = "no mask holds both 1 and 255, so both are read as the class 'foreground'"
        return "same as 1", _said(found, border, why)
    if objects <= {85, 170}:
        why = "the greys of 2 bits (0, 85, 170, 255) are read as classes"
        return "class", _said(found, border, why)
    if border >= 0.8:
        return "no class", _said(found, border, "it is ignored")
    steps = np.diff(sorted(values))
    if steps.min() >= 32 or (len(values) > 3 and np.ptp(steps) <= 2 < steps.min()):
        why = "like the other greys, it is read as a class"
        return "class", _said(found, border, why)
    if len(alone) > len(found.masks) / 2:
        why = "it is the only object in most masks, so it is read as a class"
        return "class", _said(found, border, why)
    return "no class", _said(found, border, "as is usual beside small numbers, it is ignored")


def _said(found: Inspection, border: float, why: str) -> str:
    share = f"{share_of(found, [IGNORED]):.2%} of the pixels, in {found.images[IGNORED]} of "
    shape = (
        f"in borders of at most {BORDER} pixels around objects"
        if border >= 0.8
        else f"in areas ({border:.0%} of it in borders of at most {BORDER} pixels around objects)"
        if border >= 0.01
        else "in areas, not in borders around objects"
    )
    change = (
        "If it is a class, write `255: NAME` under `labels`, NAME under `classes`, and take 255 "
        "from `ignore`"
        if why.endswith("ignored")
        else "If it means `no class`, delete the line `255: …` under `labels` and write "
        "`ignore: [255]`"
    )
    return f"value 255: {share}{len(found.masks)} masks, {shape}; {why}. {change}"
