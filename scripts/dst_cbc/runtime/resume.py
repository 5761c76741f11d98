"""Unfinished work: a folder under `results/.resume/` that belongs to one process and one input.

Snakemake deletes the declared outputs of a job that fails; this folder is not declared, so that
the job goes on where it was. The workflow never reads it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .files import Changed, DataError, Unusable, age, is_alive, sweep, temporary_name, write_text
from .signals import stop_if_asked

SILENCE = 600.0
"""Seconds after which a process on another machine that never refreshed its lock is given up."""


class Busy(RuntimeError):
    """Another process works on the same state."""


@dataclass(frozen=True)
class Work:
    """Unfinished work that this process holds. folder: where its state lies."""

    folder: Path
    lock: Path
    owner: dict

    @classmethod
    def of_another(cls, folder: Path) -> Work:
        """The same work, for a process that helps its holder and only reads."""
        return cls(folder, folder.with_name(folder.name + ".lock"), {})

    def refresh(self) -> None:
        """Show processes on other machines that this one lives; call it at each save."""
        self.require_held()
        os.utime(self.lock)

    def require_held(self) -> None:
        """Raise Busy when another process has taken over; call it before results appear."""
        if _owner(self.lock) != self.owner:
            raise Busy(f"{self.lock}: another process has taken this work over; nothing is written")


@contextmanager
def resume_folder(folder: Path, fingerprint: str, job: str = "") -> Iterator[Work]:
    """The work with this `fingerprint` of all that it depends on.

    State of another fingerprint is set aside (`<folder>.stale`, one generation). The folder is
    removed when the block ends without an exception. Raises Busy when a live process has it, and
    Unusable at once when the same work has failed before in a way that repeating cannot cure:
    with DataError or Unusable. After Changed nothing is kept. job: its name, for others to read.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(folder.name + ".lock"), job) as (lock, owner):
        folder.mkdir(exist_ok=True)
        written = folder / "fingerprint"
        if not written.is_file():
            # Nothing yet, or its process was killed while it removed what it had finished.
            shutil.rmtree(folder)
            folder.mkdir()
        elif written.read_text() != fingerprint:
            stale = folder.with_name(folder.name + ".stale")
            shutil.rmtree(stale, ignore_errors=True)
            os.replace(folder, stale)
            folder.mkdir()
        write_text(written, fingerprint)
        failure = folder / "failure"
        if failure.is_file():
            raise Unusable(
                f"{failure.read_text()}\nThe same work with the same input failed so before. To "
                f"try it again all the same, delete {failure}"
            )
        work = Work(folder, lock, owner)
        try:
            yield work
        except (DataError, Unusable) as error:
            write_text(failure, str(error))
            raise
        except Changed:
            shutil.rmtree(folder)
            raise
        work.require_held()
        shutil.rmtree(folder)


@contextmanager
def _lock(path: Path, job: str) -> Iterator[tuple[Path, dict]]:
    sweep(path.parent)
    pid = os.getpid()
    owner = {"host": socket.gethostname(), "pid": pid, "started": _started(pid), "job": job}
    # On a cluster a try follows one that has ended, may be by the end of its node: wait it out.
    patience = time.monotonic() + (SILENCE if "SLURM_JOB_ID" in os.environ else 0)
    while not _created(path, owner):
        other, silent = _owner(path), age(path)
        if other is None:
            continue
        mine = other["host"] == owner["host"]
        if not mine and silent < SILENCE and time.monotonic() < patience:
            stop_if_asked("nothing was begun")
            time.sleep(SILENCE / 100)
            continue
        if _lives(other) if mine else silent < SILENCE:
            raise Busy(
                f"{path}: process {other['pid']} on {other['host']} is at this work "
                f"({other.get('job') or 'by hand'}); wait for it, or end it"
                + ("" if mine else f"; it is given up after {SILENCE / 60:.0f} silent minutes")
            )
        _remove(path, other)
    try:
        yield path, owner
    finally:
        if _owner(path) == owner:
            path.unlink(missing_ok=True)


def _created(path: Path, owner: dict) -> bool:
    # Linked from a finished file: whoever sees the lock can read its owner.
    temporary = temporary_name(path)
    temporary.write_text(json.dumps(owner))
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def _remove(path: Path, owner: dict) -> None:
    """Remove the lock of `owner`; of two that try, one gets it, and no third one's goes with it."""
    taken = temporary_name(path)
    # To see whether it lives took a while.
    if _owner(path) != owner:
        return
    try:
        os.rename(path, taken)
    except FileNotFoundError:
        return
    try:
        if _owner(taken) != owner:
            # Between our look and our grip somebody else took the work over: give it back.
            with suppress(FileExistsError):
                os.link(taken, path)
    finally:
        taken.unlink()


def _owner(path: Path) -> dict | None:
    """Who holds a lock; None where it is gone."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def _lives(owner: dict) -> bool:
    """Whether a process of this host is still the one that wrote the lock."""
    # Of a process of another user /proc may tell nothing.
    return is_alive(owner["pid"]) and _started(owner["pid"]) in (owner.get("started"), None)


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: numbers of processes are used again.

    None where /proc does not tell, 0 where it has ended and waits for its parent.
    """
    try:
        # What precedes is the name, in parentheses, which may hold anything.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return 0 if state == "Z" else int(fields[18])
