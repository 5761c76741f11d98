"""`format: pairs`: two folders used in place; each image and each group is in one subset only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dst_cbc.data.layouts.layout import Record
from dst_cbc.data.layouts.pairs import paired, shared_name
from dst_cbc.data.records import dataset_stage, list_records
from dst_cbc.runtime.errors import DataError
from dst_cbc.settings.data import PairSettings


@pytest.fixture
def folders(tmp_path):
    """Folders whose names contain spaces; the masks end in _mask, and one image has no mask."""
    for name in (
        "my photos/a 1.png", "my photos/a 2.jpg", "my photos/town/b 1.tif", "my photos/b.txt",
        "masks/a 1_mask.png", "masks/town/b 1_mask.png", "masks/other.png",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def stage_of(make_experiment, **pairs):
    return dataset_stage(make_experiment(format="pairs", pairs={"labels": "masks", **pairs}))


SPACED = {"images": "my photos", "mask_name": "{}_mask"}


def test_images_and_masks_are_used_where_they_are(folders, make_experiment):
    stage = stage_of(make_experiment, **SPACED, val=["town/b 1"])
    assert list_records(folders, stage) == [
        Record("a 1", "my photos/a 1.png", "masks/a 1_mask.png", "train"),
        Record("a 2", "my photos/a 2.jpg", "", "train"),
        Record("town/b 1", "my photos/town/b 1.tif", "masks/town/b 1_mask.png", "val"),
    ]


def test_an_image_of_a_held_out_group_is_left_out(folders, make_experiment):
    stage = stage_of(make_experiment, **SPACED, group="^(a) ", val=["a 1"])
    assert [(r.id, r.subset) for r in list_records(folders, stage)] == [
        ("a 1", "val"), ("town/b 1", "train"),
    ]  # fmt: skip


def test_a_group_on_two_sides_and_an_unknown_id_are_refused(folders, make_experiment):
    both = stage_of(make_experiment, **SPACED, group="^(a) ", val=["a 1"], test=["a 2"])
    with pytest.raises(DataError, match="val and test both hold images of group 'a'"):
        list_records(folders, both)
    with pytest.raises(DataError, match=r"pairs\.test: 'nobody' is not an image"):
        list_records(folders, stage_of(make_experiment, **SPACED, test=["nobody"]))
    twice = stage_of(make_experiment, **SPACED, val=["a 1"], test=["a 1"])
    with pytest.raises(DataError, match="val and test both hold"):
        list_records(folders, twice)


def test_one_folder_may_hold_both(tmp_path):
    for name in ("x.png", "x_mask.png", "y.png"):
        (tmp_path / name).touch()
    settings = PairSettings(images=".", labels=".", mask_name="{}_mask")
    assert paired(tmp_path, settings) == [("x", "x.png", "x_mask.png"), ("y", "y.png", "")]


@pytest.mark.parametrize("images, labels", [(".", "masks"), ("photos", ".")])
def test_one_folder_may_lie_in_the_other(tmp_path, images, labels):
    for folder in (images, labels):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "x.png").touch()
    (found,) = paired(tmp_path, PairSettings(images=images, labels=labels))
    assert found[0] == "x" and found[1] != found[2] and found[2]


def test_two_files_cannot_be_the_mask_of_one_image(folders):
    (folders / "masks/a 1_mask.tif").touch()
    with pytest.raises(DataError, match="two masks of 'a 1'"):
        paired(folders, PairSettings(labels="masks", **SPACED))


@pytest.mark.parametrize(
    "key, value",
    [
        ("images", "../elsewhere"), ("images", "/root"), ("mask_name", "mask"),
        ("mask_name", "../{}"), ("group", "no part"), ("group", "("),
    ],
)  # fmt: skip
def test_settings_that_lead_elsewhere_or_nowhere_are_refused(key, value):
    with pytest.raises(ValidationError, match=key):
        PairSettings(**{"labels": "masks", key: value})


@given(st.text("ab/_", min_size=1, max_size=6), st.sampled_from(["{}", "{}_a", "b{}", "a{}_"]))
def test_the_name_that_a_pattern_made_is_found_in_it(name, pattern):
    parts = name.strip("/").split("/")
    made = "/".join([*parts[:-1], pattern.replace("{}", parts[-1])])
    if all(parts):
        assert shared_name(made, pattern) == "/".join(parts)
    if pattern != "{}":
        assert shared_name(f"x/{pattern.replace('{}', '')}", pattern) is None
