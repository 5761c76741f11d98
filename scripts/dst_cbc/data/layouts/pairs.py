"""A folder of images and a folder of masks, used in place: their pairs and their subsets.

A mask has the name of its image, or a name made by a pattern such as `{}_mask`. All images of one
group (a slide, a video, a patient) are in the same subset.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from ...runtime.errors import DataError
from ...runtime.signals import time_limit
from ...settings.data import DatasetStage, PairSettings
from .layout import IMAGE_SUFFIXES, MASK_SUFFIXES, Layout, Record, files_below

LEAST_SECONDS, SEARCH_SECONDS = 1.0, 50e-6
"""Time that the search for groups may take in any case, and more for each image: some 50 times
what it takes."""


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
    return folder + slash + name[len(before) : len(name) - len(after)]


def images_below(root: Path, pairs: PairSettings) -> list[tuple[str, str]]:
    """Return id and path below `root` of each image, sorted; masks in the folder are left out.

    Raises DataError when one of the folders is missing.
    """
    for folder in (pairs.images, pairs.labels):
        if not (root / folder).is_dir():
            raise DataError(f"{root / folder}: no such folder; `pairs` names it, below `data`")
    found = sorted(files_below(root, pairs.images, IMAGE_SUFFIXES))
    if PurePosixPath(pairs.images) == PurePosixPath(pairs.labels):
        alike = pairs.mask_name == pairs.image_name
        return found if alike else [f for f in found if shared_name(f[0], pairs.mask_name) is None]
    return _without(found, pairs.labels, pairs.images)


def masks_below(root: Path, pairs: PairSettings) -> dict[str, str]:
    """Return the path below `root` of each mask, by the name that it shares with its image.

    Raises DataError when two files could be the mask of one image.
    """
    masks: dict[str, str] = {}
    for id, path in _without(
        sorted(files_below(root, pairs.labels, MASK_SUFFIXES)), pairs.images, pairs.labels
    ):
        shared = shared_name(id, pairs.mask_name)
        if shared is not None and masks.setdefault(shared, path) != path:
            raise DataError(
                f"{root}: two masks of {shared!r}: {masks[shared]} and {path}; keep one"
            )
    return masks


def _without(found: list[tuple[str, str]], other: str, own: str) -> list[tuple[str, str]]:
    """Leave out the files of the folder `other`, if it lies inside the folder `own`."""
    inside, around = PurePosixPath(other), PurePosixPath(own)
    if inside == around or not inside.is_relative_to(around):
        return found
    return [f for f in found if not PurePosixPath(f[1]).is_relative_to(inside)]


def paired(root: Path, pairs: PairSettings) -> list[tuple[str, str, str]]:
    """Return (id, image, mask) of every image: paths below `root`, mask "" if there is none."""
    masks = masks_below(root, pairs)
    return [
        (id, image, masks.get(shared_name(id, pairs.image_name) or "", ""))
        for id, image in images_below(root, pairs)
    ]


def groups_of(ids: Collection[str], pattern: str | None) -> dict[str, str]:
    """Return the group of each image; its own id if the pattern is None or does not match.

    Raises DataError when the search takes much longer than searches do: for some patterns, such as
    `(a+)+$`, the time doubles with each character of an id. Call it in the main thread.
    """
    if pattern is None:
        return {id: id for id in ids}
    matches = {}
    with time_limit(
        LEAST_SECONDS + len(ids) * SEARCH_SECONDS, f"pairs.group: the search for {pattern!r}"
    ):
        for id in ids:
            match = re.search(pattern, id)
            matches[id] = match[1] or id if match else id
    return matches


def _records(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    """Yield every image that is in a subset.

    An image is left out if it is not held out itself, but another image of its group is. Raises
    DataError when a held-out id has no image, or a group is held out for both val and test.
    """
    pairs = dataset.pairs
    assert pairs is not None
    found = paired(root, pairs)
    held = {id: subset for subset in ("val", "test") for id in getattr(pairs, subset)}
    missing = held.keys() - {id for id, _, _ in found}
    if missing:
        raise DataError(
            f"pairs.{held[min(missing)]}: {min(missing)!r} is not an image below "
            f"{root / pairs.images} ({len(missing)} such ids)"
        )
    groups = groups_of([id for id, _, _ in found], pairs.group)
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


LAYOUT = Layout(_records)
