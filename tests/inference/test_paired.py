import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dst_cbc.inference.confusions import Confusions
from dst_cbc.inference.paired import (
    Difference,
    choose,
    describe,
    difference,
    interval,
    paired,
    resampling_groups,
)
from dst_cbc.runtime.errors import DataError

RIGHT, WRONG = np.diag([4, 4]), np.array([[0, 4], [4, 0]])
HALF = np.array([[2, 2], [2, 2]])


def made_up(seed, images, classes=3):
    """Matrices of two models on the same images, int64 (images, classes, classes)."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 9, (images, classes, classes)) for _ in range(2)]


seeds = st.integers(0, 1000)
few = settings(max_examples=20, deadline=None)


# --------------------------------------------------------------------------- the difference


def test_the_mean_is_the_difference_of_the_pooled_mious():
    # Pooled: 4 of 4 pixels and 2 of 4 of each class: IoU 6 / 10. Theirs: 2 of 4 and 2 of 4: 4 / 12.
    found = difference(np.stack([RIGHT, HALF]), np.stack([HALF, HALF]), [0, 1])
    assert found.mean == pytest.approx(100 * (6 / 10 - 4 / 12))
    assert (found.images, found.groups) == (2, 2)


def test_a_class_that_neither_truth_nor_prediction_has_does_not_count():
    wide = np.zeros((1, 3, 3), np.int64)
    wide[0, :2, :2] = RIGHT
    only_two = difference(np.stack([RIGHT] * 2), np.stack([HALF] * 2), [0, 1])
    three = difference(np.concatenate([wide] * 2), np.stack([np.pad(HALF, (0, 1))] * 2), [0, 1])
    assert three == only_two


def test_the_interval_is_students_about_the_error_of_leaving_each_group_out():
    # Pooled 8 / 16 against 1 / 3; without the first image 0; without one of the others 6 / 10.
    ours, theirs = np.stack([RIGHT, HALF, HALF]), np.stack([HALF] * 3)
    found = difference(ours, theirs, [0, 1, 2])
    mean, without = 100 * (1 / 2 - 1 / 3), 100 * np.array([0, 6 / 10 - 1 / 3, 6 / 10 - 1 / 3])
    error = math.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    expected = [mean, mean - 4.302653 * error, mean + 4.302653 * error]  # t of 2 degrees
    np.testing.assert_allclose([found.mean, found.low, found.high], expected, rtol=1e-6)
    # The distribution of 2 degrees of freedom is 1/2 + t / 2 sqrt(2 + t^2).
    t = mean / error
    assert found.above == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t**2)))


def test_a_model_that_is_better_by_the_same_in_each_group_is_surely_better():
    found = difference(np.stack([RIGHT] * 3), np.stack([HALF] * 3), [0, 1, 2])
    assert found.low == pytest.approx(found.mean) and found.above > 0.99999


@few
@given(seeds, st.integers(2, 6))
def test_a_model_does_not_differ_from_itself(seed, images):
    ours, _ = made_up(seed, images)
    found = difference(ours, ours, range(images))
    assert found == Difference(0, 0, 0, 0.5, images, images)


@few
@given(seeds, st.lists(st.integers(0, 3), min_size=2, max_size=8))
def test_exchanged_models_exchange_the_signs(seed, groups):
    ours, theirs = made_up(seed, len(groups))
    one, other = difference(ours, theirs, groups), difference(theirs, ours, groups)
    expected = [-one.mean, -one.high, -one.low, 1 - one.above]
    np.testing.assert_allclose([other.mean, other.low, other.high, other.above], expected)


@few
@given(seeds, st.permutations([0, 0, 1, 2, 2, 2, 3]), st.permutations(range(7)))
def test_the_order_of_the_images_changes_nothing(seed, groups, order):
    ours, theirs = made_up(seed, 7)
    moved = difference(ours[order], theirs[order], [groups[place] for place in order])
    assert moved == difference(ours, theirs, groups)


@few
@given(seeds, st.integers(2, 5))
def test_copies_of_images_in_their_groups_do_not_shrink_the_interval(seed, copies):
    ours, theirs = made_up(seed, 5)
    more = [np.repeat(one, copies, axis=0) for one in (ours, theirs)]
    once = difference(ours, theirs, range(5))
    grouped = difference(*more, np.repeat(range(5), copies).tolist())
    assert (grouped.low, grouped.high, grouped.above) == (once.low, once.high, once.above)
    alone = difference(*more, range(5 * copies))
    assert alone.high - alone.low < once.high - once.low


def test_the_images_of_one_group_are_left_out_together():
    """The groups are alike, so leaving one out changes nothing; the images are not."""
    ours, theirs = np.stack([WRONG, RIGHT, WRONG, RIGHT]), np.stack([WRONG] * 4)
    grouped = difference(ours, theirs, [0, 0, 1, 1])
    assert grouped.low == grouped.high == pytest.approx(100 / 3)
    alone = difference(ours, theirs, range(4))
    assert alone.low < 0 < 60 < alone.high


def test_one_group_has_no_interval():
    found = difference(np.stack([RIGHT] * 3), np.stack([HALF] * 3), [7, 7, 7])
    assert found.mean == pytest.approx(100 - 100 / 3) and found.groups == 1
    assert all(map(math.isnan, (found.low, found.high, found.above)))
    assert all(map(math.isnan, interval(np.stack([RIGHT] * 3), [7, 7, 7])))


def test_without_labeled_pixels_in_two_groups_nothing_is_known():
    nothing = np.zeros((3, 2, 2), np.int64)
    found = difference(nothing, nothing, range(3))
    assert all(map(math.isnan, (found.mean, found.low, found.high, found.above)))
    found = difference(*(np.stack([one, one * 0]) for one in (RIGHT, HALF)), [0, 1])
    assert found.mean == pytest.approx(100 - 100 / 3)
    assert all(map(math.isnan, (found.low, found.high, found.above)))


def test_seeds_are_averaged_and_share_the_draws():
    ours, theirs = (np.stack(one) for one in zip(made_up(0, 5), made_up(1, 5), strict=True))
    each = [difference(a, b, range(5)) for a, b in zip(ours, theirs, strict=True)]
    both = difference(ours, theirs, range(5))
    assert both.mean == pytest.approx(np.mean([one.mean for one in each]))
    assert (both.images, both.groups) == (5, 5)
    same = difference(np.stack([ours[0]] * 2), np.stack([theirs[0]] * 2), range(5))
    assert (same.low, same.high) == pytest.approx((each[0].low, each[0].high))


def test_the_interval_of_one_model_stays_within_0_and_100():
    low, high = interval(np.stack([RIGHT, WRONG]), [0, 1])
    assert (low, high) == (0, 100)
    many = np.stack([HALF] * 10 + [RIGHT] * 10)
    low, high = interval(many, [place % 10 for place in range(20)])
    assert low == high == pytest.approx(60)
    low, high = interval(many, range(20))
    assert 40 < low < 60 < high < 80


# --------------------------------------------------------------------------- groups


def test_a_pattern_names_the_groups():
    ids = ["b/2", "a/1", "b/1", "other"]
    assert resampling_groups(ids, ids, r"^(.+)/") == [0, 1, 0, 2]


def test_without_a_pattern_neighbouring_frames_are_cut_into_blocks():
    known = [f"clip_{number}.x" for number in range(1, 40)]
    # 9, 10 and 11 are neighbours, though not by their letters: a run of 3, so blocks of 2.
    ids = ["clip_11.x", "clip_10.x", "clip_9.x", "clip_30.x", "clip_28.x"]
    assert resampling_groups(ids, known, None) == [0, 1, 1, 2, 3]
    # Frames that were not recorded lie between no others.
    assert resampling_groups(ids[3:], ids, None) == [0, 0]


@pytest.mark.parametrize(
    "run, length", [(1, 1), (2, 2), (8, 2), (9, 3), (27, 3), (64, 4), (100, 5)]
)
def test_a_block_has_the_cube_root_of_its_run(run, length):
    ids = [f"frame{number:04}" for number in range(run)]
    expected = [place // length for place in range(run)]
    assert resampling_groups(ids, ids, None) == expected


def test_a_number_says_how_long_a_block_is():
    known = [f"frame{number:02}" for number in range(12)]
    assert resampling_groups(known, known, 5) == [0] * 5 + [1] * 5 + [2] * 2
    # Frame 4 is not among them, but known.
    assert resampling_groups([*known[:4], *known[5:8]], known, 5) == [0] * 4 + [1] * 3


def test_other_names_are_groups_of_their_own():
    ids = ["a", "a1", "a1x", "a1y", "b1", "c1", "2/a", "3/b"]
    assert resampling_groups(ids, ids, None) == [*range(8)]
    assert resampling_groups(["s1/7", "s2/8", "s2/9"], [], None) == [0, 1, 1]


# --------------------------------------------------------------------------- two evaluated models


def evaluated(*matrices, ids="abcdef"):
    return Confusions([*ids[: len(matrices)]], np.array(matrices))


def test_models_of_the_same_images_are_paired_by_the_groups_of_their_names():
    ours, theirs = evaluated(RIGHT, HALF, WRONG), evaluated(HALF, WRONG, RIGHT)
    expected = difference(ours.matrices, theirs.matrices, [0, 1, 2])
    assert paired(ours, theirs, ours.ids, None) == expected
    assert paired(ours, theirs, ours.ids, "^([ab]|c)").groups == 3


@pytest.mark.parametrize("ids, said", [("ad", "'b' is only in one"), ("ba", "order differs")])
def test_models_of_other_images_are_not_compared(ids, said):
    ours, theirs = evaluated(RIGHT, HALF), evaluated(RIGHT, HALF, ids=ids)
    for compare in (lambda: paired(ours, theirs, [], None), lambda: choose([ours, theirs])):
        with pytest.raises(DataError, match=r"confusions[.]csv") as refusal:
            compare()
        assert said in str(refusal.value)


def test_the_model_with_the_highest_paired_mean_is_chosen_and_the_first_of_equal_ones():
    low, high = evaluated(HALF, WRONG), evaluated(RIGHT, HALF)
    assert choose([low]) == 0
    assert choose([low, high, low, high]) == 1
    # Of images without a labeled pixel, nothing is known.
    assert choose([evaluated(WRONG * 0), evaluated(WRONG * 0)]) == 0


def test_a_difference_is_told_in_one_sentence():
    found = Difference(1.23, -0.44, 2.91, 0.914, 6, 5)
    said = "+1.2 points (95 % interval -0.4 to 2.9 over 6 images in 5 groups; 91 % sure)"
    assert describe(found) == said
    worse = Difference(-2.0, -4.0, -0.01, 0.004, 6, 6)
    assert "-2.0 points" in describe(worse) and "-4.0 to 0.0" in describe(worse)
    assert describe(worse).endswith("; over 99 % sure)")
    alone = Difference(1, math.nan, math.nan, math.nan, 1, 1)
    assert describe(alone) == "+1.0 points (no interval: 1 image in one group)"
    assert describe(Difference(math.nan, math.nan, math.nan, math.nan, 2, 2)).startswith("unknown")
