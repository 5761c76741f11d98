"""Proposes how annotation files are used, and inspects the masks that are drawn from them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.account import account_of
from ..data.annotations.masks import draw_masks, entries_of
from ..data.annotations.sources import find, read
from ..data.layouts.annotations import drawn_masks, images_of
from ..data.layouts.layout import MASK_SUFFIXES, files_below
from ..runtime.errors import DataError, first_of
from ..runtime.escape import shown
from ..settings.data import IGNORED, AnnotationSettings, DatasetStage, PairSettings
from .class_list import ClassList, valid_names
from .classes import colour_of

BACKGROUND = "background"
_BACKGROUNDS = ("background", "_background_")
"""Labels, in lower case, that mean the background."""


def holds_annotations(root: Path, folders: PairSettings) -> bool:
    """Whether --labels is a file of annotations, or a folder of them and of no masks.

    The images are no masks, in whichever of the two folders the other one lies: files of
    annotations count even though PNGs lie beside them.
    """
    source = root / folders.labels
    if source.is_file():
        return True
    is_own = folders.labels != folders.images
    if is_own and any(files_below(root, folders.labels, MASK_SUFFIXES, folders.images)):
        return False
    return bool(find(source))


@dataclass(frozen=True)
class Proposal:
    """How annotation files become masks.

    dataset: the settings of the data set. drawn: (id, image, mask) of all images; mask "" if there
    is none. listed: the values of the masks. notes: sentences for the user.
    """

    dataset: DatasetStage
    pairs: list[tuple[str, str, str]]
    listed: ClassList
    notes: list[str]

    @property
    def settings(self) -> AnnotationSettings:
        """The key `annotations`."""
        assert self.dataset.annotations is not None
        return self.dataset.annotations


def propose(
    root: Path, folders: PairSettings, unannotated: str, partial: bool, masks: Path
) -> Proposal:
    """Read the annotation files and draw all masks into the folder `masks`.

    Raises DataError that lists everything that is wrong in the files; then nothing is written.
    """
    source = root / folders.labels
    program, found = read(source)
    used = {shape.label for image in found.images for shape in image.shapes if not shape.ignored}
    # The classes of the files first, in their order.
    labels = [label for label in dict.fromkeys([*found.classes, *sorted(used)]) if label in used]
    names = class_names(labels)
    annotations = AnnotationSettings(
        # In a file without a label, only crowds are left.
        names=names or {"ignore": "ignore"},
        unannotated="background" if unannotated == BACKGROUND else "ignore",
        partial=partial,
    )
    images = images_of(root, folders)
    entries, notices = entries_of(root, folders, images, found, annotations)
    classes = _classes(names, found.classes, unannotated)
    if len(classes) < 2:
        raise DataError(
            f"{source}: all labeled pixels are of the class {', '.join(classes) or 'ignore'}; "
            "expected a second class"
            + (
                ""
                if BACKGROUND in classes
                else ", such as the background: --unannotated background"
            )
        )
    if len(classes) > IGNORED:
        raise DataError(f"{source}: {len(classes)} classes; expected at most {IGNORED}")
    dataset = DatasetStage(
        format="annotations",
        classes=classes,
        labels=dict(enumerate(classes)),
        ignore=(IGNORED,),
        test_from_val=0,
        digits=None,
        pairs=folders,
        annotations=annotations,
        drawn=str(masks),
    )
    shapes = sum(len(entry.annotated.shapes) for entry in entries)
    idle = [label for label in found.classes if label not in used]
    rest = first_of(idle, 5, "others")
    below = [file for file in found.others if file.is_relative_to(source)]
    files = {os.path.relpath(file, root) for file in (*below, *(one.file for one in found.images))}
    account = account_of(root, folders, [(image, "") for _, image in images], annotations=files)
    notes = [
        *account.lines(),
        f"found: {program.name}: {shapes} shapes of {len(labels)} labels in {len(entries)} images",
        *(f"found: {notice}" for notice in notices),
        *([f"found: labels without a shape are left out: {rest}"] if idle else []),
        *_renamed(names),
    ]
    draw_masks(root, dataset, entries)
    drawn = drawn_masks(masks)
    pairs = [(id, image, drawn.get(id, "")) for id, image in images]
    listed = ClassList(source, dict(enumerate(classes)), [IGNORED], coloured=False)
    return Proposal(dataset, pairs, listed, notes)


def class_names(labels: Sequence[str]) -> dict[str, str]:
    """Return the class of each label; labels for the background and for no class are known."""
    backgrounds = {label: BACKGROUND for label in labels if label.casefold() in _BACKGROUNDS}
    others = valid_names([label for label in labels if label not in backgrounds])
    return {label: backgrounds.get(label) or others[label] for label in labels}


def _classes(
    names: Mapping[str, str], colours: Mapping[str, str | None], unannotated: str
) -> dict[str, str]:
    """Return the colour of each class; the background comes first, if there is one."""
    classes = {BACKGROUND: "#000000"} if BACKGROUND in (unannotated, *names.values()) else {}
    for label, name in names.items():
        own = colours.get(label)
        if name not in (BACKGROUND, "ignore"):
            taken = own in classes.values()
            classes[name] = own if own and not taken else colour_of(len(classes))
    return classes


def _renamed(names: Mapping[str, str]) -> list[str]:
    changed = [f"{shown(label)} is {name!r}" for label, name in names.items() if label != name]
    return [f"assumed: names of classes: {first_of(changed, 5, 'others')}"] if changed else []
