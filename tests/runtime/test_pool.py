import os

from dst_cbc.runtime import pool


def double(item):
    if item in (3, 40, 41):
        os._exit(1)
    return 2 * item


def test_the_items_that_end_their_process_are_found_and_all_others_done():
    found = pool.results(double, range(100), 2, lambda item: f"{item} ended")
    expected = [2 * item for item in range(100)]
    for item in (3, 40, 41):
        expected[item] = f"{item} ended"
    assert list(found) == expected


def test_nothing_to_do_is_no_work():
    assert list(pool.results(double, [], 2, str)) == []
