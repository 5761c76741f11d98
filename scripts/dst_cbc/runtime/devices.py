"""Set the number of threads before torch is imported, then choose and describe the device."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

from .errors import DataError, Unusable, shared_memory_is_full

if TYPE_CHECKING:
    import torch


class Compute(Protocol):
    """What `settings.stages.Compute` says about the device."""

    @property
    def compute_threads(self) -> int: ...
    @property
    def channels_last(self) -> bool: ...
    @property
    def deterministic(self) -> bool: ...


def limit_threads(threads: int) -> None:
    """Set the CPU threads and page size of this process; call it before torch is imported.

    The number of threads changes the order of floating-point sums, and so the bytes of a model.
    The experiment therefore sets it, and overrides the OMP_NUM_THREADS of Snakemake or a cluster.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    use_large_pages()


def use_large_pages() -> None:
    """Let torch use large memory pages on Linux, unless the user's environment forbids it.

    Call it before torch is imported. A forward pass on a CPU spends a quarter of its time on
    allocating pages of 4 KB. Results do not change.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def prepare(device: str, compute: Compute) -> torch.device:
    """Choose the device, print it, and set torch up for it.

    device: `auto` (CUDA, else MPS, else CPU), `cuda`, `mps` or `cpu`. Raises DataError for `cuda`
    without a CUDA device.
    """
    import torch

    torch.set_num_threads(compute.compute_threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu" and torch.backends.mps.is_available():
            device = "mps"
    if device == "cuda" and not torch.cuda.is_available():
        raise DataError(
            "device: cuda was asked for, but torch sees no CUDA device; set device: cpu"
        )
    if device == "cuda":
        # cuBLAS is deterministic only with this setting, which is harmless otherwise.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Not cuDNN's search for the fastest convolutions (cudnn.benchmark): it takes seconds for
        # each new size of image (benchmarks/README.md).
        torch.use_deterministic_algorithms(compute.deterministic)
    print(f"device: {describe(device)}, {compute.compute_threads} CPU threads", flush=True)
    return torch.device(device)


def memory_format(compute: Compute) -> torch.memory_format:
    """The memory format of images and weights."""
    import torch

    return torch.channels_last if compute.channels_last else torch.contiguous_format


@contextmanager
def explain_out_of_memory(keys: str) -> Iterator[None]:
    """Turn an out-of-memory error into a message that says which settings (`keys`) to lower.

    Raises Unusable if the device ran out of memory, because a retry would fail again. Raises
    MemoryError if the machine did, because other processes may have used its memory.
    """
    try:
        yield
    except OSError as error:
        if not shared_memory_is_full(error):
            raise
        raise MemoryError(_workers_died(str(error))) from error
    except RuntimeError as error:
        asked = str(error).splitlines()[0].split("allocator: ")[-1]
        if type(error).__name__ == "OutOfMemoryError":
            raise Unusable(f"out of memory on the device: {asked}. Lower {keys}") from error
        if "can't allocate memory" in str(error):
            raise MemoryError(
                f"out of memory: {asked}. Lower {keys}, or run fewer jobs at once: --cores"
            ) from error
        if "DataLoader worker" in str(error) or "shared memory" in str(error):
            raise MemoryError(_workers_died(asked)) from error
        raise


def _workers_died(said: str) -> str:
    free = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
    return (
        f"processes that load images have died: {said}. Either /dev/shm is too small for the "
        f"batches ({free / 1e6:.2f} MB free; docker: --shm-size), or memory ran out. Set "
        "workers: 0, or lower train.batch"
    )


def memory_now() -> str:
    """A phrase for messages: the total and the free memory of this machine."""
    import psutil

    memory = psutil.virtual_memory()
    return (
        f"this machine has {memory.total / 1e9:.1f} GB, {memory.available / 1e9:.1f} GB of them "
        "free now"
    )


def free_memory() -> int:
    """Bytes of memory that are available to new processes."""
    import psutil

    return psutil.virtual_memory().available


def cuda_is_likely() -> bool:
    """Guess whether `auto` will choose CUDA, without importing torch."""
    return shutil.which("nvidia-smi") is not None and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def describe(device: str) -> str:
    """The device with the name of its GPU or processor."""
    import torch

    if device == "cuda":
        return f"cuda ({torch.cuda.get_device_name()})"
    return f"{device} ({platform.processor() or platform.machine()})"


def versions() -> dict[str, Any]:
    """Versions and CPU features that affect the bytes of a model, for run.json."""
    import torch

    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "timm", "numpy", "pillow")},
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
