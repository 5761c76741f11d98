"""A copy of the workflow in its own folder, with a tiny experiment, run as a user would run it."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = REPOSITORY / "scripts"

EXPERIMENT = {
    "name": "tiny",
    "data": "results/scenes",
    "format": "digits",
    "digits": {"size": 32, "train": 14, "val": 4, "test": 3, "digits": [2, 3]},
    "network": {"backbone": "small", "output_stride": 4, "aspp_rates": [1]},
    "train": {
        "steps": 3,
        "validate_every": 2,
        "batch": 4,
        "crop": [24, 24],
        "learning_rate": 0.05,
        "gamma": 1,
    },
    "supervised": {"steps": 6},
    "evaluation": {"select": "val", "report": ["val", "test"], "batch": 4},
    "splits": {"6": {"count": 6}},
    "runs": [{"splits": ["6"], "seeds": [0], "methods": ["dst-cbc"]}],
}

METHODS = {
    "dst-cbc": {"curriculum": [0.2, 0.6, 1.0]},
    "dst-c": {"curriculum": [0.5, 1.0], "balance": "global"},
    "supervised-long": {"labeling": "none", "match": "dst-cbc"},
}


@dataclass
class Project:
    """A folder with a Snakefile, the workflow, scripts and config.yaml."""

    root: Path

    @classmethod
    def create(cls, root: Path, **changes: Any) -> Project:
        """Copy the workflow, with the tiny experiment; `changes` replace its keys."""
        for name in ("workflow", "scripts", "profiles", "envs"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPOSITORY / name, root / name, ignore=ignore)
        shutil.copy(REPOSITORY / "Snakefile", root)
        project = cls(root)
        project.write(root / "workflow/methods.yaml", METHODS)
        project.configure(**changes)
        return project

    def copy(self, root: Path) -> Project:
        """Copy everything, with results and Snakemake's records."""
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root)

    def divide_into_parts(self, images: int) -> None:
        """Let each part of the predictions hold only this number of images, so that few suffice."""
        settings = self.root / "scripts/dst_cbc/settings/stages.py"
        text, count = re.subn("PART_IMAGES = 256", f"PART_IMAGES = {images}", settings.read_text())
        assert count == 1
        settings.write_text(text)

    def configure(self, **changes: Any) -> None:
        """Write config.yaml: the tiny experiment with `changes`."""
        self.write(self.root / "config.yaml", {**EXPERIMENT, **changes})

    @staticmethod
    def write(path: Path, content: dict) -> None:
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    @property
    def study(self) -> Path:
        return self.root / "results/tiny"

    def snakemake(self, *arguments: str, fails: bool = False, cwd: Path | None = None) -> str:
        """Run Snakemake; return all that it printed. fails: whether it is expected to fail."""
        command = ["--cores", "2", "--nocolor", *arguments]
        status, output = run_snakemake(command, cwd or self.root)
        assert (status != 0) == fails, output
        return output

    def jobs(self, *arguments: str, cwd: Path | None = None) -> Counter[str]:
        """The jobs of a dry run as `rule folder`, with the folder relative to the study."""
        output = self.snakemake("-n", *arguments, cwd=cwd)
        if "Nothing to be done" in output:
            return Counter()
        blocks = jobs_in(output)
        assert blocks, output
        return Counter(
            f"{rule} {_folder(block)}".strip() for rule, block in blocks if rule != "all"
        )

    def trained(self, *arguments: str) -> list[str]:
        """Folders of the models that a dry run would train."""
        return sorted(
            job.split()[1] for job in self.jobs(*arguments) if job.startswith(("train", "finetune"))
        )


def new_experiment(monkeypatch, work: Path, *arguments: object) -> None:
    """Run new_experiment.py in this process, in the folder `work`."""
    work.mkdir(exist_ok=True)
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "argv", ["new_experiment.py", *map(str, arguments)])
    runpy.run_path(str(SCRIPTS / "new_experiment.py"))["run"]()


@cache
def _snakemakes() -> subprocess.Popen:
    """The process that runs Snakemake for this test process."""
    command = [sys.executable, "-P", REPOSITORY / "tests/warm_snakemake.py"]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )


def run_snakemake(arguments: list[str], folder: Path) -> tuple[int, str]:
    """Exit status of Snakemake, and what it printed to stdout and stderr."""
    with TemporaryDirectory() as name:
        printed = [Path(name, "stdout"), Path(name, "stderr")]
        for path in printed:
            path.touch()
        order = [arguments, str(folder), dict(os.environ), *map(str, printed)]
        running = _snakemakes()
        print(json.dumps(order), file=running.stdin, flush=True)
        return int(running.stdout.readline()), "".join(path.read_text() for path in printed)


def jobs_in(printed: str) -> list[tuple[str, str]]:
    """Rule and description of each job that a dry run printed."""
    return re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", printed, re.MULTILINE)


def _folder(block: str) -> str:
    """Folder of a job's first output, relative to the study; empty if it is elsewhere."""
    output = re.search(r"output: results/tiny/([^,\n]*)", block)
    return output[1].rpartition("/")[0] if output else ""


def results(study: Path, *patterns: str) -> dict[str, bytes]:
    """Bytes of the files below a study that match any of the patterns."""
    files = sorted({path for pattern in patterns for path in study.rglob(pattern)})
    return {str(path.relative_to(study)): path.read_bytes() for path in files if path.is_file()}
