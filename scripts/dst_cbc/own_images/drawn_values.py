"""Tells values that were drawn from those that smoothing made at the edges between them."""

from collections.abc import Sequence

from ..runtime.errors import DataError, first_of
from .inspection import Inspection
from .mask_shapes import Shapes

MANY_VALUES = 64
"""More drawn values than this are not taken for classes."""
_MOST_BLENDS = 1000
_SOME = 16
"""As many values without an area are taken for smoothing or JPEG, even if areas touch sharply."""


def drawn(found: Inspection) -> tuple[list[int], list[int], list[str]]:
    """Return the values that are classes, the values to ignore, and what to warn the user of.

    Smoothing (anti-aliasing, resizing, JPEG) puts values in between on many edges, and these have
    no areas. So a value is ignored for its place, never because it is rare. Raises DataError if
    there are too many values.
    """
    shapes = Shapes.total([mask.shapes for mask in found.masks])
    bare = [value for value in sorted(found.pixels) if not _has_area(value, found, shapes)]
    if not _are_blends(bare, found, shapes):
        _require_few(found, [*found.pixels], [])
        return sorted(found.pixels), [], []
    if _is_outline(bare, shapes):
        return sorted(found.pixels), [], [_outline(bare[0], found)]
    values = sorted({*found.pixels} - {*bare})
    _require_few(found, values, bare)
    # Masks that are added later will have other values in between.
    grey = not found.coloured and max(found.pixels) < 256
    span = range(256) if grey and len(bare) >= _SOME else ()
    ignore = sorted({*bare, *span} - {*values})
    return values, ignore, [_smoothed(found, shapes, values, bare)]


def require_classes(found: Inspection) -> None:
    """Raise DataError where the values number the objects of each mask instead of classes."""
    masks = [mask for mask in found.masks if {*mask.pixels} - {0}]
    numbered = sorted(
        (mask for mask in masks if mask.shapes.numbered), key=lambda mask: mask.shapes.numbered
    )
    if len(numbered) < 0.9 * len(masks) or len({one.shapes.numbered for one in numbered}) < 3:
        return
    fewest, most = numbered[0], numbered[-1]
    raise DataError(
        "the masks number objects instead of naming classes: in each mask the values count from 1 "
        f"on, and each is one piece, {fewest.shapes.numbered} in {fewest.file} and "
        f"{most.shapes.numbered} in {most.file}. Export masks of classes: the same value for all "
        "objects of a class. If all objects are of one class: "
        "Image.fromarray(numpy.uint8(numpy.array(Image.open(MASK)) > 0)).save(NEW). "
        "If the values are classes, list them: --classes FILE"
    )


def _has_area(value: int, found: Inspection, shapes: Shapes) -> bool:
    return shapes.flat.get(value, 0) >= max(4, 0.02 * found.pixels[value])


def _are_blends(bare: Sequence[int], found: Inspection, shapes: Shapes) -> bool:
    """Return whether smoothing made the values without an area, or left none of them."""
    between = sum(shapes.between.get(value, 0) for value in bare)
    if between < 0.3 * sum(found.pixels[value] for value in bare):
        return False
    if len(bare) >= max(_SOME, 3 * (len(found.pixels) - len(bare))):
        return share_of(found, bare) < 0.3
    return shapes.smooth > 0.25 * (shapes.sharp + shapes.smooth)


def _is_outline(bare: Sequence[int], shapes: Shapes) -> bool:
    """Return whether a drawn line parts the areas, without any other trace of smoothing."""
    if len(bare) != 1 or shapes.sharp > 0.05 * shapes.smooth:
        return False
    between = sum(shapes.between.values())
    return shapes.between.get(bare[0], 0) > 0.95 * between


def _outline(value: int, found: Inspection) -> str:
    return (
        f"value {written([value], found)} lies only in lines of 1 or 2 pixels between lower and "
        "higher values. It is taken for a class, a drawn outline. If smooth resizing made it, move "
        "it from `labels` to `ignore`"
    )


def _smoothed(
    found: Inspection, shapes: Shapes, values: Sequence[int], blends: Sequence[int]
) -> str:
    text = "the masks were smoothed (anti-aliasing, smooth resizing or JPEG)"
    if blends:
        text += (
            f": besides {written(values, found)} they hold {len(blends)} values that lie only on "
            f"the edges between these ({some(blends, found)}), {share_of(found, blends):.2%} of "
            "the pixels. These are ignored; if one is a class, move it from `ignore` to `labels`"
        )
    mixed = sum(shapes.between.get(value, 0) for value in values) / found.pixels.total()
    if mixed >= 1e-4 and not found.coloured:
        text += (
            f". {mixed:.2%} of the pixels lie on edges between lower and higher values, and have "
            "the value of a class by chance: there, this class is wrong"
        )
    return text + ". Export the masks without smoothing, or resize them by nearest neighbour"


def _require_few(found: Inspection, values: Sequence[int], blends: Sequence[int]) -> None:
    frequent = ", ".join(
        f"{written([value], found)} ({share_of(found, [value]):.1%})"
        for value, _ in found.pixels.most_common(10)
    )
    if len(values) > MANY_VALUES:
        raise DataError(
            f"the masks hold {len(found.pixels)} different values, too many for classes; the most "
            f"frequent: {frequent}. If they are classes, list them: --classes FILE. Are they "
            "instance numbers, probabilities or JPEG? Export masks as PNG, with one value per class"
        )
    if len(blends) > _MOST_BLENDS or (blends and len(values) < 2):
        raise DataError(
            "the masks were smoothed (anti-aliasing, smooth resizing or JPEG): only "
            f"{some(values, found)} fill areas, and {len(blends)} values lie on edges; the most "
            f"frequent: {frequent}. Export the masks without smoothing. If there are two classes, "
            "you can also cut the values in the middle: "
            "Image.fromarray(numpy.uint8(numpy.array(Image.open(MASK).convert('L')) > 127))"
        )


def share_of(found: Inspection, values: Sequence[int]) -> float:
    """Return the share of the masks' pixels that have one of these values, 0..1."""
    return sum(found.pixels[value] for value in values) / found.pixels.total()


def shown_value(value: int, found: Inspection) -> int | str:
    """Return a value as the experiment file writes it: a number or '#rrggbb'."""
    return f"#{value:06x}" if found.coloured else value


def written(values: Sequence[int], found: Inspection) -> str:
    """Return the values as the user writes them under `labels`, with commas between them."""
    return ", ".join(str(shown_value(value, found)) for value in values)


def some(values: Sequence[int], found: Inspection) -> str:
    """Return at most five of the values, and the number of others."""
    return first_of([str(shown_value(value, found)) for value in values], 5, "others")
