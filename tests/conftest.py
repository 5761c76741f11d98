"""One thread, derandomized properties, and the small data sets that several tests share.

With SKIP_NOTHING in the environment, a test that this machine cannot run fails, instead of being
skipped.
"""

import os
import signal

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from dst_cbc.data.digit_scenes import CLASSES, write_scenes
from dst_cbc.data.index import Row
from dst_cbc.data.records import list_records
from dst_cbc.runtime.files import sha256_file
from dst_cbc.self_training.pseudo_labels import Labeled, write_manifest
from dst_cbc.settings.data import DatasetStage, DrawSettings
from dst_cbc.settings.experiment import Experiment

# torch reads these variables when a test module imports it; no import above imports torch.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get("SKIP_NOTHING"):
        report.outcome = "failed"
        report.longrepr = f"not run: {report.longrepr[2]}"
    return report


@pytest.fixture(scope="session")
def small_scenes():
    """Settings of a data set of 8 training, 3 validation and 2 test scenes of 40 pixels."""
    return DrawSettings(size=40, train=8, val=3, test=2, digits=(2, 3), digit_size=(12.0, 14.0))


@pytest.fixture(scope="session")
def digits_dataset(small_scenes):
    """Settings of a data set of `small_scenes`."""
    return DatasetStage(
        format="digits",
        classes=CLASSES,
        labels=dict(enumerate(CLASSES)),
        ignore=(255,),
        test_from_val=0,
        digits=small_scenes,
    )


@pytest.fixture(scope="session")
def drawn(tmp_path_factory, small_scenes):
    """Folder with the drawn `small_scenes`; tests must not change it."""
    folder = tmp_path_factory.mktemp("digits")
    write_scenes(small_scenes, folder)
    return folder


@pytest.fixture(scope="session")
def drawn_rows(drawn, digits_dataset):
    """Rows of dataset.csv for `drawn`, by subset."""
    rows = {"train": [], "val": [], "test": []}
    for record in list_records(drawn, digits_dataset):
        digests = [sha256_file(drawn / path) for path in (record.image, record.label)]
        rows[record.subset].append(
            Row(record.id, record.image, record.label, 40, 40, record.subset, *digests)
        )
    return rows


@pytest.fixture(scope="session")
def folder_dataset():
    """Settings of a data set in the layout `folder` with classes sky, road and car."""
    return DatasetStage(
        format="folder",
        classes={"sky": "#0000ff", "road": "#808080", "car": "#ff0000"},
        labels={0: "sky", 1: "road", 2: "car"},
        ignore=(255,),
        test_from_val=0,
        digits=None,
    )


@pytest.fixture
def write_image():
    """Function that writes an array as an image file and makes its folders."""

    def write(path, pixels):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def list_labels():
    """Function that writes the manifest beside a folder of pseudo labels, for the size 20 x 40."""

    def write(folder, names):
        none = np.zeros(len(names), np.int64)
        pngs = {
            str(path.relative_to(folder).with_suffix("")): path for path in folder.rglob("*.png")
        }
        rows = [Labeled(id, sha256_file(path), 20, 40, none) for id, path in pngs.items()]
        write_manifest(folder.with_suffix(".csv"), rows, list(names))

    return write


@pytest.fixture
def make_experiment():
    """Function that returns a small experiment with some keys changed."""

    def make(**changes):
        content = {
            "name": "study",
            "data": "pictures",
            "format": "folder",
            "classes": {"sky": "#0000ff", "road": "#808080"},
            "train": {"batch": 4, "steps": 10, "validate_every": 4},
            "supervised": {"steps": 7},
            "splits": {"few": {"count": 4}},
            "runs": [{"splits": ["few"], "methods": ["dst-cbc"]}],
        }
        return Experiment.model_validate({**content, **changes})

    return make


@pytest.fixture
def no_waiting():
    """Turns a call that would wait, or work without an end, into a failure."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("not finished after 20 s"))
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
