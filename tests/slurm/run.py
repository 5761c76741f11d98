"""Run a short demo on a real SLURM of one node, disturb it, and compare it with a local run.

Starts munged, slurmctld and slurmd in a temporary folder, and stops them at the end. One training
reaches its time limit; another is cancelled, and then requeued as after a preemption. All must
resume, and every result must have the same bytes as in a run without SLURM.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from cluster import Cluster, why_not

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

from workflow import Project, results  # noqa: E402

DEMO = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
SHORT = {
    "name": "tiny",
    "digits": {"train": 60, "val": 10, "test": 10},
    "supervised": {"steps": 240, "validate_every": 80},
    "train": {**DEMO["train"], "steps": 300, "validate_every": 50},
    "save_seconds": 1,
}
METHODS = {"dst-cbc": {"curriculum": [0.6]}}
FILLED_IN = {'slurm_partition: "gpu"': 'slurm_partition: "main"', "TERM@300": "TERM@5"}
"""Edits of the profile: the line that users fill in, and a later signal, as the limit is 1 min."""
OPTIONS = [
    "--workflow-profile", "profiles/slurm",
    "--set-resources", "train:runtime=1 if attempt == 1 else 10",
    "--slurm-status-command", "squeue",
    "--slurm-init-seconds-before-status-checks", "1",
    "--latency-wait", "5",
]  # fmt: skip
LIMIT, CANCEL, REQUEUE = "time limit", "scancel", "scontrol requeue"
TRAINING, FINE_TUNING = "train 12_0 supervised", "finetune 12_0 dst-cbc round1"
DISTURBANCES = {TRAINING: [LIMIT], FINE_TUNING: [CANCEL, REQUEUE]}
"""Stage -> what happens to its first job, its second job."""
STARTS = {TRAINING: [0, 1], FINE_TUNING: [0, 2]}
"""Stage -> how often its first job, its second job resumes."""
FOLDERS = {TRAINING: "12_0/supervised", FINE_TUNING: "12_0/dst-cbc/round1"}
COMPARED = (
    "*.pt", "history.csv", "metrics.json", "thresholds.csv", "*.h5", "histogram.npz",
    "pseudo_labels*.csv", "pseudo_labels/*.png", "dataset.csv", "*labeled.txt", "summary.csv",
)  # fmt: skip
COLUMNS = (
    "job",
    "stage",
    "disturbed by",
    "ended as",
    "resumed at step",
    "of",
    "files with the local run's bytes",
)
PATIENCE = 900  # seconds, for both runs together


@dataclass
class Job:
    """One SLURM job: one try of a stage (a rule and its wildcards)."""

    id: str
    stage: str
    state: str = ""
    disturbed: str = ""
    resumed: list[str] = field(default_factory=list)


class Run:
    """A project with the short demo, and the Snakemake process that runs it."""

    def __init__(self, root: Path, environment: dict[str, str], *options: str):
        self.project = Project.create(root)
        self.project.write(root / "workflow/methods.yaml", METHODS)
        self.project.write(root / "config.yaml", {**DEMO, **SHORT})
        profile = root / "profiles/slurm/config.yaml"
        text = profile.read_text()
        for old, new in FILLED_IN.items():
            if old not in text:
                raise RuntimeError(f"{profile} has no {old}")
            text = text.replace(old, new)
        profile.write_text(text)
        self.output = root / "output.txt"
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", "results/tiny/summary.csv", *options],
                cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def stop(self) -> None:
        """Send SIGINT, like Ctrl-C, and SIGKILL if the process does not end in 20 s."""
        for number in (signal.SIGINT, signal.SIGKILL):
            if self.process.poll() is None:
                os.killpg(self.process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(20)

    def failed(self) -> bool:
        return self.process.poll() not in (None, 0)

    def results(self) -> dict[str, bytes]:
        return results(self.project.study, *COMPARED)


class Watch:
    """Records the history of the SLURM jobs, and disturbs each job of a training once."""

    def __init__(self, cluster: Cluster, root: Path):
        self.cluster, self.results = cluster, root / "results"
        self.jobs: dict[str, Job] = {}
        self.frozen = 0

    def look(self) -> None:
        queue = self.cluster.ask("squeue", "-h", "-t", "all", "-o", "%i|%T|%k")
        for line in queue.splitlines():
            id, state, comment = line.split("|")
            stage = comment.removeprefix("rule_").replace("_wildcards_", " ", 1)
            stage = stage.replace("12_0_", "12_0 ").replace("dst-cbc_", "dst-cbc ")
            job = self.jobs.setdefault(id, Job(id, stage))
            if job.state != state:
                job.state = state
                say(f"job {id}, {stage}: {state}")
            if state == "RUNNING" and stage in FOLDERS:
                self._look_into(job)
        self._thaw()

    def _look_into(self, job: Job) -> None:
        log = self.results / "tiny/logs" / FOLDERS[job.stage] / f"{job.stage.split()[0]}.log"
        text = log.read_text() if log.is_file() else ""
        tries = [other.id for other in self.jobs.values() if other.stage == job.stage]
        before = DISTURBANCES[job.stage][: tries.index(job.id) + 1]
        resumed = re.search(r"^resumed at step (\d+)", text, re.M)
        # Until this try starts, the file still holds the log of the previous try.
        if resumed and len(tries) > 1 and resumed[1] not in job.resumed:
            job.resumed.append(resumed[1])
            say(f"job {job.id}, {job.stage}: resumed at step {resumed[1]}")
        validated = re.search(r"^step ", text, re.M)
        started = len(tries) == 1 or job.resumed
        if validated and started and not job.disturbed and len(before) == len(tries):
            job.disturbed = before[-1]
            say(f"job {job.id}, {job.stage}: {job.disturbed}")
            if job.disturbed == LIMIT:
                self._freeze(job)
            else:
                self.cluster.ask(*job.disturbed.split(), job.id)

    def _freeze(self, job: Job) -> None:
        """Stop a training until its time limit, which a fast machine would not reach."""
        lock = self.results / ".resume/tiny" / FOLDERS[job.stage] / "train.lock"
        self.frozen = json.loads(lock.read_text())["pid"]
        os.kill(self.frozen, signal.SIGSTOP)

    def _thaw(self) -> None:
        """Continue the frozen training once SLURM has sent SIGTERM, unless SLURM did so itself."""
        status = Path(f"/proc/{self.frozen}/status")
        with suppress(OSError):
            pending = re.search(r"^ShdPnd:\s*(\w+)", status.read_text(), re.M)
            if self.frozen and int(pending[1], 16) >> (signal.SIGTERM - 1) & 1:
                os.kill(self.frozen, signal.SIGCONT)


def say(words: str) -> None:
    print(time.strftime("%X"), words, flush=True)


def disturbed(cluster: Cluster, folder: Path) -> tuple[list[Job], Run, Run]:
    """Run the demo on `cluster` with disturbances, and locally at the same time.

    Returns the SLURM jobs, the finished local run and the finished SLURM run.
    """
    runs = []
    try:
        runs.append(Run(folder / "local", dict(os.environ), "--cores", "1"))
        runs.append(Run(folder / "slurm", cluster.environment, *OPTIONS))
        watch = Watch(cluster, folder / "slurm")
        deadline = time.monotonic() + PATIENCE
        while any(run.process.poll() is None for run in runs):
            if time.monotonic() > deadline or any(run.failed() for run in runs):
                break
            watch.look()
            time.sleep(0.3)
        for run in runs:
            if run.process.poll() != 0:
                raise RuntimeError(f"{run.output}:\n{run.output.read_text()[-6000:]}")
        watch.look()
    finally:
        for run in runs:
            run.stop()
    return sorted(watch.jobs.values(), key=lambda job: int(job.id)), *runs


def complaints(jobs: list[Job], local: Run, slurm: Run) -> list[str]:
    """Deviations from the expected resumes, disturbances and results."""
    wrong = []
    for stage, starts in STARTS.items():
        tries = [job for job in jobs if job.stage == stage]
        if [len(job.resumed) for job in tries] != starts:
            wrong.append(f"{stage}: resumed {[job.resumed for job in tries]}")
        if [job.disturbed for job in tries if job.disturbed] != DISTURBANCES[stage]:
            wrong.append(f"{stage}: disturbed by {[job.disturbed for job in tries]}")
    ours, theirs = slurm.results(), local.results()
    names = sorted(ours.keys() | theirs.keys())
    wrong += [f"{name} differs" for name in names if ours.get(name) != theirs.get(name)]
    return wrong + ([] if len(names) > 50 else [f"only {len(names)} results"])


def rows(jobs: list[Job], equal: str) -> list[list[str]]:
    """The rows of the table: one per job, and one for the whole run."""
    total = {"train": SHORT["supervised"]["steps"], "finetune": SHORT["train"]["steps"]}
    return [
        *(
            [job.id, job.stage, job.disturbed, job.state, " ".join(job.resumed),
             str(total.get(job.stage.split()[0], "")), ""]
            for job in jobs
        ),
        ["all", "", "", "", "", "", equal],
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, metavar="PATH", help="write the table there, as CSV")
    arguments = parser.parse_args()
    if reason := why_not():
        print(f"skipped: {reason}")
        sys.exit(1 if os.environ.get("SKIP_NOTHING") else 0)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder = Path(name)
        with Cluster(folder) as cluster:
            jobs, local, slurm = disturbed(cluster, folder)
        wrong = complaints(jobs, local, slurm)
        equal = len(slurm.results()) - sum("differs" in line for line in wrong)
        table = [COLUMNS, *rows(jobs, f"{equal} of {len(local.results())}")]
    widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    print(f"{time.monotonic() - started:.0f} s")
    if wrong:
        sys.exit("\n".join(wrong))
    if arguments.table:
        with open(arguments.table, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(table)


if __name__ == "__main__":
    main()
