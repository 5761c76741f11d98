"""Searches ids by regular expressions: which fit one, and which images are of one group."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from ..runtime.signals import time_limit

LEAST_SECONDS, SEARCH_SECONDS = 1.0, 50e-6
"""Time that a search may take in any case, and more for each image: some 50 times what it takes."""


@contextmanager
def _limited(ids: Collection[str], pattern: str, key: str) -> Iterator[None]:
    """Stop a search that takes much longer than searches do, see `fitting`."""
    seconds = LEAST_SECONDS + len(ids) * SEARCH_SECONDS
    with time_limit(seconds, f"{key}: the search for {pattern!r}"):
        yield


def fitting(ids: Collection[str], pattern: str | None, key: str) -> set[str]:
    """Return the ids in which the pattern is found; all of them if it is None.

    key: of the experiment file, for the message. Raises DataError when the search takes much longer
    than searches do: for some patterns, such as `(a+)+$`, the time doubles with each character of
    an id. Call it in the main thread.
    """
    if pattern is None:
        return {*ids}
    with _limited(ids, pattern, key):
        return {id for id in ids if re.search(pattern, id)}


def groups_of(ids: Collection[str], pattern: str | None) -> dict[str, str]:
    """Return the group of each image; its own id if the pattern is None or does not match.

    Raises DataError as `fitting`. Call it in the main thread.
    """
    if pattern is None:
        return {id: id for id in ids}
    matches = {}
    with _limited(ids, pattern, "pairs.group"):
        for id in ids:
            match = re.search(pattern, id)
            matches[id] = match[1] or id if match else id
    return matches
