"""Load batches with worker processes into a fixed set of preallocated memory slots.

torch's own DataLoader allocates and maps new memory for every batch, which loads a fifth fewer
images per second (benchmarks/README.md).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ..runtime import signals
from ..runtime.errors import loaded

AHEAD = 2
"""Number of batches that each worker loads ahead."""

Keys = Sequence[Sequence[Any]]
Tensors = dict[str, torch.Tensor]
Batch = dict[str, Tensors]
"""Stream name -> part name -> stacked samples, tensor (images of the stream, ...)."""


def batches(
    streams: Mapping[str, Callable[[Any], Mapping[str, torch.Tensor]]],
    keys: Sequence[Keys],
    workers: int = 0,
    pin: bool = False,
) -> Iterator[Batch]:
    """Yield one batch for each item of `keys`: for each stream, stacked samples (N, ...).

    streams: name -> function that maps a key to a sample. All samples of a stream have the same
    parts, shapes and dtypes. keys: for each batch, a list of keys for each stream, in the order of
    `streams`; the lists of a stream may differ in length. pin: copy each batch to pinned memory.
    Without `pin`, the next batch may overwrite the current batch. Raises what a sample function
    raises, and OSError or RuntimeError if shared memory is full.
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
    for slot, counts in loaded(loader):
        yield {
            name: {
                part: values[:count].pin_memory() if pin else values[:count]
                for part, values in slots.memory[slot][name].items()
            }
            for name, count in zip(streams, counts, strict=True)
        }


class _Slots(Dataset):
    """Dataset of batches: (batch number, its keys) -> (slot, number of samples of each stream).

    An item is loaded into `memory[slot][stream]`, which has room for the stream's longest batch.
    While one batch is in use, the loader requests AHEAD more batches of each worker, in order. With
    one slot more than that, a batch in use is never overwritten.
    """

    def __init__(self, streams: Mapping[str, Callable], keys: Sequence[Keys], workers: int):
        self.streams = streams
        longest = [max(of_stream, key=len) for of_stream in zip(*keys, strict=True)]
        # All samples of a stream have the shapes and types of the first one.
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
                        f"{self.forms[name]}, the names, shapes and types of its first sample"
                    )
                for part, value in parts.items():
                    memory[part][place] = value
        return slot, [len(some) for some in keys]


def _form(sample: Mapping[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {part: (tuple(value.shape), value.dtype) for part, value in sample.items()}
