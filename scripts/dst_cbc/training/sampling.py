"""Stateless randomness: what happens to a sample follows from where it stands, not from history.

A stream is an endless sequence of images: all of them in one random order, then all in another.
Position `i` of a stream is image `order(pass, …)[i % n]` of pass `i // n`, whoever asks, in
whatever process, after however many restarts. The streams of a training are numbered 0, 1, ….
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Draw:
    """One use of one image: `index` within its stream's list, in pass `pass_` over that list.

    stream: its number.
    """

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
    seed: int, round: int, streams: Sequence[tuple[int, int, bool]], start: int, stop: int
) -> Iterator[list[list[Draw]]]:
    """Of each of the steps start .. stop - 1 the draws of every stream, in their order.

    streams: (number of images, how many of them a batch takes, whether passes are joined). Where
    they are not, the last batch of a pass is what is left of it, and so may be short.
    """
    for step in range(start, stop):
        yield [
            [
                Draw(number, pass_, int(order(seed, round, number, pass_, images)[place]))
                for pass_, place in _places(step, images, share, joined)
            ]
            for number, (images, share, joined) in enumerate(streams)
        ]


def _places(step: int, images: int, share: int, joined: bool) -> list[tuple[int, int]]:
    """(Pass, place in it) of each image that a step takes of a stream."""
    if joined:
        return [divmod(i, images) for i in range(step * share, (step + 1) * share)]
    pass_, number = divmod(step, -(-images // share))
    return [(pass_, i) for i in range(number * share, min((number + 1) * share, images))]
