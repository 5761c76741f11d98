"""Batches of samples from worker processes, in memory that is made once and used in turn.

torch's loader makes and maps new memory for every batch, which costs a fifth of the images a second
(benchmarks/README.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from . import stopping

AHEAD = 2
"""Batches that each worker has under way."""

Batch = tuple[torch.Tensor, ...]


def batches(
    samples: Dataset, keys: Sequence[Sequence[Any]], workers: int = 0, pin: bool = False
) -> Iterator[Batch]:
    """For every list of `keys` the samples of its keys, stacked: tensors (N, ...), in order.

    samples: key -> tensors, of the same shapes and dtypes for every key. keys: as many in each
    list. Unless `pin` copies it to pinned memory, a batch is overwritten once another is asked for.
    Raises what a sample raises, OSError or RuntimeError where shared memory is full.
    """
    if not keys:
        return
    slots = _Slots(samples, keys[0], workers)
    loader = DataLoader(
        slots,
        batch_size=None,
        sampler=list(enumerate(keys)),
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        worker_init_fn=stopping.leave_to_parent,
    )
    for slot in loader:
        batch = slots.memory[slot]
        yield tuple(part.pin_memory() for part in batch) if pin else batch


class _Slots(Dataset):
    """(Number of a batch, its keys) -> the slot that holds its samples then.

    memory: by slot the tensors. While one batch is in use the loader asks for AHEAD more of each
    worker, in order: one slot more than that, and none is overwritten in use.
    """

    def __init__(self, samples: Dataset, keys: Sequence[Any], workers: int):
        self.samples = samples
        example = samples[keys[0]]
        self.memory = [
            tuple(torch.empty(len(keys), *part.shape, dtype=part.dtype) for part in example)
            for _ in range(AHEAD * workers + 1)
        ]
        if workers:
            for part in (part for slot in self.memory for part in slot):
                part.share_memory_()

    def __getitem__(self, item: tuple[int, Sequence[Any]]) -> int:
        number, keys = item
        slot = number % len(self.memory)
        for place, key in enumerate(keys):
            for part, value in zip(self.memory[slot], self.samples[key], strict=True):
                part[place] = value
        return slot
