"""Several processes train one model together, one per GPU, started by torchrun.

Each process computes its share of a batch. Summed over all processes, the gradients equal those of
a single process. Only the first process holds the lock of the work, validates and writes files.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from ..runtime import signals
from ..runtime.errors import DataError
from ..settings.yaml_files import ConfigError

if TYPE_CHECKING:
    import torch

    from ..settings.stages import TrainStage

PATIENCE = timedelta(days=1)
"""How long the other processes wait while the first one validates.

If a process ends, the others notice it at once.
"""

LAST_SECONDS = 120
"""Seconds to finish and save the current step after a signal asked the processes to stop."""


class Lost(RuntimeError):
    """Another process of the same training has ended."""


LOST_STATUS = 76
"""Exit status of a process that stops because another one of its training has ended."""


@dataclass(frozen=True)
class Ranks:
    """The rank of this process, 0 .. size - 1, among `size` processes that train one model."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that holds the lock, validates and writes files."""
        return self.rank == 0

    def share(self, items: Sequence) -> list:
        """This process's contiguous part of `items`."""
        return [items[place] for place in self.places(len(items))]

    def places(self, count: int) -> range:
        """The indices of this process's part of `count` items."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes, equal in each process; no gradient flows through."""
        if self.size == 1:
            return values
        import torch.distributed as dist

        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    def differentiable_sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes; gradients of the loss in every process flow back."""
        if self.size == 1:
            return values
        return _sum_with_gradient().apply(values)

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Sum the gradients of `parameters` over all processes, in place, in one exchange.

        A parameter without a gradient in any process keeps None.
        """
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        flags = [float(one.grad is not None) for one in parameters]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([*(g.reshape(-1) for g in grads), grads[0].new_tensor(flags)])
        dist.all_reduce(flat)
        *sums, found = flat.split([*(g.numel() for g in grads), len(flags)])
        for one, grad, total, count in zip(parameters, grads, sums, found.tolist(), strict=True):
            one.grad = grad.copy_(total.view_as(grad)) if count else None

    def share_buffers(self, modules: Iterable[torch.nn.Module]) -> None:
        """Copy the buffers (running statistics, counts) of the first process to all others."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        by_type: dict[Any, list[torch.Tensor]] = {}
        for module in modules:
            for buffer in module.buffers():
                by_type.setdefault((buffer.dtype, buffer.device), []).append(buffer)
        for buffers in by_type.values():
            flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
            dist.broadcast(flat, 0)
            for buffer, values in zip(
                buffers, flat.split([b.numel() for b in buffers]), strict=True
            ):
                buffer.copy_(values.view_as(buffer))

    def asked_to_stop(self) -> bool:
        """Whether a signal asked any process to stop; all processes agree at the same step."""
        if self.size > 1:
            import torch
            import torch.distributed as dist

            name = signals.asked_by()
            number = torch.tensor(signal.Signals[name] if name else 0)
            dist.all_reduce(number, dist.ReduceOp.MAX)
            if number and not name:
                signals.ask(int(number))
        return signals.asked_by() is not None

    def join(self, device: torch.device, stage: TrainStage) -> None:
        """Connect to the other processes. Raises DataError if the device does not allow it.

        From here on, a signal only asks this process to stop after a save (signals.listen). Before,
        a signal ends the process at once, because there is nothing to save yet.
        """
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        if device.type not in ("cpu", "cuda"):
            raise DataError(
                f"train.gpus: {self.size} processes can train on cuda or cpu, not on {device}"
            )
        if stage.sync_norm and device.type == "cpu":
            raise DataError(
                "train.sync_norm: torch synchronises batch normalisation on CUDA only; set "
                "train.sync_norm: false, train.gpus: 1 or train.freeze_norm: true"
            )
        if device.type == "cuda":
            if torch.cuda.device_count() < self.size:
                raise DataError(
                    f"train.gpus: found {self.size}, but torch sees {torch.cuda.device_count()} "
                    "CUDA devices; lower it, or check CUDA_VISIBLE_DEVICES"
                )
            torch.cuda.set_device(self.rank)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
        signals.listen()


ALONE = Ranks()


@cache
def _sum_with_gradient() -> Any:
    """An autograd function that sums over all processes. Cached, because torch is imported late."""
    import torch
    import torch.distributed as dist

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values: torch.Tensor) -> torch.Tensor:
            total = values.clone()
            dist.all_reduce(total)
            return total

        @staticmethod
        def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
            total = gradient.clone()
            dist.all_reduce(total)
            return total

    return Sum


def here(size: int) -> Ranks:
    """Return the rank of this process among the `size` processes that torchrun started.

    Raises ConfigError if torchrun started another number of processes.
    """
    if size == 1:
        return ALONE
    found = int(os.environ.get("WORLD_SIZE", "1"))
    if found != size:
        raise ConfigError(f"train.gpus: found {size}, but torchrun has started {found} processes")
    # torchrun starts each process in its own session, where it would outlive a killed torchrun.
    signals.end_with_parent()
    return Ranks(int(os.environ["RANK"]), size)


def is_launched() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch(size: int) -> None:
    """Run this same command in `size` processes with torchrun, and exit with their status."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main([
            # --standalone picks a free port. Without a log folder, the processes write to this
            # process's stdout and stderr.
            "--standalone", "--nproc-per-node", str(size), "--log-dir", os.devnull,
            "--shutdown-timeout", str(LAST_SECONDS), *sys.argv,
        ])  # fmt: skip
    except SignalException:
        sys.exit(signals.EXIT_STATUS)
    except ChildFailedError as error:
        rank, failure = first_to_end(error.failures)
        stopped = failure.exitcode == signals.EXIT_STATUS
        if not stopped:
            end = failure.signal_name() if failure.exitcode < 0 else f"exit {failure.exitcode}"
            print(f"error: process {rank} of {size} ended first ({end})", file=sys.stderr)
        sys.exit(signals.EXIT_STATUS if stopped else 1)


def first_to_end(failures: Mapping[int, Any]) -> tuple[int, Any]:
    """Return the rank and the ProcessFailure of the process whose end the others have followed.

    torchrun may see the ends of several at once, and then gives them the same time.
    """
    return min(failures.items(), key=lambda one: (one[1].exitcode == LOST_STATUS, one[1].timestamp))


@contextmanager
def explain_lost_ranks() -> Iterator[None]:
    """Raise Lost if an exchange with the other processes fails because one of them has ended."""
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ not in _OF_TORCH and "gloo" not in str(error):
            raise
        raise Lost(
            "another process of this training has ended; run the same command again to continue "
            "from the last save"
        ) from error


_OF_TORCH: Any = ("DistBackendError", "DistNetworkError", "DistStoreError", "DistError")
