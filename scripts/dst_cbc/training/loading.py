"""Batches of samples from worker processes, in memory that is made once and used in turn.

torch's loader makes and maps new memory for every batch, which costs a fifth of the images a second
(benchmarks/README.md).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ..runtime import signals

AHEAD = 2
"""Batches that each worker has under way."""

Keys = Sequence[Sequence[Any]]
Tensors = dict[str, torch.Tensor]
Batch = dict[str, Tensors]
"""By stream its samples, stacked: name of a part -> tensor (images of the stream, ...)."""


def batches(
    streams: Mapping[str, Callable[[Any], Mapping[str, torch.Tensor]]],
    keys: Sequence[Keys],
    workers: int = 0,
    pin: bool = False,
) -> Iterator[Batch]:
    """For every item of `keys` the samples of its keys, stacked, by stream: tensors (N, ...).

    streams: key -> sample, of the same names, shapes and dtypes for every key of the stream. keys:
    of each batch those of each stream, in the streams' order; of a stream some batches may have
    fewer. Unless `pin` copies it to pinned memory, a batch is overwritten once another is asked
    for. Raises what a sample raises, OSError or RuntimeError where shared memory is full.
    """
    if not keys:
        return
    slots = _Slots(streams, keys, workers)
    loader = DataLoader(
        slots,
        batch_size=None,
        sampler=list(enumerate(keys)),
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        worker_init_fn=signals.leave_to_parent,
    )
    for slot, counts in loader:
        yield {
            name: {
                part: values[:count].pin_memory() if pin else values[:count]
                for part, values in slots.memory[slot][name].items()
            }
            for name, count in zip(streams, counts, strict=True)
        }


class _Slots(Dataset):
    """(Number of a batch, its keys) -> the slot that holds its samples then, how many of a stream.

    memory: by slot and stream the tensors, as long as its longest batch. While one batch is in use
    the loader asks for AHEAD more of each worker, in order: one slot more than that, and none is
    overwritten in use.
    """

    def __init__(self, streams: Mapping[str, Callable], keys: Sequence[Keys], workers: int):
        self.streams = streams
        longest = [max(of_stream, key=len) for of_stream in zip(*keys, strict=True)]
        # One sample tells the shapes and types of all.
        self.forms = {
            name: _form(streams[name](some[0])) for name, some in zip(streams, longest, strict=True)
        }
        counts = [len(some) for some in longest]
        self.memory = [
            {
                name: {
                    part: torch.empty(count, *shape, dtype=dtype)
                    for part, (shape, dtype) in form.items()
                }
                for (name, form), count in zip(self.forms.items(), counts, strict=True)
            }
            for _ in range(AHEAD * workers + 1)
        ]
        if workers:
            for slot in self.memory:
                for parts in slot.values():
                    for values in parts.values():
                        values.share_memory_()

    def __getitem__(self, item: tuple[int, Keys]) -> tuple[int, list[int]]:
        number, keys = item
        slot = number % len(self.memory)
        for (name, sample), some in zip(self.streams.items(), keys, strict=True):
            memory = self.memory[slot][name]
            for place, key in enumerate(some):
                parts = sample(key)
                if _form(parts) != self.forms[name]:
                    raise ValueError(
                        f"stream {name!r}: found a sample of {_form(parts)}, expected "
                        f"{self.forms[name]}: the names, shapes and types of its first one"
                    )
                for part, value in parts.items():
                    memory[part][place] = value
        return slot, [len(some) for some in keys]


def _form(sample: Mapping[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {part: (tuple(value.shape), value.dtype) for part, value in sample.items()}
