"""A folder of images and one of masks, used where they are: which belong together, and their side.

A mask may be called as its image is, or by a pattern such as `{}_mask`. Images of one group
(a slide, a video, a patient) never fall on two sides of the split.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ...runtime.files import DataError
from ...settings.data import DatasetStage, PairSettings
from .layout import IMAGE_SUFFIXES, MASK_SUFFIXES, Layout, Record, files_below


def shared_name(id: str, pattern: str) -> str | None:
    """What stands for `{}` of the pattern in the last part of an id, its folders before it.

    None where the name is not of that pattern.
    """
    path = PurePosixPath(id)
    before, after = pattern.split("{}")
    name = path.name
    if len(name) <= len(before) + len(after) or not (
        name.startswith(before) and name.endswith(after)
    ):
        return None
    return (path.parent / name[len(before) : len(name) - len(after)]).as_posix()


def images_below(root: Path, pairs: PairSettings) -> list[tuple[str, str]]:
    """Id and path below `root` of each image, sorted; masks among them are none.

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
    """Path below `root` of each mask, by what it shares with its image.

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
    """Files without those of the other folder, where that lies inside of their own."""
    inside, around = PurePosixPath(other), PurePosixPath(own)
    if inside == around or not inside.is_relative_to(around):
        return found
    return [f for f in found if not PurePosixPath(f[1]).is_relative_to(inside)]


def paired(root: Path, pairs: PairSettings) -> list[tuple[str, str, str]]:
    """(id, image, mask) of every image, paths below `root`, mask "" where there is none."""
    masks = masks_below(root, pairs)
    return [
        (id, image, masks.get(shared_name(id, pairs.image_name) or "", ""))
        for id, image in images_below(root, pairs)
    ]


def group_of(id: str, pattern: str | None) -> str:
    """The group of an image; its own id where it is of none."""
    match = re.search(pattern, id) if pattern else None
    return match[1] or id if match else id


def _records(root: Path, dataset: DatasetStage) -> Iterator[Record]:
    """Every image that has a side.

    An image that is not held out, but of a group of which another is, is left out. Raises
    DataError when an id that is held out is no image, or a group is held out for val and test.
    """
    pairs = dataset.pairs
    assert pairs is not None
    found = paired(root, pairs)
    held = {id: subset for subset in ("val", "test") for id in getattr(pairs, subset)}
    missing = held.keys() - {id for id, _, _ in found}
    if missing:
        raise DataError(
            f"pairs.{held[min(missing)]}: {min(missing)!r} is no image below "
            f"{root / pairs.images} ({len(missing)} such ids)"
        )
    sides: dict[str, str] = {}
    for id, subset in [(id, s) for s in ("val", "test") for id in getattr(pairs, s)]:
        if sides.setdefault(group_of(id, pairs.group), subset) != subset:
            raise DataError(
                f"pairs: val and test both hold images of group {group_of(id, pairs.group)!r}, "
                f"{id!r} among them; move all of the group to one of them"
            )
    for id, image, mask in found:
        subset = held.get(id, "")
        if subset or group_of(id, pairs.group) not in sides:
            yield Record(id, image, mask, subset or "train")


LAYOUT = Layout(_records)
