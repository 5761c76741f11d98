"""A copy of the workflow in a folder of its own, with a tiny experiment, driven as a user would."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
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
    """A folder with Snakefile, workflow, scripts and config.yaml."""

    root: Path

    @classmethod
    def create(cls, root: Path, **changes: Any) -> Project:
        """The workflow with the tiny experiment; `changes` replace keys of it."""
        for name in ("workflow", "scripts", "profiles", "envs"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPOSITORY / name, root / name, ignore=ignore)
        shutil.copy(REPOSITORY / "Snakefile", root)
        project = cls(root)
        project.write(root / "workflow/methods.yaml", METHODS)
        project.configure(**changes)
        return project

    def copy(self, root: Path) -> Project:
        """A copy of everything, results and Snakemake's records too."""
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root)

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
        """Run Snakemake; returns all that it printed."""
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor", *arguments]
        done = subprocess.run(
            command, cwd=cwd or self.root, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        output = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, output
        return output

    def jobs(self, *arguments: str, cwd: Path | None = None) -> Counter[str]:
        """What a dry run would do: `rule folder` for each job, `folder` below the study."""
        output = self.snakemake("-n", *arguments, cwd=cwd)
        if "Nothing to be done" in output:
            return Counter()
        blocks = jobs_in(output)
        assert blocks, output
        return Counter(
            f"{rule} {_folder(block)}".strip() for rule, block in blocks if rule != "all"
        )

    def trained(self, *arguments: str) -> list[str]:
        """The models that a dry run would train."""
        return sorted(
            job.split()[1] for job in self.jobs(*arguments) if job.startswith(("train", "finetune"))
        )


def jobs_in(printed: str) -> list[tuple[str, str]]:
    """The rule of each job that a dry run printed, and what it said of the job."""
    return re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", printed, re.MULTILINE)


def _folder(block: str) -> str:
    """Folder below the study of a job's first output."""
    output = re.search(r"output: results/tiny/([^,\n]*)", block)
    return output[1].rpartition("/")[0] if output else ""


def results(study: Path, *patterns: str) -> dict[str, bytes]:
    """Bytes of the files below a study that match any of the patterns."""
    files = sorted({path for pattern in patterns for path in study.rglob(pattern)})
    return {str(path.relative_to(study)): path.read_bytes() for path in files if path.is_file()}
