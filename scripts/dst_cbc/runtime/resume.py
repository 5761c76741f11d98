"""State of unfinished work: a folder under `results/.resume/`, locked by one process at a time.

Snakemake deletes the declared outputs of a failed job. This folder is not declared, so the next
try can continue from it. The rules of the workflow never read it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from .errors import DataError, Spoiled, Unusable
from .files import age, is_alive, open_regular, sweep, temporary_name, write_text
from .paths import make_folder
from .reading import read_bytes
from .signals import stop_if_asked

SILENCE = 600.0
"""Seconds without a refresh after which the lock of a process on another machine expires."""


_DAY = 24 * 3600.0


class Busy(RuntimeError):
    """Another process is already doing the same work."""


@dataclass(frozen=True)
class Work:
    """Unfinished work that this process has locked.

    folder: holds the state. lock: the lock file. owner: content of the lock file, as JSON.
    """

    folder: Path
    lock: Path
    owner: dict

    @classmethod
    def of_another(cls, folder: Path) -> Work:
        """The same work, for a process that only reads it and assists the process with the lock."""
        return cls(folder, folder.with_name(folder.name + ".lock"), {})

    def refresh(self) -> None:
        """Refresh the lock, for processes on other machines to see; call it at each save."""
        self.require_held()
        os.utime(self.lock)

    def require_held(self) -> None:
        """Raise Busy when another process has taken over; call it before writing results."""
        if _owner(self.lock) != self.owner:
            raise Busy(
                f"{self.lock}: another process has taken this work over; this process stops "
                "without writing results"
            )


@contextmanager
def resume_folder(folder: Path, fingerprint: str, job: str = "") -> Iterator[Work]:
    """Lock `folder`, and yield the work with the state of earlier tries.

    fingerprint: digest of everything that the work depends on. A folder with another fingerprint is
    renamed to `<folder>.stale`, which replaces an older one. job: name of the work, for messages of
    other processes. The folder is removed when the block succeeds or raises Spoiled. Raises Busy
    when a running process holds the lock. Raises Unusable at once when the same work has failed
    before with DataError or Unusable, because a retry cannot help.
    """
    folder = Path(folder)
    make_folder(folder.parent)
    with _lock(folder.with_name(folder.name + ".lock"), job) as (lock, owner):
        if folder.is_symlink() or not folder.is_dir():
            _clear(folder)
        make_folder(folder)
        written = folder / "fingerprint"
        if not written.is_file():
            # The folder is new, or a process was killed while it removed the finished work.
            shutil.rmtree(folder)
            folder.mkdir()
        elif _start_of(written) != fingerprint:
            stale = folder.with_name(folder.name + ".stale")
            _clear(stale)
            os.replace(folder, stale)
            folder.mkdir()
        write_text(written, fingerprint)
        failure = folder / "failure"
        if failure.is_file():
            raise Unusable(
                f"{_start_of(failure)}\nThe same work failed with this error before, on the same "
                f"input. To try it again anyway, delete {failure}"
            )
        work = Work(folder, lock, owner)
        try:
            yield work
        except (DataError, Unusable) as error:
            write_text(failure, str(error))
            raise
        except Spoiled:
            shutil.rmtree(folder)
            raise
        work.require_held()
        shutil.rmtree(folder)


def _clear(path: Path) -> None:
    """Remove a file, a link or a folder; nothing happens if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _start_of(path: Path) -> str:
    with open_regular(path) as file:
        return file.read(1 << 20).decode(errors="replace")


@contextmanager
def _lock(path: Path, job: str) -> Iterator[tuple[Path, dict]]:
    sweep(path.parent)
    pid = os.getpid()
    owner = {"host": socket.gethostname(), "pid": pid, "started": _started(pid), "job": job}
    # On a cluster, the previous try may have ended because its node failed: wait until its lock
    # expires.
    patience = time.monotonic() + (SILENCE if "SLURM_JOB_ID" in os.environ else 0)
    while not _created(path, owner):
        other, silent = _owner(path), age(path)
        if other is None:
            continue
        if other == _DAMAGED:
            print(f"{path}: damaged, so the process that wrote it has ended; replaced", flush=True)
            _remove(path, other)
            continue
        if silent < -_DAY:  # no clock of another machine is that wrong
            silent = SILENCE
        mine = other["host"] == owner["host"]
        if not mine and silent < SILENCE and time.monotonic() < patience:
            stop_if_asked("no work was started")
            time.sleep(SILENCE / 100)
            continue
        if _lives(other) if mine else silent < SILENCE:
            raise Busy(
                f"{path}: process {other['pid']} on {other['host']} is already doing this work "
                f"({other.get('job') or 'started by hand'}); wait for it, or end it"
                + (
                    ""
                    if mine
                    else f"; its lock expires if not refreshed for {SILENCE / 60:.0f} minutes"
                )
            )
        _remove(path, other)
    try:
        yield path, owner
    finally:
        if _owner(path) == owner:
            path.unlink(missing_ok=True)


def _created(path: Path, owner: dict) -> bool:
    # Link a complete file, so that every process that sees the lock can read its owner.
    temporary = temporary_name(path)
    with open(temporary, "w") as file:
        file.write(json.dumps(owner))
        file.flush()
        # Otherwise a power loss could leave an empty lock.
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def _remove(path: Path, owner: dict) -> None:
    """Remove the lock of `owner`, but not a lock that another process has put in its place."""
    taken = temporary_name(path)
    with _one_at_a_time(path.parent):
        # The lock may have changed hands while this process checked whether its owner is running.
        if _owner(path) != owner:
            return
        try:
            os.rename(path, taken)
        except FileNotFoundError:
            return
        try:
            if _owner(taken) != owner:
                # Another process took the work over between the check and the rename, which can
                # happen only on a disk that cannot lock a folder: restore its lock.
                with suppress(FileExistsError):
                    os.link(taken, path)
        finally:
            _clear(taken)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process at a time into the block, on disks that can lock a folder; NFS may not."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _owner(path: Path) -> Any:
    """The content of the lock file: host, pid, started and job; None if the file is gone.

    `_DAMAGED` for what this program cannot have written: a file that a power loss cut off, a link,
    a folder.
    """
    if path.is_symlink():
        return _DAMAGED
    try:
        content = read_bytes(path, 1 << 16)
        return asdict(_OWNER.validate_json(content))
    except FileNotFoundError:
        return None
    except (DataError, ValidationError):
        return _DAMAGED


@dataclass(frozen=True)
class _Owner:
    host: str
    pid: Annotated[int, Field(gt=0, lt=1 << 31)]
    started: int | None = None
    job: str = ""


_OWNER = TypeAdapter(_Owner)
_DAMAGED: Any = {}


def _lives(owner: dict) -> bool:
    """Whether the process of this host that wrote the lock is still running."""
    # /proc may hide the start time of another user's process.
    return is_alive(owner["pid"]) and _started(owner["pid"]) in (owner.get("started"), None)


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; tells apart processes with the same id.

    None if /proc does not say, 0 if the process is a zombie.
    """
    try:
        # Before the state is the process name in parentheses, which may contain any character.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return 0 if state == "Z" else int(fields[18])
