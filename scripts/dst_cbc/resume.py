"""Unfinished work: a folder under `results/.resume/` that belongs to one process and one input.

Snakemake deletes the declared outputs of a job that fails; this folder is not declared, so that
the job goes on where it was. The workflow never reads it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .files import write_text


class Busy(RuntimeError):
    """Another process works on the same state."""


@contextmanager
def resume_folder(folder: Path, fingerprint: str) -> Iterator[Path]:
    """The folder of work with this `fingerprint` of all that it depends on.

    State of another fingerprint is set aside (`<folder>.stale`, one generation). The folder is
    removed when the block ends without an exception. Raises Busy when a live process has it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(folder.name + ".lock")):
        written = folder / "fingerprint"
        # State without a fingerprint was being removed when its process was killed.
        known = written.read_text() if written.is_file() else None
        if known != fingerprint and any(folder.iterdir()):
            stale = folder.with_name(folder.name + ".stale")
            shutil.rmtree(stale, ignore_errors=True)
            os.replace(folder, stale)
            folder.mkdir()
        write_text(written, fingerprint)
        yield folder
        shutil.rmtree(folder)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    owner = {"host": socket.gethostname(), "pid": os.getpid()}
    try:
        _create(path, owner)
    except FileExistsError:
        other = _owner(path)
        if other["host"] != owner["host"] or _alive(other["pid"]):
            raise Busy(
                f"{path}: process {other['pid']} on {other['host']} is at this work; "
                "wait for it, or end it and delete this file"
            ) from None
        path.unlink()
        _create(path, owner)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _create(path: Path, owner: dict) -> None:
    # Linked from a finished file: whoever sees the lock can read its owner.
    temporary = path.with_name(f"{path.name}.{owner['pid']}")
    temporary.write_text(json.dumps(owner))
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink()


def _owner(path: Path) -> dict:
    return json.loads(path.read_text())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
