"""Stateless randomness: every draw depends on seed, round and position, not on earlier draws.

A stream is an endless sequence of passes over its `n` images, each pass in a new random order.
Position `i` of a stream is image `order(pass, …)[i % n]` of pass `i // n`, in every process and
after any number of restarts. The streams of a training are numbered 0, 1, ….
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Draw:
    """One use of one image: image `index` of stream number `stream`, in pass `pass_`."""

    stream: int
    pass_: int
    index: int


def generator(seed: int, round: int, *key: int) -> np.random.Generator:
    """Return an independent random generator for each (seed, round, key)."""
    return np.random.default_rng(np.random.SeedSequence((seed, round, *key)))


def sample_generator(seed: int, round: int, draw: Draw) -> np.random.Generator:
    """Return the generator for all randomness of one draw (augmentation)."""
    return generator(seed, round, 1, draw.stream, draw.pass_, draw.index)


def torch_seed(seed: int, round: int, step: int, rank: int = 0) -> int:
    """Return the seed of torch's generator for a step (used by dropout, if a backbone has any).

    Each rank gets its own seed, so processes that share a batch do not drop the same activations.
    """
    key = (2, step, rank) if rank else (2, step)
    return int(generator(seed, round, *key).integers(2**63))


@lru_cache(maxsize=8)
def order(seed: int, round: int, stream: int, pass_: int, images: int) -> np.ndarray:
    """Return the order of `images` images in one pass: a permutation, int64 (images,)."""
    return generator(seed, round, 0, stream, pass_).permutation(images)


def batches(
    seed: int, round: int, streams: Sequence[tuple[int, int, bool]], start: int, stop: int
) -> Iterator[list[list[Draw]]]:
    """Yield, for each step start .. stop - 1, the draws of each stream, in the order of `streams`.

    streams: (number of images, images in a batch, whether passes are joined). Without joined
    passes, the last batch of a pass holds the remaining images and may be short.
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
    """Return (pass, position in the pass) of each image that a step takes from a stream."""
    if joined:
        return [divmod(i, images) for i in range(step * share, (step + 1) * share)]
    pass_, number = divmod(step, -(-images // share))
    return [(pass_, i) for i in range(number * share, min((number + 1) * share, images))]


def images_in(steps: int, images: int, share: int, joined: bool) -> int:
    """Number of images that `steps` steps take from a stream, as `batches` draws them."""
    if joined:
        return steps * share
    passes, rest = divmod(steps, -(-images // share))
    return passes * images + rest * share


def steps_until(taken: int, images: int, share: int, joined: bool) -> int:
    """The fewest steps that take at least `taken` images from a stream."""
    if joined:
        return -(-taken // share)
    passes, rest = divmod(taken, images)
    return passes * -(-images // share) + -(-rest // share)
