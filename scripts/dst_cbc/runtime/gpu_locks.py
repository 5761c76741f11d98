"""GPUs of its own for each job of a machine: Snakemake counts them, it does not choose.

A GPU is taken by a lock on a file that the system releases when the process ends, however it
ends. The files lie in the folder for temporary files, one folder a user.
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
from .files import DataError

if TYPE_CHECKING:
    from filelock import FileLock

POLL = 0.5
"""Seconds between two looks for a GPU that has become free."""

MOMENT = 5.0
"""Seconds that others may look before a job, before it says that it waits."""

_held: list[FileLock] = []  # until this process ends, and the locks with it


def take(device: str, count: int = 1) -> None:
    """Take `count` GPUs until this process ends, and let it see no others: before torch comes.

    device: as in the experiment; nothing is done where it is not CUDA. Waits, and says so, while
    fewer are free. Raises DataError when there are not so many at all.
    """
    devices = visible() if device == "cuda" or (device == "auto" and cuda_is_likely()) else []
    if not devices or _held:
        return
    if len(devices) < count:
        raise DataError(
            f"train.gpus: found {count}, but only {len(devices)} can be seen: "
            f"{', '.join(devices)}; lower it, or see CUDA_VISIBLE_DEVICES"
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(_wait_for(devices, count))


def visible() -> list[str]:
    """Names of the GPUs that CUDA would see: numbers, or UUIDs where CUDA_VISIBLE_DEVICES has them.

    Without that variable all that nvidia-smi lists.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        if not shutil.which("nvidia-smi"):
            return []
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
        return [str(number) for number in range(len(re.findall(r"^GPU ", listed, re.MULTILINE)))]
    # As CUDA: what follows a name that is none is not seen.
    is_name = re.compile(r"\d+|(GPU|MIG)-\S+").fullmatch
    return list(dict.fromkeys(takewhile(is_name, map(str.strip, named.split(",")))))


def _wait_for(devices: list[str], count: int) -> list[str]:
    """Names of `count` devices that are taken now."""
    folder = _folder()
    # One waits at a time, and keeps what it has got: two that each want what the other has
    # cannot be, and who wants many is not passed by those who want one.
    turn = _lock(folder, "turn")
    taken: set[str] = set()
    told = False
    # Many that start together have the turn for a moment each, and none of them waits.
    begun = time.monotonic()
    while True:
        has_turn = turn.is_locked or _acquired(turn)
        for name in devices if has_turn else ():
            if len(taken) == count or name in taken:
                continue
            lock = _lock(folder, name)
            if _acquired(lock):
                taken.add(name)
                _held.append(lock)
        if len(taken) == count:
            turn.release()
            return [name for name in devices if name in taken]
        if not told and (has_turn or time.monotonic() > begun + MOMENT):
            print(
                f"waits for {count} of the GPUs {', '.join(devices)}: other jobs have them "
                f"(locks in {folder})",
                flush=True,
            )
            told = True
        signals.stop_if_asked("nothing was begun")
        time.sleep(POLL)


def _folder() -> Path:
    """This user's folder of locks. Raises DataError when another user has made it."""
    folder = Path(tempfile.gettempdir(), f"dst-cbc-{os.getuid()}")
    if not os.path.lexists(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise DataError(
            f"{folder}: is no folder of this user's; it holds the locks on GPUs: remove it, or "
            "set TMPDIR to another folder"
        )
    return folder


def _lock(folder: Path, name: str) -> FileLock:
    from filelock import FileLock  # 70 ms of a start, which a CPU does without

    # Jobs of SLURM see devices of their own, each from number 0 on; within one they are shared.
    job = os.environ.get("SLURM_JOB_ID", "")
    return FileLock(folder / re.sub(r"[^A-Za-z0-9-]", "_", f"{job}-{name}"), mode=0o600)


def _acquired(lock: FileLock) -> bool:
    """Try to take the lock, without waiting: whether this process has it now."""
    from filelock import Timeout

    with suppress(Timeout):
        lock.acquire(blocking=False)
    return lock.is_locked
