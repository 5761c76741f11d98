import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dst_cbc.files import DataError, sha256
from dst_cbc.settings import SplitRule, SplitStage
from dst_cbc.splits import divide, labeled_count

REFERENCE = Path(__file__).parents[2] / "shared/reference"
TRAINING_IDS = {
    "voc2012": REFERENCE / "training-ids/voc2012-trainaug.txt",
    "cityscapes": REFERENCE / "training-ids/cityscapes-train.txt",
}
RATIOS = {"106": 105.82, "30": 29.75}


def stage(seed=0, **rule):
    return SplitStage(rule=SplitRule(**rule), seed=seed)


def split(ids, stage, masks=None, root=Path()):
    """All ids have a mask unless `masks` says which."""
    return divide(ids, set(ids if masks is None else masks), stage, root)


def published_lists():
    path = REFERENCE / "published-splits.json"
    if not path.is_file():
        return [pytest.param("", "", "", {}, marks=pytest.mark.skip(f"{path} is not here"))]
    return [
        (data, *name.removesuffix(".txt").rsplit("_", 1), entry)
        for data, lists in json.loads(path.read_text()).items()
        for name, entry in lists.items()
        if "abeled" in name
    ]


@pytest.mark.parametrize("data, kind, seed, entry", published_lists())
def test_a_published_list_is_reproduced_to_the_byte(data, kind, seed, entry):
    ids = TRAINING_IDS[data].read_text().split()
    ratio, side = kind.split("_")
    rule = {"all": True} if ratio == "1" else {"divide": RATIOS.get(ratio, float(ratio))}
    labeled, unlabeled = split(ids, stage(int(seed), **rule))
    found = labeled if side == "labeled" else unlabeled
    assert len(found) == entry["count"]
    assert sha256("".join(f"{id}\n" for id in found).encode()) == entry["sha256"]


@pytest.mark.parametrize(
    "images, divide_by, count",
    [(530, 20, 26), (100, 5, 20), (99, 11, 10), (17, 1.01, 16), (18, 1.01, 18), (8, 5, 2)],
)
def test_one_is_added_when_a_single_image_would_be_left_over_in_batches_of_8(
    images, divide_by, count
):
    assert labeled_count(SplitRule(divide=divide_by), images, images) == count


def test_a_count_is_taken_as_it_is():
    assert labeled_count(SplitRule(count=9), 20, 20) == 9
    assert labeled_count(SplitRule(all=True), 17, 17) == 17


def test_more_labels_than_masks_are_refused():
    with pytest.raises(DataError, match="4 labeled images asked for, but 3 have a mask"):
        split("abcde", stage(count=4), masks="ace")


@given(st.sets(st.integers(0, 19), min_size=5), st.integers(0, 3))
def test_images_without_a_mask_are_unlabeled_and_the_order_is_kept(masked, seed):
    ids = [f"id{i}" for i in range(20)]
    masks = [f"id{i}" for i in masked]
    order, _ = split(ids, stage(seed, count=20))
    labeled, unlabeled = split(ids, stage(seed, count=5), masks)
    assert labeled == [id for id in order if id in masks][:5]
    assert unlabeled == [id for id in order if id not in labeled]


def test_all_labels_what_has_a_mask():
    labeled, unlabeled = split("abcd", stage(all=True), masks="ad")
    assert (sorted(labeled), sorted(unlabeled)) == (["a", "d"], ["b", "c"])


@given(st.integers(0, 4), st.integers(1, 30), st.integers(0, 30))
def test_every_id_is_on_exactly_one_side(seed, count, more):
    ids = [f"id{i}" for i in range(count + more)]
    labeled, unlabeled = split(ids, stage(seed, count=count))
    assert len(labeled) == count
    assert sorted([*labeled, *unlabeled]) == sorted(ids)


@given(st.integers(0, 3), st.integers(1, 20), st.integers(0, 20))
def test_a_smaller_split_lies_inside_a_larger_one(seed, small, more):
    ids = [f"id{i}" for i in range(40)]
    inner, _ = split(ids, stage(seed, count=small))
    outer, _ = split(ids, stage(seed, count=small + more))
    assert outer[:small] == inner


@given(st.permutations([f"id{i}" for i in range(12)]), st.integers(0, 3))
def test_the_order_of_the_files_decides_nothing(ids, seed):
    assert split(ids, stage(seed, count=5)) == split(sorted(ids), stage(seed, count=5))


def test_each_seed_has_another_order():
    ids = [f"id{i}" for i in range(40)]
    assert len({tuple(split(ids, stage(seed, count=20))[0]) for seed in range(5)}) == 5


def test_the_split_of_everything_leaves_nothing_unlabeled():
    labeled, unlabeled = split(["b", "a", "c"], stage(all=True))
    assert sorted(labeled) == ["a", "b", "c"] and unlabeled == []


@pytest.fixture
def imported(tmp_path):
    """Function: the split of two written lists among the ids a, b, c, d; d has no mask."""

    def from_files(labeled, unlabeled):
        (tmp_path / "l.txt").write_text(labeled)
        (tmp_path / "u.txt").write_text(unlabeled)
        rule = {"files": {"labeled": "l.txt", "unlabeled": "u.txt"}}
        return split("abcd", stage(3, **rule), "abc", tmp_path)

    return from_files


def test_imported_lists_are_taken_in_their_order_whatever_the_seed(imported):
    assert imported("c\na\n", "d") == (["c", "a"], ["d"])


@pytest.mark.parametrize(
    "labeled, unlabeled, reason",
    [
        ("a\nx\ny\n", "b", r"l\.txt: 'x' is no training image \(2 such ids\)"),
        ("a\nd\n", "b", r"l\.txt: 'd' has no mask \(1 such ids\)"),
        ("a\n", "b\nb\n", r"u\.txt: an id occurs twice"),
        ("a\nb\n", "c\nb\n", r"l\.txt: 'b' is also listed as unlabeled"),
    ],
)
def test_imported_lists_that_cannot_be_meant_are_refused(labeled, unlabeled, reason, imported):
    with pytest.raises(DataError, match=reason):
        imported(labeled, unlabeled)


def test_a_missing_list_is_named(tmp_path):
    rule = {"files": {"labeled": "l.txt", "unlabeled": "u.txt"}}
    with pytest.raises(DataError, match=r"l\.txt: no such file"):
        split(["a"], stage(**rule), root=tmp_path)


@pytest.mark.parametrize("rule", [{}, {"count": 3, "divide": 2}, {"all": True, "count": 1}])
def test_a_rule_has_exactly_one_key(rule):
    with pytest.raises(ValidationError, match="exactly one of count, divide, all, files"):
        SplitRule(**rule)


@pytest.mark.parametrize("rule", [{"divide": 1}, {"count": 0}, {"all": False}])
def test_a_rule_that_divides_nothing_is_refused(rule):
    with pytest.raises(ValidationError):
        SplitRule(**rule)
