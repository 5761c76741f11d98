"""Which training images are labeled: the rule of the published lists."""

import json
import random
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from ..runtime.files import DataError, read_ids, sha256
from ..settings.data import SplitFiles, SplitRule, SplitStage

SHUFFLE_SEED = 7777
"""Seed of the lists that the authors published: one generator, shuffled again per split."""

PUBLISHED = Path(__file__).with_name("published_splits.json")
"""Format: split and seed: SHA-256 of the authors' lists, ids one a line; an empty one for none."""


def divide(
    ids: Sequence[str], with_mask: Collection[str], stage: SplitStage, root: Path = Path()
) -> tuple[list[str], list[str]]:
    """Labeled and unlabeled ids.

    The sorted ids are shuffled `stage.seed + 1` times by one generator; labeled are the first in
    that order that have a mask, so smaller splits of one seed lie inside larger ones. `root` is
    where the paths of a `files` rule start. Raises DataError when there are fewer masks than the
    rule asks for, and for an imported list that is missing, repeats an id, names an image that
    is not a training image, labels one that it also leaves unlabeled, or one without a mask.
    """
    if stage.rule.files is not None:
        return _imported(ids, with_mask, stage.rule.files, root)
    order = sorted(ids)
    generator = random.Random(SHUFFLE_SEED)
    for _ in range(stage.seed + 1):
        generator.shuffle(order)
    masked = [id for id in order if id in with_mask]
    count = labeled_count(stage.rule, len(order), len(masked))
    if count > len(masked):
        raise DataError(f"splits: {count} labeled images asked for, but {len(masked)} have a mask")
    labeled = masked[:count]
    chosen = set(labeled)
    return labeled, [id for id in order if id not in chosen]


def labeled_count(rule: SplitRule, images: int, masks: int) -> int:
    """Number of labeled images of `count`, `divide` or `all`.

    `divide` adds one when a single image would be left over in batches of 8, as the released
    code did: batch normalisation cannot train on one.
    """
    if rule.all:
        return masks
    if rule.count is not None:
        return rule.count
    assert rule.divide is not None
    count = int(images / rule.divide)
    return count + (count % 8 == 1)


def published(labeled: Iterable[str], unlabeled: Iterable[str]) -> str:
    """The authors' split whose lists these are to the byte, e.g. `106_0 of voc`; "" if none."""
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
        (files.unlabeled, known, "is no training image"),
    ):
        path = root / name
        if not path.is_file():
            raise DataError(f"{path}: no such file; it is a list of a split's `files`")
        listed = read_ids(path)
        faulty = [(id, "is no training image") for id in listed if id not in known]
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
