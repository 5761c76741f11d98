"""Studies of earlier versions stay what they were: what is finished is finished, the rest goes on.

tests/data/studies, made by commit 6a2a218: `finished` has every method of workflow/methods.yaml of
then; `unfinished` was killed (kill -9) after the second step of the third round of dst-cbc, its
state saved after the first.
"""

import shutil
import tarfile
from pathlib import Path

import pytest

from workflow import REPOSITORY, Project

STUDIES = Path(__file__).parent / "data/studies"


@pytest.fixture
def unpacked(tmp_path):
    """Function that unpacks a study beside today's workflow, as an update leaves it."""

    def unpack(name):
        project = Project.create(tmp_path / name)
        shutil.copy(REPOSITORY / "workflow/methods.yaml", project.root / "workflow")
        with tarfile.open(STUDIES / f"{name}.tar.xz") as archive:
            archive.extractall(project.root, filter="data")
        return project

    return unpack


def test_a_finished_study_of_every_method_has_nothing_to_do(unpacked):
    project = unpacked("finished")
    done = {path.parent.relative_to(project.study) for path in project.study.rglob("model.pt")}
    assert len(done) == 29
    assert not project.jobs()
