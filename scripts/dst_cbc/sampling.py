"""Stateless randomness: what happens to a sample follows from where it stands, not from history.

A stream is an endless sequence of images: all of them in one random order, then all in another.
Position `i` of a stream is image `order(pass, …)[i % n]` of pass `i // n`, whoever asks, in
whatever process, after however many restarts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LABELED, PSEUDO = 0, 1


@dataclass(frozen=True)
class Draw:
    """One use of one image: `index` within its stream's list, in pass `pass_` over that list."""

    stream: int
    pass_: int
    index: int


def generator(seed: int, round: int, *key: int) -> np.random.Generator:
    """A generator of its own for every key."""
    return np.random.default_rng(np.random.SeedSequence((seed, round, *key)))


def sample_generator(seed: int, round: int, draw: Draw) -> np.random.Generator:
    """All randomness of one use of one image."""
    return generator(seed, round, 1, draw.stream, draw.pass_, draw.index)


def torch_seed(seed: int, round: int, step: int, rank: int = 0) -> int:
    """Seed of torch's own generator before a step (dropout, if a backbone has any).

    rank: of several processes that share a batch, each drops something else.
    """
    key = (2, step, rank) if rank else (2, step)
    return int(generator(seed, round, *key).integers(2**63))


@lru_cache(maxsize=8)
def order(seed: int, round: int, stream: int, pass_: int, images: int) -> np.ndarray:
    """The order of `images` images in one pass: int64 permutation."""
    return generator(seed, round, 0, stream, pass_).permutation(images)


def batches(
    seed: int, round: int, streams: list[tuple[int, int, int]], start: int, stop: int
) -> Iterator[list[Draw]]:
    """The draws of the steps start .. stop - 1.

    streams: (stream, its number of images, how many of them a batch takes).
    """
    for step in range(start, stop):
        yield [
            Draw(stream, i // n, int(order(seed, round, stream, i // n, n)[i % n]))
            for stream, n, share in streams
            for i in range(step * share, (step + 1) * share)
        ]
