"""A polite end: a signal asks, the loop saves and leaves; a second signal does not wait."""

import ctypes
import os
import signal
import sys
import time

EXIT_STATUS = 143
"""What a stage that was asked to stop exits with, as if SIGTERM had ended it."""

BURST = 1.0
"""Seconds in which further signals are the first one's echo: Linux sends that of a parent's death
once for each of the parent's threads, and Ctrl-C comes from the terminal and from Snakemake."""

_asked_by: str | None = None
_asked_at = 0.0  # on the monotonic clock


class Stopped(Exception):
    """The work was asked to stop and has left its state for another start."""


def listen() -> None:
    """Let the first SIGTERM or SIGINT (Ctrl-C) only ask; see `asked_by`. A later one ends."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ask)


def _ask(number: int, frame: object) -> None:
    global _asked_by, _asked_at
    if _asked_by is None:
        _asked_by, _asked_at = signal.Signals(number).name, time.monotonic()
    elif time.monotonic() - _asked_at > BURST:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def ask(number: int) -> None:
    """Stop as if the signal of that number had come: another process of this job got it."""
    _ask(number, None)


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
    """For processes that load data: Ctrl-C reaches them too, but their parent decides.

    So does SLURM's SIGTERM, once: a training whose loaders die cannot save. The second ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))


def end_with_parent() -> None:
    """Be asked to stop when the parent process dies (Linux): no stage outlives its Snakemake."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


_PR_SET_PDEATHSIG = 1
