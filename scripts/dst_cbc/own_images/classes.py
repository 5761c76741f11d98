"""Proposes classes for the user's masks: a name and a colour for each mask value."""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..runtime.errors import DataError
from ..settings.data import IGNORED
from .inspection import Inspection

MANY_VALUES = 64
"""More distinct values than this, without a few that dominate, are not class masks."""
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")


@dataclass(frozen=True)
class ClassTable:
    """Proposed keys of the experiment file, and sentences for the user.

    classes: name: '#rrggbb'. labels: mask value: name. ignore: mask values without a class.
    """

    classes: dict[str, str]
    labels: dict[int | str, str]
    ignore: list[int | str]
    remarks: list[str]
    warnings: list[str]


def class_table(found: Inspection) -> ClassTable:
    """Propose one class for each mask value; 0 is the background.

    255 is ignored if there are more than two values. Rare values in between, which smoothing
    produces at the edges of objects, are ignored, too. Raises DataError when there is only one
    value, or there are too many for classes.
    """
    values, between = _main_values(found)
    remarks, warnings = [], []
    ignore = list(between)
    if between:
        warnings.append(
            f"the masks are anti-aliased: besides {written(values, found)} they hold "
            f"{len(between)} rare values in between, {share_of(found, between):.2%} of the pixels; "
            "these are ignored. Masks exported without smoothing are better"
        )
    if IGNORED in values and len(values) > 2 and not found.coloured:
        values, ignore = [v for v in values if v != IGNORED], [*ignore, IGNORED]
        remarks.append("255 in the masks means `no class`, as is usual, so it is ignored")
    if len(values) < 2:
        raise DataError(
            f"the masks hold only {written(values, found)}; expected at least two classes, one of "
            "them the background"
        )
    named = _names(values, found)
    warnings += _rare(values, named, found)
    return ClassTable(
        classes={named[value]: _colour(value, place, found) for place, value in enumerate(values)},
        labels={_value(value, found): named[value] for value in values},
        ignore=[_value(value, found) for value in sorted(ignore)],
        remarks=remarks,
        warnings=warnings,
    )


def _main_values(found: Inspection) -> tuple[list[int], list[int]]:
    """Return the values that are classes, and the values in between of anti-aliased edges."""
    total = found.pixels.total()
    main = [value for value, count in found.pixels.items() if count >= 0.005 * total]
    others = [value for value in found.pixels if value not in main]
    filled = sum(found.pixels[value] for value in main) >= 0.95 * total
    smooth = (
        filled
        and len(others) >= max(3, 3 * len(main))
        and (found.coloured or min(main) < min(others) <= max(others) < max(main))
    )
    if smooth and len(others) <= 300:
        span = range(256) if not found.coloured and max(main) <= 255 else others
        return sorted(main), sorted({*span, *others} - {*main})
    if len(found.pixels) > MANY_VALUES:
        frequent = ", ".join(
            f"{written([value], found)} ({count / total:.1%})"
            for value, count in found.pixels.most_common(10)
        )
        raise DataError(
            f"the masks hold {len(found.pixels)} different values, too many for classes; the most "
            f"frequent: {frequent}. Are they instance numbers, probabilities or JPEG? Export masks "
            "as PNG, with one value per class"
        )
    return sorted(found.pixels), []


def share_of(found: Inspection, values: Sequence[int]) -> float:
    """Return the share of the masks' pixels that have one of these values, 0..1."""
    return sum(found.pixels[value] for value in values) / found.pixels.total()


def _value(value: int, found: Inspection) -> int | str:
    return f"#{value:06x}" if found.coloured else value


def written(values: Sequence[int], found: Inspection) -> str:
    """Return the values as the user writes them under `labels`, with commas between them."""
    return ", ".join(str(_value(value, found)) for value in values)


def _names(values: Sequence[int], found: Inspection) -> dict[int, str]:
    if len(values) == 2 and min(values) == 0:
        return {min(values): "background", max(values): "foreground"}
    word = "colour" if found.coloured else "class"
    return {
        value: "background" if value == 0 else f"{word} {str(_value(value, found)).strip('#')}"
        for value in values
    }


def _colour(value: int, place: int, found: Inspection) -> str:
    if found.coloured:
        return f"#{value:06x}"
    own = found.palette.get(value)
    if own and len({*found.palette.values()}) == len(found.palette):
        return own
    if value == 0:
        return "#000000"
    if place <= len(_COLOURS):
        return _COLOURS[place - 1]
    turn = colorsys.hsv_to_rgb(0.618 * place % 1, 0.9 if place % 2 else 0.5, 0.9)
    return "#" + bytes(round(255 * channel) for channel in turn).hex()


def _rare(values: Sequence[int], named: Mapping[int, str], found: Inspection) -> list[str]:
    warnings = []
    for value in values:
        share, images = share_of(found, [value]), found.images[value]
        if share < 0.001 or images < 3:
            warnings.append(
                f"class {named[value]!r} has {share:.3%} of the pixels, in {images} of "
                f"{found.decoded} masks: too little to learn or evaluate it; label more of "
                "it, or map its value to another class under `labels`"
            )
    return warnings
