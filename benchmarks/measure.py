"""Tools to measure rows: alternating calls, medians, peak memory, and facts about the machine."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from targets import KINDS, TARGETS

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = REPOSITORY / "scripts"
PACKAGES = {
    "torch": "torch", "torchvision": "torchvision", "timm": "timm", "numpy": "numpy",
    "pillow": "pillow", "opencv": "opencv-python-headless", "h5py": "h5py",
    "snakemake": "snakemake",
}  # fmt: skip
"""Column of the table -> name of the package whose version it holds."""


@dataclass(frozen=True)
class Row:
    """One measurement and its lower bound. ratio: median of ours / bound over all pairs."""

    group: str
    what: str
    ours: float
    bound: float
    unit: str
    ratio: float
    target: float | None
    kind: str
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None if the row has no target."""
        return None if self.target is None else KINDS[self.kind](self)


def row(what: str, ours: float, bound: float, ratio: float | None = None, note: str = "") -> Row:
    """A row for the target `what`. ratio: ours / bound if not given."""
    aim = TARGETS[what]
    ratio = ours / bound if ratio is None else ratio
    return Row(aim.group, what, ours, bound, aim.unit, ratio, aim.value, aim.kind, note)


def in_turns(
    *calls: Callable[[], object], seconds: float, least: int = 3, clock=time.perf_counter
) -> list[list[float]]:
    """Time all calls in turns for `seconds`, at least `least` times; return the times of each call.

    A disturbance then affects all calls alike. The caller must warm up the calls first.
    """
    taken: list[list[float]] = [[] for _ in calls]
    begun = clock()
    while len(taken[0]) < least or clock() - begun < seconds:
        for call, times in zip(calls, taken, strict=True):
            started = clock()
            call()
            times.append(clock() - started)
    return taken


def paired(what: str, ours: Sequence[float], bound: Sequence[float], each: float, note="") -> Row:
    """A row from times measured in turns. each: factor from seconds to the row's unit per item."""
    ratio = statistics.median(one / other for one, other in zip(ours, bound, strict=True))
    middle, lowest = statistics.median(ours), statistics.median(bound)
    return row(what, each * middle, each * lowest, ratio, note)


# The peak memory of a child starts at the size of its parent. This process has imported torch, so a
# small process in between starts the command.
_BETWEEN = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def peak(command: Sequence[object], **options) -> tuple[float, str]:
    """Peak resident memory of a command in MiB, and its output. Exits if the command fails."""
    command = [sys.executable, "-c", _BETWEEN, *map(str, command)]
    said, _, highest = run(command, **options).rstrip().rpartition("\n")
    return int(highest) / 1024, said


def run(command: Sequence[object], **options) -> str:
    """Return the output of a command. If the command fails, print its output and exit."""
    one, both = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run([*map(str, command)], stdout=one, stderr=both, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


@contextmanager
def one_core() -> Iterator[None]:
    """Run this thread, and threads that it starts, on one core, if the system supports it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def machine() -> dict[str, object]:
    """Columns for what the measurements depend on besides the code."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        **{column: _version(package) for column, package in PACKAGES.items()},
    }


def _cpu() -> str:
    """The processor's name, if the system provides it, and its instruction set."""
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
