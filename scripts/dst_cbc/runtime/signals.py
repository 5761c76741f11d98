"""Graceful stop: the first signal asks the loop to save and stop; a second one ends it at once."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import DataError

EXIT_STATUS = 143
"""Exit status of a stage that a signal asked to stop, as if SIGTERM had ended it (128 + 15)."""

BURST = 1.0
"""Seconds in which further signals count as repeats of the first one. When a parent dies, Linux
sends one signal for each of its threads; Ctrl-C comes from the terminal and from Snakemake."""

_asked_by: str | None = None
_asked_at = 0.0  # on the monotonic clock


class Stopped(Exception):
    """A signal asked the work to stop; its state is saved for the next start."""


@contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Stop a block in the main thread that uses the processor for longer than `seconds`.

    Raises DataError, whose message begins with `what`.
    """

    def stop(*_) -> None:
        raise DataError(f"{what} takes more than {seconds:.0f} s; simplify it")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def listen() -> None:
    """Let the first SIGTERM or SIGINT (Ctrl-C) only set `asked_by`; a later one ends at once."""
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
    """Act as if this process had received signal `number`, which another process received."""
    _ask(number, None)


def asked_by() -> str | None:
    """Name of the signal that asked this process to stop, or None."""
    return _asked_by


def stop_if_asked(what_is_kept: str) -> None:
    """Raise Stopped if a signal asked this process to stop."""
    if _asked_by:
        raise Stopped(
            f"stopped by {_asked_by}; {what_is_kept}; run the same command again to continue"
        )


def leave_to_parent(worker: int = 0) -> None:
    """In a process that loads data, ignore SIGINT and the first SIGTERM; its parent decides.

    Ctrl-C and SLURM's SIGTERM also reach these processes, and a training cannot save if they die. A
    second SIGTERM ends the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))


def end_with_parent() -> None:
    """Receive SIGTERM when the parent process dies (Linux), so no stage outlives its Snakemake."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


_PR_SET_PDEATHSIG = 1
