"""Divides the masks into folds, so that each of them is used for validation once."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from ..runtime.errors import DataError
from ..settings.data import SplitStage
from .groups import groups_of


def folds(order: Sequence[str], with_mask: Collection[str], stage: SplitStage) -> list[list[str]]:
    """Return the ids with a mask of each fold, in the given order; their sizes differ little.

    order: ids of all training images, as `splits.shuffled` returns them. All images of a group are
    in one fold. Raises DataError if there are fewer groups with masks than folds.
    """
    groups = groups_of(order, stage.group)
    members = defaultdict(list)
    for id in order:
        if id in with_mask:
            members[groups[id]].append(id)
    count = stage.rule.folds or 1
    if len(members) < count:
        raise DataError(
            f"splits: folds: found {count}, but the masks are of {len(members)} groups, which stay "
            "whole; lower folds, mask images of other groups, or see `group` and `pairs.group`"
        )
    found: list[list[str]] = [[] for _ in range(count)]
    # A large group that came last would leave one fold much larger than the others.
    for ids in sorted(members.values(), key=len, reverse=True):
        min(found, key=len).extend(ids)
    return found


def divide_by_folds(
    order: Sequence[str], with_mask: Collection[str], stage: SplitStage
) -> tuple[list[str], list[str]]:
    """Return the labeled and the unlabeled ids of the fold `stage.fold`, or of no fold.

    An image of a group that is held out in the fold is in neither list. Raises DataError as
    `folds`.
    """
    held = folds(order, with_mask, stage)[stage.fold - 1] if stage.fold else []
    groups = groups_of(order, stage.group)
    out = {groups[id] for id in held}
    left = [id for id in order if groups[id] not in out]
    return [id for id in left if id in with_mask], [id for id in left if id not in with_mask]
