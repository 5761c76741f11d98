import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dst_cbc.data import splits
from dst_cbc.data.index import Row, write_index
from dst_cbc.data.splits import PUBLISHED, divide, labeled_count, published
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.files import sha256
from dst_cbc.settings.data import SplitRule, SplitStage
from workflow import REPOSITORY

REFERENCE = REPOSITORY.parent / "shared/reference"
TRAINING_IDS = {
    "voc": REFERENCE / "training-ids/voc2012-trainaug.txt",
    "cityscapes": REFERENCE / "training-ids/cityscapes-train.txt",
}
RATIOS = {"106": 105.82, "30": 29.75}
LISTS = {
    (format, *name.split("_")): digests
    for format, names in json.loads(PUBLISHED.read_text()).items()
    for name, digests in names.items()
}
MADE_UP = [f"{year}_{n:06}" for year in range(2007, 2012) for n in range(0, 1000, 7)]
EMPTY = sha256(b"")


def stage(seed=0, **rule):
    return SplitStage(rule=SplitRule(**rule), seed=seed)


def split(ids, stage, masks=None, root=Path()):
    """All ids have a mask unless `masks` says which."""
    return divide(ids, set(ids if masks is None else masks), stage, root)


def rule_of(ratio):
    return {"all": True} if ratio == "1" else {"divide": RATIOS.get(ratio, float(ratio))}


def sha256_of(ids):
    return sha256("".join(f"{id}\n" for id in ids).encode())


# The ids may not be distributed here; where they lie beside the repository, test all 60 lists.
if REFERENCE.is_dir():

    @pytest.mark.parametrize("format, ratio, seed", LISTS)
    def test_a_published_split_is_reproduced_to_the_byte_and_known(format, ratio, seed):
        ids = TRAINING_IDS[format].read_text().split()
        lists = split(ids, stage(int(seed), **rule_of(ratio)))
        expected = LISTS[format, ratio, seed]
        assert [sha256_of(ids) for ids in lists] == [expected["labeled"], expected["unlabeled"]]
        assert published(*lists) == f"{ratio}_{seed} of {format}"

    def test_the_digests_in_the_repository_are_the_published_ones():
        lists = json.loads((REFERENCE / "published-splits.json").read_text())
        known = {
            (format, f"{ratio}_{side}_{seed}.txt"): digest
            for (format, ratio, seed), digests in LISTS.items()
            for side, digest in digests.items()
            if digest != EMPTY
        }
        assert known == {
            (format, name): entry["sha256"]
            for format, data in (("voc", "voc2012"), ("cityscapes", "cityscapes"))
            for name, entry in lists[data].items()
            if "labeled" in name
        }


def test_the_digests_of_all_60_lists_are_in_the_repository():
    # For splits with every image labeled, the authors have no unlabeled list; it is empty here.
    digests = [digest for lists in LISTS.values() for digest in lists.values() if digest != EMPTY]
    assert len(set(digests)) == len(digests) == 60
    assert all(len(digest) == 64 for digest in digests)
    ratios = {"voc": "1 2 4 8 20 50 106", "cityscapes": "1 4 8 30"}
    assert set(LISTS) == {
        (format, ratio, str(seed))
        for format, names in ratios.items()
        for ratio in names.split()
        for seed in range(3)
    }


@pytest.mark.parametrize(
    "ratio, seed, count, labeled, unlabeled",
    [
        (
            "106", 0, 6, "b9088b02cba5e96d64fed8fd03d3b653a2f55e571d224f7f6e9c16ec86d4c4a6",
            "c9fdcfed37aa04851913e83b90ec4585af351459553b68598fae479bccd07b89",
        ),
        (
            "20", 1, 35, "04600a7abb9605ded093b27e33c61d111a21eb7ac73d9423329e6c9fd87b04dc",
            "c8dad25d05f0f28d2b7c8070d92ad7381fe40a505faad0c51ce2b860402bc0ff",
        ),
        (  # 715 / 8 is 89, which leaves one image over in batches of 8
            "8", 2, 90, "d3313aabc7adc26dda495f9837ddaac707b53d15b26057c5ddb944f6ffea6786",
            "03b40184b556dad876e507939e13892524757c74987304ada0f3a29d010af6f0",
        ),
        ("1", 1, 715, "30db301f9a129374f8752b41e429b092f79884853e4ac6284ad15091c5099c62", EMPTY),
    ],
)  # fmt: skip
def test_made_up_ids_are_divided_as_ever(ratio, seed, count, labeled, unlabeled):
    lists = split(MADE_UP[::-1], stage(seed, **rule_of(ratio)))
    assert (len(lists[0]), *map(sha256_of, lists)) == (count, labeled, unlabeled)


@pytest.fixture
def published_made_up(tmp_path, monkeypatch):
    """The lists of made-up ids at 1/20, seed 1, as if the authors had published them."""
    lists = split(MADE_UP, stage(1, divide=20))
    digests = dict(zip(("labeled", "unlabeled"), map(sha256_of, lists), strict=True))
    path = tmp_path / "published.json"
    path.write_text(json.dumps({"voc": {"8_0": {}, "20_1": digests}}))
    monkeypatch.setattr(splits, "PUBLISHED", path)
    return lists


def test_a_published_split_is_known_by_both_of_its_lists_in_order(published_made_up):
    labeled, unlabeled = published_made_up
    assert published(labeled, unlabeled) == "20_1 of voc"
    for others in (
        (labeled, unlabeled[:-1]),
        (labeled[::-1], unlabeled),
        ([*labeled, unlabeled[0]], unlabeled[1:]),
        (unlabeled, labeled),
        ([], []),
    ):
        assert published(*others) == ""


@pytest.mark.parametrize("imports", [False, True], ids=["divided", "imported"])
def test_the_log_says_that_a_split_is_identical_to_the_published_one(
    imports, published_made_up, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    rows = [Row(id, f"{id}.jpg", f"{id}.png", 1, 1, "train", "", "") for id in MADE_UP]
    write_index(tmp_path / "dataset.csv", rows)
    rule = {"divide": 20}
    if imports:
        rule = {"files": {side: f"{side}.txt" for side in ("labeled", "unlabeled")}}
        for side, ids in zip(rule["files"].values(), published_made_up, strict=True):
            Path(side).write_text("\n".join(ids))

    def say(seed):
        settings = stage(seed, **rule).canonical()
        arguments = ["--settings", settings, "--index", "dataset.csv"]
        arguments += ["--labeled", "out/labeled.txt", "--unlabeled", "out/unlabeled.txt"]
        monkeypatch.setattr(sys, "argv", ["split.py", *arguments])
        runpy.run_path(str(REPOSITORY / "scripts/split.py"))["run"]()
        return capsys.readouterr().out

    first = "35 labeled, 680 unlabeled images\n"
    assert say(1) == first + "identical to the published split 20_1 of voc\n"
    if not imports:
        assert say(0) == first


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


TWO_DRIVES = [f"{drive}{frame}" for drive in ("north", "south") for frame in range(8)]


@given(st.sets(st.sampled_from(TWO_DRIVES), min_size=1), st.integers(0, 3), st.integers(1, 8))
def test_labeled_images_are_drawn_among_those_that_a_pattern_fits(masks, seed, count):
    """In the order of the seed, so that the labels do not depend on the unlabeled images."""
    order, _ = split(TWO_DRIVES, stage(seed, all=True))
    north = [id for id in order if id in masks and "north" in id]
    if len(north) < count:
        said = f"{count} labeled images asked for, but {len(north)} have a mask and fit among: ^n"
        with pytest.raises(DataError, match=re.escape(said)):
            split(TWO_DRIVES, stage(seed, count=count, among="^n"), masks)
        return
    labeled = north[:count]
    rest = [id for id in order if id not in labeled]
    for unlabeled, expected in (
        (None, rest),
        ("south", [id for id in rest if "south" in id]),
        ("[0-3]$", [id for id in rest if id[-1] in "0123"]),
    ):
        rule = stage(seed, count=count, among="^n", unlabeled=unlabeled)
        assert split(TWO_DRIVES, rule, masks) == (labeled, expected)


def test_a_share_and_all_are_of_the_images_that_a_pattern_fits():
    # Of 8 frames of the north, a quarter; in batches of 8, no image is left over.
    labeled, _ = split(TWO_DRIVES, stage(divide=4, among="north"))
    assert len(labeled) == 2 and "south" not in "".join(labeled)
    labeled, unlabeled = split(TWO_DRIVES, stage(all=True, among="north"))
    assert sorted(labeled) == TWO_DRIVES[:8] and sorted(unlabeled) == TWO_DRIVES[8:]


def test_a_pattern_that_leaves_no_unlabeled_image_is_refused():
    with pytest.raises(DataError, match="unlabeled: 'east' fits none of the 14 training images"):
        split(TWO_DRIVES, stage(count=2, unlabeled="east"))


@pytest.mark.parametrize("key", ["among", "unlabeled"])
@pytest.mark.parametrize(
    "rule", [{"files": {"labeled": "l.txt", "unlabeled": "u.txt"}}, {"folds": 2}]
)
def test_lists_and_folds_are_not_narrowed(key, rule):
    with pytest.raises(ValidationError, match=f"{key}: not allowed with files"):
        SplitRule(**rule, **{key: "a"})


def test_a_rule_without_patterns_has_the_settings_of_earlier_versions():
    assert not {"among", "unlabeled"} & json.loads(stage(count=3).canonical())["rule"].keys()
    assert json.loads(stage(count=3, among="a").canonical())["rule"]["among"] == "a"


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


@given(
    st.sets(st.text("abc/_0", min_size=1, max_size=4), min_size=3),
    st.integers(0, 3),
    st.lists(st.floats(1.01, 40), min_size=2, max_size=4),
)
def test_divisions_of_one_seed_are_nested_disjoint_and_complete(ids, seed, ratios):
    inner = []
    for ratio in sorted(ratios, reverse=True):
        labeled, unlabeled = split(ids, stage(seed, divide=ratio))
        assert labeled[: len(inner)] == inner
        assert not set(labeled) & set(unlabeled)
        assert sorted([*labeled, *unlabeled]) == sorted(ids)
        inner = labeled


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
    """Function that imports two lists as a split of the ids a, b, c, d; d has no mask."""

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
        ("a\nx\ny\n", "b", r"l\.txt: 'x' is not a training image \(2 such ids\)"),
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
