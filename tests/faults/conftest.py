"""The undisturbed run that all cases are compared with, and the tables of cases.

Environment: FAULTS_SEED and FAULTS_COUNT choose the kills, FAULTS_SEED and FAULTS_MUTATIONS the
damage to files. FAULTS_TABLE and FAULTS_DAMAGE are CSV files to write.
"""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from corruption import Mutation, Study, kind_of
from filelock import FileLock
from pipeline import METHODS, Pipeline

from workflow import Project

SEED = int(os.environ.get("FAULTS_SEED", "0"))
COUNT = int(os.environ.get("FAULTS_COUNT", "8"))
MUTATIONS = int(os.environ.get("FAULTS_MUTATIONS", "30"))
TWO_ROUNDS = {"once": {"curriculum": [*METHODS["once"]["curriculum"], 1.0]}}
COLUMNS = ["case", "workers", "starts", "outcome"]
DAMAGE = ["file", "damage", "mutations", "next", "verify"]


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Pipeline:
    """A pipeline that ran undisturbed, with its recorded events; shared by all test processes."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    root = shared / "undisturbed"
    with FileLock(shared / "undisturbed.lock"):
        if not root.exists():
            pipeline = Pipeline.create(root)
            pipeline.arm([])
            assert pipeline.run() == 0, pipeline.printed
    return Pipeline(Project(root))


@pytest.fixture(scope="session")
def grown(finished, tmp_path_factory) -> Pipeline:
    """The pipeline whose files are damaged; many mutations get a second round with more files."""
    if MUTATIONS < 200:
        return finished
    root = finished.root.parent / "grown"
    with FileLock(root.with_suffix(".lock")):
        if not root.exists():
            pipeline = finished.copy(root)
            pipeline.project.write(root / "workflow/methods.yaml", TWO_ROUNDS)
            assert pipeline.run() == 0, pipeline.printed
    return Pipeline(Project(root))


@pytest.fixture(scope="session")
def study(grown, tmp_path_factory) -> Study:
    """The study whose copies are damaged, with its jobs and the content of its files."""
    return Study.of(grown)


@pytest.fixture
def mutation(record_property):
    """Function that adds a mutation to the table of damage."""

    def add(one: Mutation, next: str, lines: Iterable[str]) -> None:
        states = sorted({line.partition(":")[0] for line in lines})
        record_property("damage", [kind_of(one.path), one.sort, next, " and ".join(states)])

    return add


@pytest.fixture
def case(record_property):
    """Function that adds a case to the table."""

    def add(name: str, outcome: str, workers: int = 0, starts: int | str = "") -> None:
        record_property("fault", [name, workers, starts, outcome])

    return add


def pytest_collection_modifyitems(items):
    """Mark these tests as slow: each runs a whole workflow, some of them many times."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("slow")


def pytest_terminal_summary(terminalreporter):
    reports = [one for reports in terminalreporter.stats.values() for one in reports]
    if table := os.environ.get("FAULTS_TABLE"):
        rows = properties(reports, "fault")
        for report in reports:
            if getattr(report, "skipped", False):
                rows.append([report.nodeid, "", "", f"skipped: {report.longrepr[2]}"])
        write(table, COLUMNS, sorted(rows, key=lambda row: (str(row[1]), str(row[0]))))
    if table := os.environ.get("FAULTS_DAMAGE"):
        counts = Counter(map(tuple, properties(reports, "damage")))
        rows = [[file, sort, count, *then] for (file, sort, *then), count in counts.items()]
        write(table, DAMAGE, sorted(rows))


def properties(reports: Iterable, name: str) -> list:
    """Values that tests have recorded by this name."""
    return [
        value
        for report in reports
        if getattr(report, "when", "") == "call"
        for key, value in report.user_properties
        if key == name
    ]


def write(path: str, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
