"""How every row is measured: calls in turns, medians, peaks of memory; and on which machine."""

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
"""Column of the table: name of the package."""


@dataclass(frozen=True)
class Row:
    """One figure beside its lower bound. ratio: the median of ours / bound, pair by pair."""

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
        """Whether the target is; None where there is none."""
        return None if self.target is None else KINDS[self.kind](self)


def row(what: str, ours: float, bound: float, ratio: float | None = None, note: str = "") -> Row:
    """The row of TARGETS that is called `what`. ratio: of the two, where it is none of pairs."""
    aim = TARGETS[what]
    ratio = ours / bound if ratio is None else ratio
    return Row(aim.group, what, ours, bound, aim.unit, ratio, aim.value, aim.kind, note)


def in_turns(
    *calls: Callable[[], object], seconds: float, least: int = 3, clock=time.perf_counter
) -> list[list[float]]:
    """Seconds of each call: all in turns, again and again for `seconds`, `least` times at least.

    A disturbance then meets all of them. What must be warm is called before.
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
    """A row of times that were measured in turns. each: seconds -> the row's unit per item."""
    ratio = statistics.median(one / other for one, other in zip(ours, bound, strict=True))
    middle, lowest = statistics.median(ours), statistics.median(bound)
    return row(what, each * middle, each * lowest, ratio, note)


# A child's peak starts at its parent's size, and this process holds torch: a small one in between.
_BETWEEN = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def peak(command: Sequence[object], **options) -> tuple[float, str]:
    """Largest resident memory of a command, MiB, and what it printed. Ends all when it fails."""
    command = [sys.executable, "-c", _BETWEEN, *map(str, command)]
    said, _, highest = run(command, **options).rstrip().rpartition("\n")
    return int(highest) / 1024, said


def run(command: Sequence[object], **options) -> str:
    """What a command prints. Ends all, with what it said, when it fails."""
    one, both = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run([*map(str, command)], stdout=one, stderr=both, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


@contextmanager
def one_core() -> Iterator[None]:
    """This thread, and those that it starts, on one core; where the system knows of such things."""
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
    """What the figures depend on beside the code: columns of the table."""
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
    """The processor's name and instructions, as far as the system and torch tell."""
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
