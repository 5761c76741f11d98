"""Apply a function to many items in several processes, and find the item that ends a process."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def results(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    processes: int,
    ended: Callable[[Item], Result],
) -> Iterator[Result]:
    """Yield function(item) of each item, in order.

    ended: gives the result of an item on which the process ends, as a decoder may on damaged bytes
    or the system if memory runs out.
    """
    done = 0
    while done < len(items):
        try:
            with ProcessPoolExecutor(processes) as pool:
                for result in pool.map(function, items[done:], chunksize=16):
                    yield result
                    done += 1
        except BrokenProcessPool:
            # A process of its own for each item tells which of those in work it was.
            survived = True
            while survived and done < len(items):
                result, survived = _alone(function, items[done], ended)
                yield result
                done += 1


def _alone(function, item, ended):
    try:
        with ProcessPoolExecutor(1) as pool:
            return pool.submit(function, item).result(), True
    except BrokenProcessPool:
        return ended(item), False
