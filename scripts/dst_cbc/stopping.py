"""A polite end: a signal asks, the loop saves and leaves; a second signal does not wait."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

EXIT_STATUS = 143
"""What a stage that was asked to stop exits with, as if SIGTERM had ended it."""

_asked_by: str | None = None


class Stopped(Exception):
    """The work was asked to stop and has left its state for another start."""


def listen() -> None:
    """Let the first SIGTERM or SIGINT (Ctrl-C) only ask; see `asked_by`. A second one ends."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ask)


def _ask(number: int, frame: object) -> None:
    global _asked_by
    _asked_by = signal.Signals(number).name
    for either in (signal.SIGTERM, signal.SIGINT):
        signal.signal(either, signal.SIG_DFL)


def asked_by() -> str | None:
    """Name of the signal that asked this process to stop, None as long as none did."""
    return _asked_by


def stop_if_asked(what_is_kept: str) -> None:
    """Raise Stopped when a signal asked for it."""
    if _asked_by:
        raise Stopped(
            f"stopped by {_asked_by}; {what_is_kept}: the same command goes on from there"
        )


def leave_to_parent(worker: int = 0) -> None:
    """For processes that load data: Ctrl-C reaches them too, but their parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_with_parent() -> None:
    """Be asked to stop when the parent process dies (Linux): no stage outlives its Snakemake."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


_PR_SET_PDEATHSIG = 1
