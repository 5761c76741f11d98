"""A small pipeline that runs every stage, tools to inject faults, and its expected results."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from workflow import Project, run_snakemake

INJECT = Path(__file__).parent / "inject"
WRITING = ("write", "open", "rename", "link", "remove", "mkdir", "rmdir")
VICTIMS = ("stage", "snakemake", "both")
CHANGES = {
    "digits": {"size": 32, "train": 14, "val": 4, "test": 3, "digits": [2, 3]},
    "train": {
        "steps": 4, "validate_every": 2, "batch": 4, "crop": [24, 24], "learning_rate": 0.05,
        "gamma": 1,
    },
    "supervised": {"steps": 6},
    "runs": [{"splits": ["6"], "seeds": [0], "methods": ["once"]}],
    "save_seconds": 0,
}  # fmt: skip
TIMED = re.compile(r"/report/tiny/(table|cost)\.|/run\.json$|\.timed\.json$")
"""Results that contain run times: only their existence is compared."""
METHODS = {"once": {"curriculum": [0.6]}}


@dataclass(frozen=True)
class Fault:
    """A fault that hits `victim` at the n-th event (kind, place) of a process of `job`.

    inject/sitecustomize.py describes the values.
    """

    id: str
    job: str
    kind: str
    place: str
    n: int
    victim: str


class Pipeline:
    """A project that is started again after each fault, as a user would, until it is finished."""

    def __init__(self, project: Project):
        self.project, self.root, self.events = project, project.root, project.root / "events"
        self.events.mkdir(exist_ok=True)
        self.starts = 0

    @classmethod
    def create(cls, root: Path, **changes) -> Pipeline:
        """A new pipeline; `changes` replace keys of its experiment."""
        project = Project.create(root, **{**CHANGES, **changes})
        project.write(root / "workflow/methods.yaml", METHODS)
        # The predictions of the 8 unlabeled images have two parts.
        project.divide_into_parts(5)
        return cls(project)

    def copy(self, root: Path) -> Pipeline:
        """A copy of the pipeline without its faults and events."""
        copied = Pipeline(self.project.copy(root))
        shutil.rmtree(copied.events)
        copied.events.mkdir()
        (root / "faults.json").unlink(missing_ok=True)
        return copied

    def arm(self, faults: Iterable[Fault]) -> None:
        """Arm these faults in every process that is started from now on."""
        plan = {
            "root": str(self.root),
            "log": str(self.events),
            "faults": [asdict(fault) for fault in faults],
        }
        (self.root / "faults.json").write_text(json.dumps(plan))

    def start(self, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen:
        """Start Snakemake in its own process group; its output goes to `printed`."""
        # One job at a time: killing a job must not affect the counted events of another job.
        command = [*prefix, sys.executable, "-m", "snakemake", "--cores", "1", "--nocolor"]
        environment = {**os.environ, "PYTHONPATH": str(INJECT)}
        if (self.root / "faults.json").is_file():
            environment["FAULTS"] = str(self.root / "faults.json")
        self.starts += 1
        with open(self.root / "printed", "w") as printed:
            return subprocess.Popen(
                [*command, *arguments],
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                start_new_session=True,
            )

    def run(self, *arguments: str, prefix: tuple[str, ...] = ()) -> int:
        """Start, wait for the end, recover as the documentation says; return the status."""
        if prefix or (self.root / "faults.json").is_file():
            status = self.start(*arguments, prefix=prefix).wait()
        else:
            self.starts += 1
            command = ["--cores", "1", "--nocolor", *arguments]
            status, printed = run_snakemake(command, self.root)
            (self.root / "printed").write_text(printed)
        self.recover(status)
        return status

    def recover(self, status: int) -> None:
        """As the documentation says: wait for jobs that are still saving, then unlock."""
        end = time.monotonic() + 60
        while survivors := processes_below(self.root):
            assert time.monotonic() < end, f"still alive after a minute: {survivors}"
            time.sleep(0.02)
        if status == -signal.SIGKILL:
            self.project.snakemake("--unlock")

    def finish(self, limit: int) -> None:
        """Start again until the pipeline succeeds, at most `limit` times."""
        for _ in range(limit):
            if self.run() == 0:
                return
        raise AssertionError(f"not finished after {limit} starts:\n{self.printed}")

    @property
    def printed(self) -> str:
        """The output of the last start, which includes the logs of failed jobs."""
        return (self.root / "printed").read_text(errors="replace")

    def met(self) -> set[str]:
        """Ids of the faults that have happened."""
        return {path.stem for path in self.events.glob("*.met")}

    def catalogue(self) -> dict[tuple[str, str, str], int]:
        """(job, kind, place) -> maximum number of these events in one process."""
        most: Counter = Counter()
        for path in self.events.glob("*.events"):
            counts = Counter(tuple(json.loads(line)) for line in path.read_text().splitlines())
            for event, count in counts.items():
                most[event] = max(most[event], count)
        return dict(sorted(most.items()))

    def outcome(self) -> dict[str, bytes]:
        """Bytes of all results that must not depend on faults, by file name."""
        folder = self.root / "results"
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and ".stale/" not in str(path)
        }
        free = ("tiny/logs/", "tiny/benchmarks/", "tiny/tensorboard/")
        return {
            name: b"" if TIMED.search(name) else content
            for name, content in files.items()
            if not name.startswith(free)
        }


def processes_below(root: Path) -> list[str]:
    """Commands of live processes whose working folder is `root`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            here = os.readlink(process / "cwd") == str(root)
            zombie = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            command = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if here and not zombie:
            found.append(f"{process.name}: {command}")
    return found


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Names of the files that differ or that only one of both has."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def place_of(job: str, kind: str, place: str) -> tuple[str, str]:
    """Job and place of an event; one job stands for all where all do the same."""
    return ("any" if place in ("a folder", "a record") else job), place


def choose(catalogue: dict[tuple[str, str, str], int], seed: int, count: int) -> list[Fault]:
    """Choose `count` kills: one at every place that writes, then random events; random victims."""
    draw = random.Random(seed)
    places: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for event in catalogue:
        if event[1] in WRITING and event[0] != "snakemake":
            places.setdefault(place_of(*event), []).append(event)
    chosen = [draw.choice(events) for events in places.values()]
    draw.shuffle(chosen)
    jobs = sorted({job for job, *_ in catalogue} - {"snakemake"})
    while len(chosen) < count:
        job = draw.choice(jobs)
        chosen.append(draw.choice([event for event in catalogue if event[0] == job]))
    return [
        Fault(str(i), *event, draw.randint(1, catalogue[event]), draw.choice(VICTIMS))
        for i, event in enumerate(chosen[:count])
    ]


def deal(faults: list[Fault]) -> list[list[Fault]]:
    """Distribute faults over as few runs as possible.

    A run has at most one fault per job, because a restarted job counts its events from the start.
    """
    runs: list[list[Fault]] = []
    for fault in faults:
        free = [run for run in runs if all(other.job != fault.job for other in run)]
        if not free:
            runs.append([])
            free = runs[-1:]
        min(free, key=len).append(fault)
    return runs
