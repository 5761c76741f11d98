"""The key `subsets` holds images out by their ids, in every format."""

import pytest
from pydantic import ValidationError

from dst_cbc.data.account import account
from dst_cbc.data.records import dataset_stage, list_records
from dst_cbc.runtime.errors import DataError

FRAMES = [f"{drive}_{frame:03}" for drive in ("north", "south") for frame in range(0, 60, 10)]
"""Frames 0, 10, … 50 of two drives."""


@pytest.fixture
def listed(tmp_path, make_experiment):
    """Function that returns the ids of each subset of `FRAMES`, with some keys of an experiment."""
    # As published, all frames but two are train.
    for subset, ids in (("train", FRAMES[2:]), ("val", FRAMES[:1]), ("test", FRAMES[1:2])):
        lines = (f"{subset}/{id}.png {subset}annot/{id}.png\n" for id in ids)
        (tmp_path / f"{subset}.txt").write_text("".join(lines))

    def ids_by_subset(**changes):
        experiment = make_experiment(format="camvid", classes=None, **changes)
        records = list_records(tmp_path, dataset_stage(experiment))
        found = {
            subset: [r.id for r in records if r.subset == subset]
            for subset in ("train", "val", "test")
        }
        assert sum(map(len, found.values())) == len(records)
        return found

    return ids_by_subset


def test_patterns_replace_the_subsets_of_the_data_set(listed):
    patterns = {"test": "^south", "val": ["_040$", "_050$"], "none": ["south_0[345]", "north_030"]}
    assert listed(subsets=patterns) == {
        "train": ["north_000", "north_010", "north_020"],
        "val": ["north_040", "north_050"],
        "test": ["south_000", "south_010", "south_020"],
    }  # fmt: skip


def test_all_other_images_are_trained_on(listed):
    assert listed(subsets={"test": "south_050"}) == {
        "train": FRAMES[:-1], "val": [], "test": ["south_050"],
    }  # fmt: skip
    assert listed(subsets={})["train"] == FRAMES


def test_files_stay_where_they_are(tmp_path, listed, make_experiment):
    listed()
    stage = dataset_stage(
        make_experiment(format="camvid", classes=None, subsets={"val": "north_020"})
    )
    (record,) = [record for record in list_records(tmp_path, stage) if record.subset == "val"]
    assert (record.image, record.label) == ("train/north_020.png", "trainannot/north_020.png")


@pytest.mark.parametrize(
    "subsets, said",
    [
        (
            {"val": "_05", "test": "^south"},
            "subsets: both val and test fit 'south_050' (1 such ids); expected at most one of them",
        ),
        (
            {"val": ["_05", "^east"]},
            "subsets.val: '^east' fits none of the 12 ids of the images in",
        ),
        ({"none": "^$"}, "subsets.none: '^$' fits none"),
    ],
)  # fmt: skip
def test_patterns_that_do_not_fit_the_ids_are_refused(subsets, said, listed):
    with pytest.raises(DataError) as refusal:
        listed(subsets=subsets)
    assert said in str(refusal.value)


def test_an_image_that_is_not_used_may_fit_val_and_test(listed):
    found = listed(subsets={"val": "_05", "test": "^south", "none": "south_050"})
    assert found["val"] == ["north_050"] and "south_050" not in found["test"]


@pytest.mark.parametrize("pattern", ["(", "*", "(?P<a>)(?P<a>)"])
@pytest.mark.parametrize("subset", ["val", "test", "none"])
def test_a_pattern_that_cannot_be_read_is_refused(pattern, subset, make_experiment):
    for given in (pattern, ["a", pattern]):
        with pytest.raises(ValidationError, match=rf"subsets\.{subset}.*\n.*not a valid regular"):
            make_experiment(subsets={subset: given})


@pytest.mark.parametrize(
    "others, key",
    [
        ({"test_from_val": 3}, "test_from_val"),
        ({"format": "pairs", "pairs": {"labels": "masks", "val": ["a"]}}, "pairs.val"),
        ({"format": "pairs", "pairs": {"labels": "masks", "test": ["a"]}}, "pairs.test"),
    ],
)
def test_images_are_held_out_in_one_way_only(others, key, make_experiment):
    assert make_experiment(**others)
    with pytest.raises(ValidationError, match=f"subsets: found together with {key}, which also"):
        make_experiment(**others, subsets={"test": "a"})


@pytest.fixture
def pairs(tmp_path, write_image, make_experiment):
    """Function that lists two images of each of two slides, and accounts for their files."""
    for id in ("a1", "a2", "b1", "b2"):
        write_image(tmp_path / f"images/{id}.png", [[0]])
        write_image(tmp_path / f"masks/{id}.png", [[0]])

    def records_and_account(subsets, **more):
        keys = {"images": "images", "labels": "masks", "group": "^(.)"}
        stage = dataset_stage(make_experiment(format="pairs", pairs=keys, subsets=subsets, **more))
        records = list_records(tmp_path, stage)
        return records, account(tmp_path, stage, records)

    return records_and_account


def test_a_group_stays_in_one_subset(pairs):
    with pytest.raises(DataError) as refusal:
        pairs({"test": ["a2", "b"]})
    assert str(refusal.value).startswith(
        "subsets: group 'a' is in train with 'a1' and in test with 'a2' (1 such groups); "
    )
    assert [record.id for record in pairs({"test": "b"})[0]] == ["a1", "a2", "b1", "b2"]
    assert [record.id for record in pairs({"test": ["a2", "b"], "none": "a1"})[0]] == [
        "a2", "b1", "b2",
    ]  # fmt: skip


def test_a_group_of_any_format_stays_in_one_subset(listed):
    drives = {"group": "^(north|south)"}
    assert listed(subsets={"test": "south"}, **drives)["test"] == FRAMES[6:]
    with pytest.raises(DataError, match="group 'south' is in test with 'south_000' and in val wi"):
        listed(subsets={"test": "south_0[0-3]", "val": "south_0[45]"}, **drives)
    # Blocks never reach beyond a subset, and published subsets are used as they are.
    assert len(listed(subsets={"test": "south_05"}, group=3)["test"]) == 1
    assert len(listed(**drives)["test"]) == 1


def test_a_pattern_beside_pairs_keeps_groups_whole_as_one_in_pairs_does(
    tmp_path, write_image, make_experiment
):
    for id in ("a1", "a2", "b1"):
        write_image(tmp_path / f"images/{id}.png", [[0]])
        write_image(tmp_path / f"masks/{id}.png", [[0]])
    pairs = {"images": "images", "labels": "masks", "test": ["a1"]}

    def ids(**group):
        stage = dataset_stage(make_experiment(format="pairs", pairs=pairs, **group))
        return [record.id for record in list_records(tmp_path, stage)]

    assert ids(group="^(.)") == ["a1", "b1"]
    assert ids(group=2) == ids() == ["a1", "a2", "b1"]


def test_groups_are_named_in_one_way_only(make_experiment):
    pairs = {"labels": "masks", "group": "^(.)"}
    for group in ("^(.)", 2):
        with pytest.raises(ValidationError, match=r"group: found together with pairs\.group"):
            make_experiment(format="pairs", pairs=pairs, group=group)


def test_groups_are_those_of_the_experiment_or_of_pairs(make_experiment):
    pairs = {"format": "pairs", "pairs": {"labels": "masks", "group": "^(.)"}}
    for keys, group in (
        ({}, None),
        (pairs, "^(.)"),
        ({"group": "a(b)"}, "a(b)"),
        ({"group": 4}, 4),
    ):
        stage = dataset_stage(make_experiment(**keys))
        assert stage.group == type(stage).model_validate_json(stage.canonical()).group == group
        assert ("grouping" in stage.canonical()) == ("group" in keys)


def test_files_of_images_that_are_not_used_are_accounted_for(pairs):
    lines = pairs({"test": "b", "none": "a1"})[1].lines()
    assert "not used: 1 file, images left out by `subsets.none`: images/a1.png" in lines


def test_without_subsets_the_settings_are_those_of_earlier_versions(make_experiment):
    assert "subsets" not in dataset_stage(make_experiment()).canonical()
    one = dataset_stage(make_experiment(subsets={"val": "a"})).canonical()
    assert one == dataset_stage(make_experiment(subsets={"val": ["a"]})).canonical()
    assert '"subsets":{"none":[],"test":[],"val":["a"]}' in one
