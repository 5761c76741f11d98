"""Searches ids by regular expressions: which fit one, and which images are of one group."""

import math
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import groupby

from ..runtime.signals import time_limit
from ..settings.data import Grouping

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


def groups_of(ids: Collection[str], group: Grouping | None) -> dict[str, str]:
    """Return the group of each image; its own id if `group` is None or a pattern that fits not.

    With a number, the ids are cut into blocks as `blocks` does. Raises DataError as `fitting`. Call
    it in the main thread.
    """
    if group is None:
        return {id: id for id in ids}
    if isinstance(group, int):
        return dict(blocks(ids, (), group))
    matches = {}
    with _limited(ids, group, "group or pairs.group"):
        for id in ids:
            match = re.search(group, id)
            matches[id] = match[1] or id if match else id
    return matches


def blocks(
    ids: Collection[str], known_ids: Collection[str], length: int | None = None
) -> Iterator[tuple[str, str]]:
    """Yield each image with the first image of its block of frames.

    Images whose names differ only in their last number are frames of one sequence. Frames of `ids`
    without another known frame between them are a run, which is cut into blocks of `length`; None:
    the cube root of the run's length, rounded up.
    """
    chosen = {*ids}
    frames = sorted(chosen.union(known_ids), key=_frame)
    for (_, is_chosen), found in groupby(frames, lambda one: (_frame(one)[0], one in chosen)):
        if is_chosen:
            run = [*found]
            size = length or math.ceil(len(run) ** (1 / 3))
            yield from ((id, run[place // size * size]) for place, id in enumerate(run))


def _frame(id: str) -> tuple[tuple[str, ...], int, str]:
    """The sequence of an image: its name around the last number; that number; and its name."""
    before, number, after = re.findall(r"^(.*?)(\d*)(\D*)$", id, re.DOTALL)[0]
    return ((before, after), int(number), id) if number else ((id,), 0, id)
