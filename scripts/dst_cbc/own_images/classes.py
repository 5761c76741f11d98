"""Proposes classes for the user's masks: a name and a colour for each mask value."""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ..runtime.errors import DataError, first_of
from ..settings.data import IGNORED
from .class_list import ClassList
from .drawn_values import drawn, require_classes, share_of, shown_value, some, written
from .inspection import Inspection
from .value_255 import meaning

_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")


@dataclass(frozen=True)
class ClassTable:
    """Proposed keys of the experiment file, and sentences for the user.

    classes: name: '#rrggbb'. labels: mask value: name. ignore: mask values without a class.
    choices: the warnings that say what was chosen, and how to change it.
    """

    classes: dict[str, str]
    labels: dict[int | str, str]
    ignore: list[int | str]
    choices: list[str]
    warnings: list[str]


def class_table(found: Inspection, listed: ClassList | None = None) -> ClassTable:
    """Propose the classes that are listed, or one class for each mask value; 0 is the background.

    255 may be a class, or mark pixels without one: see `meaning`. Values that smoothing made at the
    edges of objects are ignored. Raises DataError when there is only one value, there are too many
    for classes, or they number objects; and when the list lacks a value.
    """
    if listed:
        return _of_list(found, listed)
    require_classes(found)
    values, ignore, choices = drawn(found)
    decided = meaning(values, found)
    if decided:
        choices.append(decided[1])
    if decided and decided[0] == "no class":
        values, ignore = [v for v in values if v != IGNORED], [*ignore, IGNORED]
    if len(values) < 2:
        raise DataError(
            f"the masks hold only {written(values, found)}; expected at least two classes, one of "
            "them the background"
        )
    named = _names(values, found)
    if decided and decided[0] == "same as 1":
        named = {value: "foreground" if value else "background" for value in values}
    return _table(found, named, ignore, [*found.warnings, *choices], _rare(named, found))


def _of_list(found: Inspection, listed: ClassList) -> ClassTable:
    if listed.by_line and not found.coloured:
        listed = listed.by_line
    missing = sorted({*found.pixels} - listed.values)
    if missing:
        raise DataError(
            f"{listed.file}: has no line for {some(missing, found)}, {share_of(found, missing):.2%}"
            f" of the pixels of the masks; add a line `{listed.form}` for each, or "
            f"`{listed.form.replace('NAME', 'ignore')}` for pixels without a class"
        )
    present = {value: name for value, name in listed.names.items() if found.pixels[value]}
    absent = [name for name in listed.names.values() if name not in present.values()]
    warnings = _rare(present, found)
    if absent:
        names = first_of([*map(repr, absent)], 3, "others")
        warnings.append(f"{len(absent)} listed classes are in no mask: {names}")
    choices = [*found.warnings]
    return _table(found, listed.names, listed.ignore, choices, warnings, listed.colours)


def _table(
    found: Inspection,
    named: Mapping[int, str],
    ignore: Sequence[int],
    choices: list[str],
    warnings: list[str],
    known: Mapping[str, str] = MappingProxyType({}),
) -> ClassTable:
    colours: dict[str, str] = {}
    for place, (value, name) in enumerate(named.items()):
        colours.setdefault(name, known.get(name) or _colour(value, place, found))
    return ClassTable(
        classes=colours,
        labels={shown_value(value, found): name for value, name in named.items()},
        ignore=[shown_value(value, found) for value in sorted(ignore)],
        choices=choices,
        warnings=[*choices, *warnings],
    )


def _names(values: Sequence[int], found: Inspection) -> dict[int, str]:
    if len(values) == 2 and min(values) == 0:
        return {min(values): "background", max(values): "foreground"}
    word = "colour" if found.coloured else "class"
    return {
        value: "background" if value == 0 else f"{word} {str(shown_value(value, found)).strip('#')}"
        for value in values
    }


def _colour(value: int, place: int, found: Inspection) -> str:
    if found.coloured:
        return f"#{value:06x}"
    own = found.palette.get(value)
    if own and len({*found.palette.values()}) == len(found.palette):
        return own
    return "#000000" if value == 0 else colour_of(place)


def colour_of(place: int) -> str:
    """Return a colour for the class number `place`, from 1; the first ones differ most."""
    if 0 < place <= len(_COLOURS):
        return _COLOURS[place - 1]
    turn = colorsys.hsv_to_rgb(0.618 * place % 1, 0.9 if place % 2 else 0.5, 0.9)
    return "#" + bytes(round(255 * channel) for channel in turn).hex()


def _rare(named: Mapping[int, str], found: Inspection) -> list[str]:
    rare = []
    for name in dict.fromkeys(named.values()):
        values = [value for value in named if named[value] == name]
        share, images = share_of(found, values), sum(found.images[value] for value in values)
        if share < 0.001 or images < 3:
            rare.append(
                f"class {name!r} has {share:.3%} of the pixels, in {images} of "
                f"{found.decoded} masks"
            )
    if not rare:
        return []
    more = f"; and so have {len(rare) - 3} others" if len(rare) > 3 else ""
    return [
        f"{'; '.join(rare[:3])}{more}: too little to learn or evaluate a class; label more of it, "
        "or map it to another class, under `labels` or, of annotations, `annotations.names`"
    ]
