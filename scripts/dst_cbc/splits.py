"""Which training images are labeled: the rule of the published lists."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from .files import DataError, read_ids
from .settings import SplitRule, SplitStage

SHUFFLE_SEED = 7777
"""Seed of the lists that the authors published: one generator, shuffled again per split."""


def divide(
    ids: Sequence[str], stage: SplitStage, root: Path = Path()
) -> tuple[list[str], list[str]]:
    """Labeled and unlabeled ids.

    The sorted ids are shuffled `stage.seed + 1` times by one generator; labeled is a prefix of
    that order, so smaller splits of one seed lie inside larger ones. `root` is where the paths
    of a `files` rule start. Raises DataError for an imported list that is missing, repeats an
    id, names an image that is not a training image, or labels one that it also leaves unlabeled.
    """
    if stage.rule.files is not None:
        return _imported(ids, stage.rule, root)
    order = sorted(ids)
    generator = random.Random(SHUFFLE_SEED)
    for _ in range(stage.seed + 1):
        generator.shuffle(order)
    count = labeled_count(stage.rule, len(order))
    return order[:count], order[count:]


def labeled_count(rule: SplitRule, images: int) -> int:
    """Number of labeled images of `count`, `divide` or `all` among `images`.

    `divide` adds one when a single image would be left over in batches of 8, as the released
    code did: batch normalisation cannot train on one.
    """
    if rule.all:
        return images
    if rule.count is not None:
        if rule.count > images:
            raise DataError(f"splits: count {rule.count}, but there are {images} training images")
        return rule.count
    count = int(images / rule.divide)
    return count + (count % 8 == 1)


def _imported(ids: Sequence[str], rule: SplitRule, root: Path) -> tuple[list[str], list[str]]:
    known = set(ids)
    lists = []
    for name in (rule.files.labeled, rule.files.unlabeled):
        path = root / name
        if not path.is_file():
            raise DataError(f"{path}: no such file; it is a list of a split's `files`")
        listed = read_ids(path)
        unknown = [id for id in listed if id not in known]
        if unknown:
            raise DataError(
                f"{path}: {unknown[0]!r} is no training image ({len(unknown)} such ids)"
            )
        if len(set(listed)) != len(listed):
            raise DataError(f"{path}: an id occurs twice")
        lists.append(listed)
    labeled, unlabeled = lists
    both = set(labeled) & set(unlabeled)
    if both:
        raise DataError(f"{root / rule.files.labeled}: {min(both)!r} is also listed as unlabeled")
    return labeled, unlabeled
