"""Run a short demo on a real SLURM of one node, disturb it, and compare it with a local run.

Starts munged, slurmctld and slurmd in a temporary folder, and stops them. One training runs into
its time limit, one is cancelled, one is put back into the queue as by preemption; all must go on
where they were, and every result must have the bytes of a run without SLURM.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
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
    # Longer than its time limit of a minute on any machine of today.
    "supervised": {"steps": 1600, "validate_every": 400},
    "train": {**DEMO["train"], "steps": 240, "validate_every": 120},
    "save_seconds": 1,
}
METHODS = {"dst-cbc": {"curriculum": [0.4, 1.0]}}
FILLED_IN = {'slurm_partition: "gpu"': 'slurm_partition: "main"', "TERM@300": "TERM@5"}
"""A person's line of the profile; and less time to save in, for the limit is a minute."""
OPTIONS = [
    "--workflow-profile", "profiles/slurm",
    "--set-resources", "train:runtime=1 if attempt == 1 else 10",
    "--slurm-status-command", "squeue",
    "--slurm-init-seconds-before-status-checks", "1",
    "--latency-wait", "5",
]  # fmt: skip
LIMIT, CANCEL, REQUEUE = "time limit", "scancel", "scontrol requeue"
DISTURBANCE = {"train 12_0 supervised": LIMIT, "finetune 12_0 dst-cbc 1": CANCEL,
               "finetune 12_0 dst-cbc 2": REQUEUE}  # fmt: skip
LOGS = {"train 12_0 supervised": "12_0/supervised/train.log",
        "finetune 12_0 dst-cbc 1": "12_0/dst-cbc/round1/finetune.log",
        "finetune 12_0 dst-cbc 2": "12_0/dst-cbc/round2/finetune.log"}  # fmt: skip
COMPARED = ("*.pt", "history.csv", "metrics.json", "thresholds.csv", "*.h5", "*.png", "*labels.csv")
COLUMNS = ("job", "stage", "disturbed by", "ended as", "resumed at step", "of")
PATIENCE = 900  # seconds, for all


@dataclass
class Job:
    """One job of SLURM's: a try of a stage, which is a rule and its wildcards."""

    id: str
    stage: str
    state: str = ""
    disturbed: str = ""
    resumed: str = ""


class Run:
    """A project of the short demo, and the Snakemake that runs it."""

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
                [sys.executable, "-m", "snakemake", "--nocolor", *options],
                cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def stop(self) -> None:
        """As Ctrl-C would, and harder if that does not do."""
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
    """What SLURM's jobs have gone through; it disturbs each training once, in its first try."""

    def __init__(self, cluster: Cluster, study: Path):
        self.cluster, self.study = cluster, study
        self.jobs: dict[str, Job] = {}
        self.tried: set[str] = set()

    def look(self) -> None:
        queue = self.cluster.ask("squeue", "-h", "-t", "all", "-o", "%i|%T|%k")
        for line in queue.splitlines():
            id, state, comment = line.split("|")
            stage = comment.removeprefix("rule_").replace("_wildcards_", " ", 1)
            stage = stage.replace("12_0_", "12_0 ").replace("dst-cbc_", "dst-cbc ")
            job = self.jobs.setdefault(id, Job(id, stage))
            if job.state != state:
                job.state = state
                print(f"{time.strftime('%X')} job {id}, {stage}: {state}", flush=True)
            if state == "RUNNING" and stage in LOGS:
                self._disturb(job)
                found = re.findall(r"resumed at step (\d+)", self._log(stage))
                if stage in self.tried and found:
                    job.resumed = found[-1]

    def _log(self, stage: str) -> str:
        path = self.study / "logs" / LOGS[stage]
        return path.read_text() if path.is_file() else ""

    def _disturb(self, job: Job) -> None:
        """Half-way: after the first of two or three validations."""
        if job.stage in self.tried:
            return
        kind = DISTURBANCE[job.stage]
        if kind == LIMIT or "\nstep " in self._log(job.stage):
            self.tried.add(job.stage)
            job.disturbed = kind
            print(f"{time.strftime('%X')} job {job.id}, {job.stage}: {kind}", flush=True)
            if kind != LIMIT:
                self.cluster.ask(*kind.split(), job.id)


def disturbed(cluster: Cluster, folder: Path) -> tuple[list[Job], Run, Run]:
    """Run the demo on `cluster`, disturbed, and at the same time here. Returns both, finished."""
    runs = []
    try:
        runs.append(Run(folder / "local", dict(os.environ), "--cores", "1"))
        runs.append(Run(folder / "slurm", cluster.environment, *OPTIONS))
        watch = Watch(cluster, runs[1].project.study)
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
    """What is not as it should be."""
    wrong = []
    steps = {job.stage: [other for other in jobs if other.stage == job.stage] for job in jobs}
    for stage, kind in DISTURBANCE.items():
        tries = steps.get(stage, [])
        if len(tries) != (1 if kind == REQUEUE else 2):
            wrong.append(f"{stage}, {kind}: {len(tries)} jobs")
        elif not int(tries[-1].resumed or 0):
            wrong.append(f"{stage}, {kind}: did not resume")
    ours, theirs = slurm.results(), local.results()
    names = sorted(ours.keys() | theirs.keys())
    wrong += [f"{name} differs" for name in names if ours.get(name) != theirs.get(name)]
    return wrong + ([] if names else ["no results"])


def rows(jobs: list[Job]) -> list[list[str]]:
    total = {"train": SHORT["supervised"]["steps"], "finetune": SHORT["train"]["steps"]}
    return [
        [job.id, job.stage, job.disturbed, job.state, job.resumed,
         str(total.get(job.stage.split()[0], ""))]
        for job in jobs
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
        table = [COLUMNS, *rows(jobs)]
        table.append(["", f"{equal} of {len(local.results())} files have the local run's bytes"])
    widths = [max(len(row[i]) for row in table[:-1]) for i in range(len(COLUMNS))]
    for row in table[:-1]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    print(table[-1][1])
    print(f"{time.monotonic() - started:.0f} s")
    if wrong:
        sys.exit("\n".join(wrong))
    if arguments.table:
        with open(arguments.table, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(table)


if __name__ == "__main__":
    main()
