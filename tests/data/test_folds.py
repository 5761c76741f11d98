from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dst_cbc.data.folds import folds
from dst_cbc.data.splits import divide
from dst_cbc.runtime.errors import DataError
from dst_cbc.settings.data import SplitRule, SplitStage

IDS = [f"slide{slide}/{image}" for slide in "abcd" for image in range(5)]
BY_SLIDE = r"^(slide.)/"


def stage(count=3, fold=None, group=None, seed=0):
    return SplitStage(rule=SplitRule(folds=count), seed=seed, fold=fold, group=group)


def split(masks, stage):
    return divide(IDS, masks, stage)


@given(
    st.sets(st.sampled_from(IDS), min_size=4), st.integers(2, 4), st.integers(0, 3), st.booleans()
)
def test_each_mask_is_held_out_once_and_never_trained_on_in_its_fold(masks, count, seed, grouped):
    group = BY_SLIDE if grouped else None
    if grouped and len({id[:6] for id in masks}) < count:
        with pytest.raises(DataError, match=f"folds: found {count}, but the masks are of"):
            folds(IDS, masks, stage(count, group=group))
        return
    orders = divide(IDS, IDS, stage(count, seed=seed))[0]
    held = folds(orders, masks, stage(count, group=group))
    assert Counter(id for fold in held for id in fold) == Counter(masks)
    for number, ids in enumerate(held, 1):
        labeled, unlabeled = split(masks, stage(count, number, group, seed))
        assert {*labeled} == masks - {*ids} and not {*ids} & {*unlabeled}
        assert not {*unlabeled} & masks
        if grouped:
            seen = {id[:6] for id in (*labeled, *unlabeled)}
            assert not seen & {id[:6] for id in ids}
        else:
            assert {*labeled, *unlabeled, *ids} == {*IDS}


@given(st.sets(st.sampled_from(IDS), min_size=4), st.integers(2, 4))
def test_without_groups_the_sizes_of_folds_differ_by_one_at_most(masks, count):
    sizes = [len(fold) for fold in folds(IDS, masks, stage(count))]
    assert max(sizes) - min(sizes) <= 1


def test_a_number_keeps_blocks_of_so_many_images_whole():
    """Blocks of 3: images 0 to 2 and 3 and 4 of each slide, with and without a mask."""
    masks = {"slidea/0", "slidea/2", "slidea/3"}
    held = folds(IDS, masks, stage(2, group=3))
    assert held == [["slidea/0", "slidea/2"], ["slidea/3"]]
    labeled, unlabeled = split(masks, stage(2, 1, 3))
    assert labeled == ["slidea/3"] and {*unlabeled} == {*IDS[4:]}


def test_large_groups_are_placed_first():
    masks = {"slidea/0", "slideb/0", "slidec/0", *IDS[15:]}
    held = folds(IDS, masks, stage(2, group=BY_SLIDE))
    assert sorted(map(len, held)) == [3, 5]


def test_outside_of_folds_every_mask_is_labeled():
    labeled, unlabeled = split({"slidea/0", "slideb/3"}, stage(2))
    assert {*labeled} == {"slidea/0", "slideb/3"} and len(unlabeled) == 18


def test_another_seed_makes_other_folds():
    orders = [divide(IDS, IDS, stage(seed=seed))[0] for seed in (0, 1)]
    first, second = ([{*fold} for fold in folds(order, {*IDS}, stage())] for order in orders)
    assert first != second
