"""The undisturbed run that all cases are compared with, and the table of cases.

Environment: FAULTS_SEED and FAULTS_COUNT choose the kills; FAULTS_TABLE is a CSV file to write.
"""

import csv
import os
from pathlib import Path

import pytest
from filelock import FileLock
from pipeline import Pipeline

from workflow import Project

SEED = int(os.environ.get("FAULTS_SEED", "0"))
COUNT = int(os.environ.get("FAULTS_COUNT", "8"))
COLUMNS = ["case", "workers", "starts", "outcome"]


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
    if "FAULTS_TABLE" not in os.environ:
        return
    rows = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                rows += [value for key, value in report.user_properties if key == "fault"]
            if getattr(report, "skipped", False):
                rows.append([report.nodeid, "", "", f"skipped: {report.longrepr[2]}"])
    with open(Path(os.environ["FAULTS_TABLE"]), "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(sorted(rows, key=lambda row: (str(row[1]), str(row[0]))))
