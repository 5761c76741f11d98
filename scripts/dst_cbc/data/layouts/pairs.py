"""A folder of images and a folder of masks, used in place: their pairs and their subsets.

A mask has the name of its image, or a name made by a pattern such as `{}_mask`. The pages of a
TIFF stack are images; its mask has as many pages, or each page has a mask of its own. All images of
one group (a slide, a video, a patient) are in the same subset.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath

from ...runtime.errors import DataError, first_of
from ...settings.data import DatasetStage, PairSettings
from ..groups import groups_of
from ..pages import file_of
from .layout import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    Layout,
    Record,
    each_page,
    files_below,
    masks_by_name,
    same_name,
)


def shared_name(id: str, pattern: str) -> str | None:
    """Return the id with its last part reduced to what `{}` stands for in the pattern.

    For example `town/7` for `town/7_mask` and `{}_mask`; None if the pattern does not match.
    """
    # Without PurePosixPath, which takes much longer: names are searched with hundreds of patterns.
    folder, slash, name = id.rpartition("/")
    before, after = pattern.split("{}")
    if len(name) <= len(before) + len(after) or not (
        name.startswith(before) and name.endswith(after)
    ):
        return None
    return f"{folder}{slash}{name[len(before) : len(name) - len(after)]}"


def images_below(root: Path, pairs: PairSettings) -> list[tuple[str, str]]:
    """Return id and path below `root` of each image, sorted; masks in the folder are left out.

    Raises DataError when one of the folders is missing.
    """
    for folder in (pairs.images, pairs.labels):
        if not (root / folder).is_dir():
            raise DataError(f"{root / folder}: no such folder; `pairs` names it, below `data`")
    found = sorted(files_below(root, pairs.images, IMAGE_SUFFIXES, pairs.labels))
    if not in_one_folder(pairs) or pairs.mask_name == pairs.image_name:
        return found
    found = [f for f in found if shared_name(f[0], pairs.mask_name) is None]
    # A mask in another case, such as x_MASK, is no image either.
    names = {_folded(shared_name(id, pairs.image_name) or "") for id, _ in found}
    pattern = pairs.mask_name.casefold()
    return [f for f in found if shared_name(_folded(f[0]), pattern) not in names]


def in_one_folder(pairs: PairSettings) -> bool:
    """Whether images and masks lie in the same folder."""
    return PurePosixPath(pairs.images) == PurePosixPath(pairs.labels)


def _folded(name: str) -> str:
    return same_name(name).casefold()


def masks_below(root: Path, pairs: PairSettings) -> dict[str, str]:
    """Return the path below `root` of each mask, by the name that it shares with its image.

    Raises DataError when two files could be the mask of one image.
    """
    masks: dict[str, str] = {}
    for id, path in sorted(files_below(root, pairs.labels, MASK_SUFFIXES, pairs.images)):
        shared = shared_name(id, pairs.mask_name)
        if shared is not None and masks.setdefault(shared, path) != path:
            raise DataError(
                f"{root}: two masks of {shared!r}: {masks[shared]} and {path}; keep one"
            )
    return masks


def paired(root: Path, pairs: PairSettings) -> list[tuple[str, str, str]]:
    """Return (id, image, mask) of every image: paths below `root`, mask "" if there is none.

    Each page of a stack is an image. Names are also alike if only their Unicode forms differ.
    Raises DataError when images and masks lie in one folder, and an image has several masks, such
    as x_mask and x_mask_1, and when a stack has a mask of another number of pages.
    """
    mask_of = masks_by_name(masks_below(root, pairs))
    found = []
    for id, image in images_below(root, pairs):
        name = shared_name(id, pairs.image_name) or ""
        found += each_page(root, id, image, name, mask_of)
    if in_one_folder(pairs) and pairs.mask_name != pairs.image_name:
        stems = {os.path.splitext(file_of(mask))[0] for _, _, mask in found if mask}
        several = [
            image
            for _, image, mask in found
            if not mask and continued(os.path.splitext(file_of(image))[0], stems)
        ]
        if several:
            raise DataError(several_masks(root, several))
    return found


def continued(name: str, names: Collection[str]) -> str | None:
    """Return which of `names` this name continues: x_mask for x_mask_1, x_mask2 or x_mask (2).

    x1 is not continued by x10, nor x_m by x_max. None if there is no such name.
    """
    for cut in range(len(name) - 1, 0, -1):
        number = name[cut - 1].isdigit() and name[cut].isdigit()
        if name[:cut] in names and not number and not name[cut].isalpha() and name[cut] != "/":
            return name[:cut]
    return None


def several_masks(root: Path, masks: Sequence[str]) -> str:
    """The message for images that have several masks, of which `masks` are not used."""
    return (
        f"{root}: {len(masks)} files look like further masks of an image: {first_of(masks, 3)}. "
        "Each image has one mask: join its masks (PIL.ImageChops.lighter joins two of 0 and 255), "
        "or move the files away if they are no masks"
    )


def name_cuts() -> list[str]:
    """Patterns of groups: a name up to its first, second, … `/`, `_`, `-` or space, or number."""
    part, mark = r"[^/_\- ]+", r"[/_\- ]"
    cuts = [f"^({f'{mark}+'.join([part] * parts)}){mark}" for parts in range(1, 7)]
    return [*cuts, r"^(.*?)\d+$"]


def _records(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    assert dataset.pairs is not None
    found = paired(root, dataset.pairs)
    return in_subsets(root, dataset.pairs, found, dataset.group_pattern)


def in_subsets(
    root: Path,
    pairs: PairSettings,
    found: Sequence[tuple[str, str, str]],
    pattern: str | None,
) -> Iterator[Record]:
    """Yield every image, given as (id, image, mask), that is in a subset.

    pattern: that of the groups. An image is left out if it is not held out itself, but another
    image of its group is. Raises DataError when a held-out id has no image, or a group is held out
    for both val and test.
    """
    held = {id: subset for subset in ("val", "test") for id in getattr(pairs, subset)}
    missing = held.keys() - {id for id, _, _ in found}
    if missing:
        raise DataError(
            f"pairs.{held[min(missing)]}: {min(missing)!r} is not an image below "
            f"{root / pairs.images} ({len(missing)} such ids)"
        )
    groups = groups_of([id for id, _, _ in found], pattern)
    sides: dict[str, str] = {}
    for id, subset in [(id, s) for s in ("val", "test") for id in getattr(pairs, s)]:
        if sides.setdefault(groups[id], subset) != subset:
            raise DataError(
                f"pairs: val and test both hold images of group {groups[id]!r}, "
                f"{id!r} among them; move all images of the group to one of the two"
            )
    for id, image, mask in found:
        subset = held.get(id, "")
        if subset or groups[id] not in sides:
            yield Record(id, image, mask, subset or "train")


LAYOUT = Layout(
    _records,
    folders=lambda dataset: dataset.pairs,
    left_out="in a group of which other images are held out for val or test",
)
