"""Ids are searched by patterns, and images are put into groups."""

import signal

import pytest

from dst_cbc.data.groups import fitting, groups_of
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
