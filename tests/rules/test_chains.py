"""Chains with other switches: peer labels, sampled thresholds, restarts, snapshots.

One study has them all; the tests check that the switches of a method's row reach the files.
"""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from dst_cbc.models.segmentation import read_model
from dst_cbc.report.agreement import labels_from
from dst_cbc.runtime.reading import read_ids
from dst_cbc.self_training.predictions import read_histogram, read_predictions
from dst_cbc.self_training.pseudo_labels import label_pixels
from dst_cbc.self_training.thresholds import read_cutoffs
from workflow import Project

pytestmark = pytest.mark.slow

METHODS = {
    "peers": {
        "curriculum": [0.5, 1.0], "teacher": "peer", "chains": {"a": {}, "b": {"seed": 7}},
    },
    "anew": {
        "curriculum": [0.5], "start": "restart", "best": "restart", "snapshots": 3,
        "threshold_sampling": 16, "weighting": "original",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    runs = [{"splits": ["6"], "seeds": [0], "methods": list(METHODS)}]
    project = Project.create(tmp_path_factory.mktemp("chains") / "project", runs=runs)
    project.write(project.root / "workflow/methods.yaml", METHODS)
    project.snakemake()
    return project


def settings_of(folder):
    return json.loads((folder / "settings.json").read_text())


@pytest.fixture
def folder(study):
    return study.study / "6_0"


def test_the_study_is_whole_and_nothing_is_made_twice(study):
    assert not study.jobs()
    with open(study.study / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["method"], row["round"]) for row in rows} == {
        ("supervised", "0"), ("anew", "1"),
        ("peers/a", "1"), ("peers/a", "2"), ("peers/b", "1"), ("peers/b", "2"),
    }  # fmt: skip
    assert all(row["miou"] for row in rows)
    steps = {(row["method"], row["round"]): row["steps"] for row in rows}
    assert steps["peers/b", "2"] == "12" and steps["anew", "1"] == "9"
    for page in ("peers/a", "peers/b", "anew"):
        assert (study.study / "6_0" / page / "gallery.html").is_file()


@pytest.mark.parametrize(
    "round, source",
    [
        ("peers/a/round1", "supervised/predictions.h5"),
        ("peers/a/round2", "peers/b/round1/predictions.h5"),
        ("peers/b/round2", "peers/a/round1/predictions.h5"),
        ("anew/round1", "supervised/predictions@sampling=16.h5"),
    ],
)
def test_labels_are_made_of_the_predictions_of_the_stated_model(round, source, study, folder):
    """The labels are computed again from the files."""
    assert labels_from(folder / round) == folder / source
    classes = list(
        json.loads((folder / "supervised/settings.json").read_text())["dataset"]["classes"]
    )
    cutoffs = read_cutoffs(folder / round / "thresholds.csv", [name for name, _ in classes])
    ids = read_ids(study.study / "splits/6_0.unlabeled.txt")
    for prediction in read_predictions(folder / source, ids):
        with Image.open(folder / round / f"pseudo_labels/{prediction.id}.png") as image:
            assert np.array_equal(np.asarray(image), label_pixels(prediction, cutoffs))


def test_predictions_that_count_otherwise_lie_beside_the_common_ones(folder):
    counts = {
        view: read_histogram(folder / f"supervised/histogram{view}.npz").sum()
        for view in ("", "@sampling=16")
    }
    assert counts == {"": 8 * 32 * 32, "@sampling=16": 8 * 32 * 32 // 16}


def test_a_chain_that_starts_anew_owes_the_round_before_nothing_but_labels(folder):
    last, supervised = (
        read_model(folder / path).network.state_dict()
        for path in ("anew/round1/last.pt", "supervised/last.pt")
    )
    settings = json.loads((folder / "anew/round1/settings.json").read_text())
    assert (
        settings["network"]
        == json.loads((folder / "supervised/settings.json").read_text())["network"]
    )
    # Three steps from initial weights, not three more steps of `supervised`.
    assert last["backbone.0.1.num_batches_tracked"] == 3
    assert supervised["backbone.0.1.num_batches_tracked"] == 6
    # The best of this round, even if round 0 was better.
    assert read_model(folder / "anew/round1/model.pt").record["round"] == 1


def test_snapshots_are_the_weights_at_equal_distances(folder):
    paths = sorted((folder / "anew/round1/snapshots").glob("*.pt"))
    assert [path.name for path in paths] == ["1.pt", "2.pt", "3.pt"]
    models = [read_model(path) for path in paths]
    assert [model.record["step"] for model in models] == [1, 2, 3]
    last = read_model(folder / "anew/round1/last.pt").network.state_dict()
    states = [model.network.state_dict() for model in models]
    assert all((states[2][key] == last[key]).all() for key in last)
    assert not (states[0]["head.0.weight"] == states[1]["head.0.weight"]).all()
    assert not list(folder.glob("peers/**/snapshots"))


def test_an_edit_in_one_chain_reruns_what_its_labels_reach_and_nothing_else(study, tmp_path):
    project = study.copy(tmp_path / "edited")
    place = project.study / "6_0/peers/a/round1"
    text = (place / "thresholds.csv").read_text()
    (place / "thresholds.edited.csv").write_text(text)
    assert project.trained() == ["6_0/peers/a/round1", "6_0/peers/a/round2", "6_0/peers/b/round2"]


def test_a_prediction_can_be_asked_for_by_name(study):
    path = "results/tiny/6_0/peers/b/round2/predictions.h5"
    assert list(study.jobs(path)) == ["predict_round 6_0/peers/b/round2"]
    study.snakemake("-n", path.replace(".h5", "@sampling=4.h5"), fails=True)
