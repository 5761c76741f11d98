"""Studies of an earlier version: what has not changed stays finished, and the rest continues.

The studies in tests/rules/studies were made by commit 6a2a218. `finished` has every method that
workflow/methods.yaml had then. `unfinished` was killed (kill -9) after the second step of round 3
of dst-cbc; its state was saved after the first step.
"""

import csv
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from workflow import REPOSITORY, Project

STUDIES = Path(__file__).parent / "studies"


@pytest.fixture
def unpacked(tmp_path):
    """Return a function that unpacks a study beside the current workflow, as after an update."""

    def unpack(name):
        project = Project.create(tmp_path / name)
        shutil.copy(REPOSITORY / "workflow/methods.yaml", project.root / "workflow")
        with tarfile.open(STUDIES / f"{name}.tar.xz") as archive:
            archive.extractall(project.root, filter="data")
        return project

    return unpack


CBST = [f"3_0/cbst/round{number}" for number in range(1, 6)]
"""The models whose pseudo labels a later version makes otherwise: those of rule `normalized`."""


def test_of_a_finished_study_only_what_would_change_is_listed(unpacked):
    project = unpacked("finished")
    done = {path.parent.relative_to(project.study) for path in project.study.rglob("model.pt")}
    assert len(done) == 29
    output = project.snakemake("-n", fails=True)
    listed = re.findall(r"results/tiny/(\S+): (.*)", output)
    assert listed == [(model, "thresholds.algorithm: 1 -> 2") for model in CBST]


def test_labels_made_otherwise_are_made_again_also_after_a_run_that_was_stopped(unpacked):
    """The thresholds of round 1 are the same to the byte, so the labels may not wait for them."""
    project, replace = unpacked("finished"), ("--config", "replace=true")
    path = project.study / CBST[0] / "thresholds.csv"
    before = path.read_bytes()
    project.snakemake("results/tiny/3_0/cbst/round1/thresholds.csv", *replace)
    assert path.read_bytes() == before
    jobs = project.jobs(*replace)
    assert {job for job in jobs if job.startswith("pseudo_labels")} == {
        f"pseudo_labels {model}" for model in CBST
    }
    others = [job for job in jobs if " " in job and "report" not in job and "cbst" not in job]
    # Only evaluations, which that version made without the matrix of each image.
    assert {job.split()[0] for job in others} == {"evaluate"}
    assert project.trained(*replace) == CBST


@pytest.mark.slow
def test_an_unfinished_study_is_finished(unpacked):
    project = unpacked("unfinished")
    chain = project.study / "3_0/dst-cbc"
    before = {path: path.read_bytes() for path in chain.rglob("round[12]/*") if path.is_file()}
    assert project.trained() == [f"3_0/dst-cbc/round{number}" for number in (3, 4, 5)]
    project.snakemake()
    assert not project.jobs()
    log = (project.study / "logs/3_0/dst-cbc/round3/finetune.log").read_text()
    assert "saved by an earlier version in another format; starts again at the first step" in log
    with open(project.study / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 2 * 2 and all(row["miou"] for row in rows)
    assert not list((project.root / "results/.resume/tiny").rglob("state.pt"))
    assert before and all(path.read_bytes() == content for path, content in before.items())
