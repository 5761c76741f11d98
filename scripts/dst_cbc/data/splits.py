"""Divides the training images into labeled and unlabeled ones, as the authors' lists do."""

import json
import random
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from ..runtime import checksums
from ..runtime.errors import DataError
from ..runtime.files import sha256
from ..runtime.reading import read_ids
from ..settings.data import SplitFiles, SplitRule, SplitStage
from .folds import divide_by_folds
from .groups import fitting

SHUFFLE_SEED = 7777
"""Seed of the authors' published lists: one generator, which shuffles again for each split seed."""

PUBLISHED = Path(__file__).with_name("published_splits.json")
"""For each format and `<split>_<seed>`: SHA-256 of the authors' two lists, one id a line.

Where the authors have no list of unlabeled ids, it is the SHA-256 of an empty file.
"""


MOST_SHUFFLED = 2 * 10**7
"""Most ids that are shuffled, or listed in splits, for one study: some seconds of work."""


def shuffled(ids: Sequence[str], seeds: Collection[int]) -> dict[int, list[str]]:
    """Return for each seed the sorted ids after `seed + 1` shuffles by one generator.

    Raises DataError when that is too much work.
    """
    order, last = sorted(ids), max(seeds, default=-1)
    if max(last + 1, len(seeds)) * len(order) > MOST_SHUFFLED:
        raise DataError(
            f"runs: seeds: found {len(seeds):,} seeds up to {last}; a split is made by seed + 1 "
            f"shuffles of {len(order):,} training images. Choose at most "
            f"{MOST_SHUFFLED // len(order):,} seeds, all of them below that number"
        )
    generator, orders = random.Random(SHUFFLE_SEED), {}
    for seed in range(last + 1):
        generator.shuffle(order)
        if seed in seeds:
            orders[seed] = list(order)
    return orders


def divide(
    ids: Sequence[str],
    with_mask: Collection[str],
    stage: SplitStage,
    root: Path = Path(),
    order: Sequence[str] | None = None,
) -> tuple[list[str], list[str]]:
    """Return the labeled and the unlabeled ids.

    order: what `shuffled` returns for `stage.seed`, if it is known. The first ids in this order
    that have a mask are labeled, so a smaller split lies inside a larger one of the same seed.
    Paths of a `files` rule are relative to `root`. Raises DataError when there are fewer masks than
    the rule asks for, or its `unlabeled` fits none of the images that are left. For imported lists,
    it raises DataError when a list is missing or repeats an id, an id is not a training image, a
    labeled id has no mask, or an id is in both lists.
    """
    if stage.rule.files is not None:
        return _imported(ids, with_mask, stage.rule.files, root)
    if order is None:
        order = shuffled(ids, [stage.seed])[stage.seed]
    if stage.rule.folds:
        return divide_by_folds(order, with_mask, stage)
    rule = stage.rule
    among = fitting(order, rule.among, "splits: among")
    masked = [id for id in order if id in with_mask and id in among]
    count = labeled_count(rule, len(among), len(masked))
    if count > len(masked):
        fit = f" and fit among: {rule.among}" if rule.among else ""
        raise DataError(
            f"splits: {count} labeled images asked for, but {len(masked)} have a mask{fit}"
        )
    labeled = masked[:count]
    left = fitting(order, rule.unlabeled, "splits: unlabeled").difference(labeled)
    if rule.unlabeled and not left:
        raise DataError(
            f"splits: unlabeled: {rule.unlabeled!r} fits none of the {len(order) - count} training "
            "images that are not labeled; correct the pattern, or remove it"
        )
    return labeled, [id for id in order if id in left]


def labeled_count(rule: SplitRule, images: int, masks: int) -> int:
    """Return the number of labeled images for the rules `count`, `divide` and `all`.

    `divide` adds one image where the last batch of 8 would hold a single image, as the released
    code does: batch normalisation cannot train on one image.
    """
    if rule.all:
        return masks
    if rule.count is not None:
        return rule.count
    assert rule.divide is not None
    count = int(images / rule.divide)
    return count + (count % 8 == 1)


def published(labeled: Iterable[str], unlabeled: Iterable[str]) -> str:
    """Name the authors' split that has exactly these lists, e.g. `106_0 of voc`; else ""."""
    digests = {
        side: sha256("".join(f"{id}\n" for id in ids).encode())
        for side, ids in (("labeled", labeled), ("unlabeled", unlabeled))
    }
    for format, splits in json.loads(PUBLISHED.read_text()).items():
        for name, expected in splits.items():
            if expected == digests:
                return f"{name} of {format}"
    return ""


def _imported(
    ids: Sequence[str], with_mask: Collection[str], files: SplitFiles, root: Path
) -> tuple[list[str], list[str]]:
    known = set(ids)
    lists = []
    for name, needed, what in (
        (files.labeled, with_mask, "has no mask"),
        (files.unlabeled, known, "is not a training image"),
    ):
        path = root / name
        if not path.is_file():
            raise DataError(f"{path}: no such file; a split names it under `files`")
        listed = read_ids(path)
        checksums.sha256_of(path)
        faulty = [(id, "is not a training image") for id in listed if id not in known]
        faulty += [(id, what) for id in listed if id in known and id not in needed]
        if faulty:
            raise DataError(f"{path}: {faulty[0][0]!r} {faulty[0][1]} ({len(faulty)} such ids)")
        if len(set(listed)) != len(listed):
            raise DataError(f"{path}: an id occurs twice")
        lists.append(listed)
    labeled, unlabeled = lists
    both = set(labeled) & set(unlabeled)
    if both:
        raise DataError(f"{root / files.labeled}: {min(both)!r} is also listed as unlabeled")
    return labeled, unlabeled
