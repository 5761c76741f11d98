"""The cells of a table of gains: which models, which costs, and what is not there yet."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from dst_cbc.inference.confusions import Confusions, write_confusions
from dst_cbc.inference.metrics import report
from dst_cbc.planning.gained import gain_cells
from dst_cbc.planning.plan import load_plan
from dst_cbc.runtime.files import write_json
from dst_cbc.runtime.tables import write_csv
from dst_cbc.settings.gain_table import read_gain_table
from dst_cbc.settings.yaml_files import ConfigError
from workflow import EXPERIMENT, REPOSITORY

IMAGES = ["test-0000", "test-0001", "test-0002"]
TRAIN = {**EXPERIMENT["train"], "steps": 10, "validate_every": 10}
EXPERIMENT = {
    **EXPERIMENT,
    "compute_threads": 2,
    "workers": 1,
    "train": TRAIN,
    "supervised": {"steps": 20},
    "splits": {"6": {"count": 6}, "6b": {"count": 6}},
    "runs": [
        {"splits": ["6", "6b"], "methods": ["st"]},
        {"splits": ["6"], "methods": ["supervised-long"]},
    ],
}
TABLE = {
    "studies": {"town-a": {"dataset": "Town", "test": "a", "files": ["shared.yaml", "a.yaml"]}},
    "scenarios": {"6b": "seen"},
}


@pytest.fixture
def table(tmp_path, monkeypatch):
    """The file of a table of one study, in the working folder."""
    monkeypatch.chdir(tmp_path)
    content = {"shared.yaml": EXPERIMENT, "a.yaml": {"digits": {"seed": 3}}, "table.yaml": TABLE}
    for name, one in content.items():
        (tmp_path / name).write_text(yaml.safe_dump(one))
    return tmp_path / "table.yaml"


def cells_of(table, **changes):
    read = read_gain_table(table, changes)
    return {
        (one.scenario, one.method, one.checkpoint): one
        for one in gain_cells(REPOSITORY, table.parent, read, "test")
    }


def finish(table, right):
    """Write the results of all models; `right`: pixels of 10 that the models of 6b get right."""
    files = [table.parent / name for name in TABLE["studies"]["town-a"]["files"]]
    plan = load_plan(REPOSITORY, files, {"name": "town-a"})[2]
    study, classes = Path("results/town-a"), list(plan.dataset.classes)
    ids = [*plan.train_ids, *IMAGES]
    sizes = {"height": 48, "width": 24, "image_sha256": "0" * 64, "label_sha256": "0" * 64}
    rows = [
        {"id": id, "image": f"{id}.png", "label": f"{id}.png", "subset": "train", **sizes}
        for id in ids
    ]
    columns = [
        "id", "image", "label", "height", "width", "subset", "image_sha256", "label_sha256",
        "black", "white",
    ]  # fmt: skip
    study.mkdir(parents=True)
    write_csv(study / "dataset.csv", columns, rows)
    matrices = np.zeros((3, len(classes), len(classes)), np.int64)
    for model in plan.models.values():
        folder = study / model.path
        matrices[:, 0, 0] = right if model.division == "6b_0" else 5
        matrices[:, 0, 1] = 10 - matrices[:, 0, 0]
        figures = {"images": 3, **report(matrices, classes, [0, 1, 2])}
        subsets = {"subsets": {"test": figures}, "round": model.round}
        write_json(folder / "metrics.json", {"best": subsets, "last": subsets})
        found = Confusions(IMAGES, matrices)
        write_confusions(
            folder / "confusions.csv", {("best", "test"): found, ("last", "test"): found}
        )
        write_json(folder / "settings.json", model.settings.model_dump(mode="json"))
        write_json(
            folder / "run.json", {"commit": None, "device": "cpu", "versions": {}, "seconds": 60}
        )
        prediction = study / "benchmarks" / model.path / "predict.tsv"
        prediction.parent.mkdir(parents=True)
        prediction.write_text("s\th:m:s\n20\t0:00:20\n")


def test_a_cell_for_each_method_split_and_checkpoint_before_anything_is_finished(table):
    cells = cells_of(table)
    methods = {("6", "supervised"), ("6", "st"), ("6", "supervised-long")}
    methods |= {("seen", "supervised"), ("seen", "st")}
    assert {*cells} == {(*one, checkpoint) for one in methods for checkpoint in ("best", "last")}
    assert {one.dataset for one in cells.values()} == {"Town"}
    assert {(one.test, one.labels, one.seed) for one in cells.values()} == {("a", 6, 0)}
    assert all(one.points is None and one.steps is None for one in cells.values())
    assert cells["6", "st", "best"].labeled == cells["seen", "st", "best"].labeled


def test_a_finished_cell_has_the_points_and_costs_of_its_chain(table):
    finish(table, right=8)
    cells = cells_of(table)
    supervised, ours = cells["seen", "supervised", "best"], cells["seen", "st", "last"]
    # 8 of 10 pixels, and no pixel of the second class that is predicted: (0.8 + 0) / 2. The
    # numbers in the names make two groups of the three images.
    assert ours.points == pytest.approx([40] * 3)
    assert ours.images == IMAGES
    # Five rounds' worth of 10 steps, and round 0.
    assert (supervised.steps, ours.steps) == (20, 70)
    # A step of 4 crops counts 3 times. Eight images are predicted, each as large as two crops.
    assert supervised.passes == 20 * 4 * 3
    assert ours.passes == (20 + 50) * 4 * 3 + 8 * 2
    # Two trainings of a minute and a prediction of 20 s, on 2 + 1 cores.
    assert supervised.core_minutes == 3
    assert ours.core_minutes == pytest.approx(3 * (2 + 20 / 60))
    # The control trains from the start: no round 0 before it.
    control = cells["6", "supervised-long", "best"]
    assert (control.steps, control.core_minutes) == (70, 3)


def test_a_model_without_its_matrices_is_not_finished(table):
    finish(table, right=8)
    Path("results/town-a/6b_0/st/round1/confusions.csv").unlink()
    cells = cells_of(table)
    assert cells["seen", "st", "best"].points is None
    assert cells["seen", "supervised", "best"].points is not None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"scenario": {}}, "--config: scenario: unknown key; did you mean 'scenarios'?"),
        ({"studies": {"town-a": {"tests": "a"}}}, "studies.town-a.tests: unknown key"),
        ({"studies": {"town-a": {"files": []}}}, "--config: studies.town-a.files"),
    ],
)
def test_a_wrong_key_of_the_table_is_named(table, changes, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        read_gain_table(table, changes)


def test_wrong_keys_of_a_study_are_named_with_their_file(table):
    (table.parent / "a.yaml").write_text("digits: {sead: 3}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: digits\.sead: unknown key"):
        cells_of(table)


def test_data_that_are_elsewhere_replace_those_of_the_data_set_s_studies(table):
    read = read_gain_table(table, {"data": {"Town": "results/moved"}})
    assert read.experiment("town-a", table.parent)["data"] == "results/moved"
    other = read_gain_table(table, {"data": {"Field": "results/moved"}})
    assert other.experiment("town-a", table.parent)["data"] == EXPERIMENT["data"]
    assert other.experiment("town-a", table.parent)["digits"]["seed"] == 3
