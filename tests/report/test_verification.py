"""`verify` names every file that is missing, changed or foreign, and no other."""

import os
from pathlib import Path

import numpy as np
import pytest

from dst_cbc.data.index import Row, write_index
from dst_cbc.report.verification import verify, verify_file
from dst_cbc.runtime.checksums import record_of
from dst_cbc.runtime.files import sha256_file
from dst_cbc.runtime.job_record import Job, write
from dst_cbc.self_training.pseudo_labels import write_manifest, write_pseudo_labels

CLASSES = {"sky": "#0000ff", "road": "#808080"}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study with an index, a model, a round with labels, and what no job records."""
    monkeypatch.chdir(tmp_path)
    study, data = Path("results/study"), Path("data")
    round = study / "6_0/st/round1"
    for folder in (round, study / "logs", data):
        folder.mkdir(parents=True)
    for name in ("a.jpg", "a.png"):
        (data / name).write_text(name)
    digests = [sha256_file(data / name) for name in ("a.jpg", "a.png")]
    write_index(study / "dataset.csv", [Row("a", "a.jpg", "a.png", 2, 2, "train", *digests)])
    labels = [("b/c", np.zeros((2, 2), np.uint8)), ("d", np.ones((2, 2), np.uint8))]
    quality = np.zeros((2, 3), np.int64)
    rows = write_pseudo_labels(
        round / "pseudo_labels", labels, list(CLASSES.values()), lambda _: None, quality
    )
    write_manifest(round / "pseudo_labels.csv", rows, list(CLASSES))
    for name in ("model.pt", "run.json", "predictions.h5", "thresholds.edited.csv"):
        (round / name).write_text(name)
    for name in (".fingerprints.json", "cost.json", "logs/train.log"):
        (study / name).write_text(name)
    of_labels = ["pseudo_labels.csv", "pseudo_labels"]
    for names in (["model.pt", "run.json"], ["predictions.h5"], of_labels):
        paths = [round / name for name in names]
        write(Job(record_of(paths[0]), paths, "train", ""), {})
    index = study / "dataset.csv"
    write(Job(record_of(index), [index], "check_data", ""), {})
    return study


def found(study):
    return {(state, str(path)) for state, path in verify(study, Path("data"))}


def change(path):
    """Flip one bit and keep the time of the file."""
    status, content = path.stat(), path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_an_undisturbed_study_is_in_order(study):
    assert found(study) == set()


ROUND = "results/study/6_0/st/round1"
FILES = [
    "data/a.jpg", "data/a.png", "results/study/dataset.csv", f"{ROUND}/model.pt",
    f"{ROUND}/run.json", f"{ROUND}/predictions.h5", f"{ROUND}/pseudo_labels/b/c.png",
    f"{ROUND}/pseudo_labels/d.png",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_named(study, name):
    change(Path(name))
    assert found(study) == {("changed", name)}


@pytest.mark.parametrize("name", sorted({*FILES} - {f"{ROUND}/predictions.h5"}))
def test_a_missing_file_is_named(study, name):
    Path(name).unlink()
    assert found(study) == {("missing", name)}


def test_missing_predictions_of_a_later_round_are_no_loss(study):
    (study / "6_0/st/round1/predictions.h5").unlink()
    assert found(study) == set()


def test_labels_of_a_changed_manifest_are_not_compared_with_it(study):
    change(study / "6_0/st/round1/pseudo_labels.csv")
    assert found(study) == {("changed", f"{ROUND}/pseudo_labels.csv")}


@pytest.mark.parametrize("name", ["summary.csv", "6_0/st/round1/pseudo_labels/e.png", "6_0/x"])
def test_a_file_that_no_job_recorded_is_foreign(study, name):
    (study / name).write_text("x")
    assert found(study) == {("foreign", str(study / name))}


def test_a_deleted_record_makes_its_files_foreign_and_a_damaged_one_is_named(study):
    record = record_of(study / "6_0/st/round1/model.pt")
    of_times = record.with_suffix(".timed.json")
    change(record)
    of_times.unlink()
    assert found(study) == {
        ("changed", str(record)),
        ("foreign", f"{ROUND}/model.pt"),
        ("foreign", f"{ROUND}/run.json"),
    }  # fmt: skip


def test_one_file_can_be_verified_alone(study):
    manifest, model = (study / "6_0/st/round1" / n for n in ("pseudo_labels.csv", "model.pt"))
    change(study / "6_0/st/round1/pseudo_labels/d.png")
    assert list(verify_file(model)) == []
    ((state, path),) = verify_file(manifest)
    assert (state, path.name) == ("changed", "d.png")
    change(model)
    assert list(verify_file(model)) == [("changed", model)]
