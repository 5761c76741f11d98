"""Ids are searched by patterns, and images are put into groups."""

import signal

import pytest

from dst_cbc.data.groups import blocks, fitting, groups_of
from dst_cbc.runtime.errors import DataError


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("pattern", ["^((a+)+)$", "(a|a)*$", "(.*)(.*)(.*)(.*)(.*)(.*)x$"])
def test_a_pattern_that_takes_too_long_is_refused(pattern, monkeypatch):
    monkeypatch.setattr("dst_cbc.data.groups.LEAST_SECONDS", 0.1)
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(DataError, match=r"pairs\.group: the search for .* simplify it"):
        groups_of(["a" * 250 + "b"], pattern)
    with pytest.raises(DataError, match=r"a\.key: the search for .* simplify it"):
        fitting(["a" * 250 + "b"], f"{pattern}$", "a.key")
    groups_of(["a"], "(a)")
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
    assert signal.getsignal(signal.SIGVTALRM) == before


def test_an_image_without_a_group_is_one_by_itself():
    ids = ["scene1_0001", "other"]
    assert groups_of(ids, r"^(scene\d)_") == {"scene1_0001": "scene1", "other": "other"}
    assert groups_of(ids, None) == {id: id for id in ids}


FRAMES = ["b_9", "a_30", "b_11", "b_8", "b_10", "a_4", "b_100", "overview"]


def test_a_number_cuts_each_sequence_into_blocks_of_so_many_images():
    """In the order of their numbers, whatever lies between."""
    groups = groups_of(FRAMES, 2)
    by_group = {group: {id for id in FRAMES if groups[id] == group} for group in groups.values()}
    assert sorted(map(sorted, by_group.values())) == [
        ["a_30", "a_4"], ["b_10", "b_11"], ["b_100"], ["b_8", "b_9"], ["overview"],
    ]  # fmt: skip
    assert groups_of(FRAMES, 1) == {id: id for id in FRAMES}


def test_images_that_are_not_asked_for_end_a_block():
    asked = [id for id in FRAMES if id != "b_10"]
    assert dict(blocks(asked, FRAMES, 3)) == {
        "a_4": "a_4", "a_30": "a_4", "b_8": "b_8", "b_9": "b_8", "b_11": "b_11", "b_100": "b_11",
        "overview": "overview",
    }  # fmt: skip
