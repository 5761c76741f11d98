"""Give each job on a machine its own GPUs: Snakemake counts GPUs, but does not assign them.

A job takes a GPU by locking a file. The system releases the lock when the process ends, even if it
is killed. The files are in the system's folder for temporary files, in one folder per user. The
environment variable JOBS_PER_GPU lets several jobs share a GPU.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from . import signals
from .devices import cuda_is_likely
from .errors import DataError

if TYPE_CHECKING:
    from filelock import FileLock

POLL = 0.5
"""Seconds between two checks for a free GPU."""

MOMENT = 5.0
"""Seconds for which other jobs may have the turn before a job prints that it waits."""

_held: list[FileLock] = []  # keeps the locks until this process ends


def take(device: str, count: int = 1) -> None:
    """Take `count` GPUs until this process ends, and hide all others from it.

    Call it before torch is imported. device: `device` of the experiment; without CUDA, nothing is
    done. Waits, and prints that it waits, while fewer GPUs are free. Raises DataError when the
    machine has fewer GPUs, or JOBS_PER_GPU is not a positive number.
    """
    devices = visible() if device == "cuda" or (device == "auto" and cuda_is_likely()) else []
    if not devices or _held:
        return
    sharing = _sharing()
    if len(devices) < count:
        raise DataError(
            f"train.gpus: found {count}, but only {len(devices)} can be seen: "
            f"{', '.join(devices)}; lower it, or check CUDA_VISIBLE_DEVICES"
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(_wait_for(devices, count, sharing))


def visible() -> list[str]:
    """Names of the GPUs that CUDA would see: numbers, or UUIDs if CUDA_VISIBLE_DEVICES has them.

    Without that variable, the numbers of all GPUs that nvidia-smi lists.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        if not shutil.which("nvidia-smi"):
            return []
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
        return [str(number) for number in range(len(re.findall(r"^GPU ", listed, re.MULTILINE)))]
    # Like CUDA, ignore everything after the first invalid name.
    is_name = re.compile(r"\d+|(GPU|MIG)-\S+").fullmatch
    return list(dict.fromkeys(takewhile(is_name, map(str.strip, named.split(",")))))


def _sharing() -> int:
    """How many jobs may use a GPU at the same time."""
    text = os.environ.get("JOBS_PER_GPU", "1")
    if not text.isdecimal() or int(text) < 1:
        raise DataError(
            f"JOBS_PER_GPU: found {text!r} in the environment, expected a positive number of jobs; "
            "correct it, or unset it for one job per GPU"
        )
    return int(text)


def _wait_for(devices: list[str], count: int, sharing: int) -> list[str]:
    """Lock `count` of the devices, waiting if necessary, and return their names."""
    folder = _folder()
    # Only the job that holds the lock `turn` takes GPUs, and it keeps those that it has locked. So
    # two jobs cannot deadlock, and a job that needs many GPUs is not overtaken by smaller jobs.
    turn = _lock(folder, "turn")
    taken: set[str] = set()
    told = False
    # Jobs that start together each hold the turn for a moment, and need not print that they wait.
    begun = time.monotonic()
    while True:
        has_turn = turn.is_locked or _acquired(turn)
        for name in devices if has_turn else ():
            if len(taken) == count or name in taken:
                continue
            # One lock for each job that may share the GPU; the first one free is taken.
            places = (
                _lock(folder, f"{name}-{place}" if place else name) for place in range(sharing)
            )
            lock = next(filter(_acquired, places), None)
            if lock:
                taken.add(name)
                _held.append(lock)
        if len(taken) == count:
            turn.release()
            return [name for name in devices if name in taken]
        if not told and (has_turn or time.monotonic() > begun + MOMENT):
            print(
                f"waits for {count} of the GPUs {', '.join(devices)}: other jobs use them "
                f"(locks in {folder})",
                flush=True,
            )
            told = True
        signals.stop_if_asked("no work was started")
        time.sleep(POLL)


def _folder() -> Path:
    """This user's folder of locks. Raises DataError when another user owns it."""
    folder = Path(tempfile.gettempdir(), f"dst-cbc-{os.getuid()}")
    if not os.path.lexists(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise DataError(
            f"{folder}: expected a folder that belongs to this user, for the locks on GPUs; "
            "remove it, or set TMPDIR to another folder"
        )
    return folder


def _lock(folder: Path, name: str) -> FileLock:
    from filelock import FileLock  # imported late: takes 70 ms, and is not needed on a CPU

    # Each SLURM job has its own devices, numbered from 0; processes within the job share them.
    job = os.environ.get("SLURM_JOB_ID", "")
    return FileLock(folder / re.sub(r"[^A-Za-z0-9-]", "_", f"{job}-{name}"), mode=0o600)


def _acquired(lock: FileLock) -> bool:
    """Try to take the lock without waiting; return whether this process now holds it."""
    from filelock import Timeout

    with suppress(Timeout):
        lock.acquire(blocking=False)
    return lock.is_locked
