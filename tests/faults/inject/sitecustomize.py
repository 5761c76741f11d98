"""Inject faults: with this folder on PYTHONPATH, stages count their events and can be killed.

Every Python process that runs a script of the workflow records its events (job, kind, place), and
a fault of the file FAULTS happens at the n-th event:

    kind     event                                            effect of a kill
    write    a finished temporary file is synced to the disk  leaves half of the file
    open     a file is opened for writing                     happens before the file exists
    rename, link, remove, mkdir, rmdir                        happens before the operation
    image    an image of the data set is read
    step     an optimizer step has been taken

FAULTS: JSON file, {"root": project, "log": folder of events, "faults": [{id, job, kind, place, n,
victim}]}. victim: `stage`, `snakemake` or `both` are killed (SIGKILL); `disk` raises ENOSPC instead
of the event; anything else is a shell command, which runs in the project before the event.
A fault that has happened leaves the file `<log>/<id>.met`, and does not happen again.
"""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

PLAN = json.loads(Path(os.environ["FAULTS"]).read_text()) if os.environ.get("FAULTS") else None
NAMES = {
    "open": ("open", 0),
    "step": ("step", 0),  # raised by this module, not an audit event of Python
    "os.rename": ("rename", 1),
    "os.link": ("link", 1),
    "os.remove": ("remove", 0),
    "os.mkdir": ("mkdir", 0),
    "os.rmdir": ("rmdir", 0),
}


class Injector:
    """Counts the events of this process; forked children continue with its counts."""

    def __init__(self, job: str):
        self.job, self.pid, self.parent = job, os.getpid(), os.getppid()
        self.root, self.log = f"{PLAN['root']}/", Path(PLAN["log"])
        self.faults = [fault for fault in PLAN["faults"] if fault["job"] == job]
        self.counts: Counter = Counter()
        self.hooked = False
        self.own = threading.local()

    def __call__(self, event: str, arguments: tuple) -> None:
        # Do not count what this class itself does.
        if event not in NAMES or getattr(self.own, "busy", False):
            return
        self.own.busy = True
        try:
            self.see(event, arguments)
        finally:
            self.own.busy = False

    def see(self, event: str, arguments: tuple) -> None:
        kind, position = NAMES[event]
        path = arguments[position]
        if kind == "step":
            return self.happens(kind, path)
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        path = absolute(path, arguments)
        if not path.startswith(self.root):
            return None
        self.hook_steps()
        place = path.removeprefix(self.root)
        if kind == "open":
            mode, flags = arguments[1], arguments[2]
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR))
            if not writes and "images/" in place:
                self.happens("image", "an image")
            if not writes:
                return None
            if mode == "r+" and path.endswith(".tmp"):
                kind = "write"
        elif kind in ("mkdir", "remove", "rmdir") and os.path.lexists(path) == (kind == "mkdir"):
            return None  # nothing to do: the folder exists, or the path does not
        if place.startswith("results/"):
            self.happens(kind, "a folder" if kind == "mkdir" else place_of(place), path)
        return None

    def hook_steps(self) -> None:
        optimizer = sys.modules.get("torch.optim.optimizer")
        register = getattr(optimizer, "register_optimizer_step_post_hook", None)
        if register and not self.hooked:
            self.hooked = True
            register(lambda *_: self("step", ("an optimizer step",)))

    def happens(self, kind: str, place: str, path: str = "") -> None:
        self.counts[kind, place] += 1
        with open(self.log / f"{os.getpid()}.events", "a") as file:
            file.write(json.dumps([self.job, kind, place]) + "\n")
        for fault in self.faults:
            met = (fault["kind"], fault["place"], fault["n"])
            if met == (kind, place, self.counts[kind, place]) and self.is_new(fault):
                self.strike(fault["victim"], kind, path)

    def is_new(self, fault: dict) -> bool:
        try:
            os.close(os.open(self.log / f"{fault['id']}.met", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def strike(self, victim: str, kind: str, path: str) -> None:
        if victim == "disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if victim not in ("stage", "snakemake", "both"):
            environment = {key: value for key, value in os.environ.items() if key != "FAULTS"}
            subprocess.run(victim, shell=True, check=True, cwd=self.root, env=environment)
            return
        if kind == "write" and victim != "snakemake":
            os.truncate(path, os.path.getsize(path) // 2)
        # Kill the stage last, because it runs this code.
        if victim in ("snakemake", "both"):
            os.kill(self.parent, signal.SIGKILL)
        if victim in ("stage", "both"):
            os.kill(self.pid, signal.SIGKILL)
            signal.pause()  # in a loading process, whose parent was killed


def absolute(path: str | bytes | os.PathLike, arguments: tuple) -> str:
    """The absolute path of an event; shutil.rmtree passes names relative to an open folder."""
    folder = next((value for value in arguments[1:] if type(value) is int and value >= 0), None)
    path = os.fsdecode(path)
    if folder is not None and not os.path.isabs(path) and os.path.isdir(f"/proc/self/fd/{folder}"):
        path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
    return os.path.abspath(path)


def place_of(path: str) -> str:
    """One name for all files of a kind, without numbers of images, parts and processes."""
    parts = path.split("/")
    if match := re.fullmatch(r"\.(.*)\.[^.]+\.\d+\.tmp", parts[-1]):
        parts[-1] = match[1]
    if parts[-1].startswith("events.out"):
        parts[-1] = "events"
    if "report" in parts[:-1] and parts[-1].endswith((".svg", ".png")):
        parts[-1] = f"a figure{parts[-1][-4:]}"
    if "checksums" in parts[:-1]:
        return "a record"
    # results/.resume/<study>/<split>/<model…>/<stage…>, results/<study>/<split>/<model…>/<file>
    kept = parts[-2:] if parts[-2] in ("train", "predict", "pseudo_labels") else parts[-1:]
    return re.sub(r"\d+", "#", "/".join(kept))


def job_of(command: list[str]) -> str:
    """The name of the script, with the round if several jobs run it; "" for other commands."""
    if command[1:3] == ["-m", "snakemake"]:
        return "snakemake"
    script = next((Path(part) for part in command[1:] if part.endswith(".py")), Path())
    if script.parent.name != "scripts":
        return ""
    name = script.stem
    if name in ("train", "evaluate"):
        name += " of round 1" if any("/round1" in part for part in command) else " of round 0"
    return name


if PLAN and (job := job_of(sys.orig_argv)):
    sys.addaudithook(Injector(job))
