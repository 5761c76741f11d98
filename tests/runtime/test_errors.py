from dst_cbc.runtime.errors import NAMED, by_cause, first_of


def test_a_cause_that_several_files_share_stands_once_with_their_names():
    """By hand: three files with one cause, two with another, one with its own, one without any."""
    problems = ["a: bad size", "b: no mask", "c: bad size", "d: torn: here", "e: no mask"]
    problems += ["f: bad size", "the folder is empty"]
    assert by_cause(problems).splitlines() == [
        "3 files: bad size", "  a", "  c", "  f", "b: no mask", "e: no mask", "d: torn: here",
        "the folder is empty",
    ]  # fmt: skip


def test_of_very_many_files_some_are_named_and_the_others_counted():
    lines = by_cause([f"{n}: bad" for n in range(NAMED + 5)]).splitlines()
    assert lines[0] == f"{NAMED + 5} files: bad" and len(lines) == NAMED + 2
    assert lines[-1] == "  and 5 more"


def test_of_many_names_the_first_are_shown_and_the_others_counted():
    assert first_of(["a", "b"], 2) == "a, b" and first_of([], 2) == ""
    assert first_of(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert first_of(["a", "b", "c"], 2, "others") == "a, b and 1 others"
