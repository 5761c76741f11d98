"""Selection on a few images of val: the plan, the images validated on, and the report."""

import json

import pytest
import torch

from dst_cbc.data.index import read_index
from dst_cbc.data.layouts import LAYOUTS
from dst_cbc.data.layouts.layout import Record
from dst_cbc.data.records import selecting
from dst_cbc.inference import whole_images
from dst_cbc.inference.metrics import mean_iou
from dst_cbc.models import segmentation
from dst_cbc.planning.cost import schedule
from dst_cbc.planning.plan import Plan
from dst_cbc.runtime.tables import read_csv
from dst_cbc.settings.methods import MethodRow
from dst_cbc.settings.yaml_files import ConfigError
from workflow import EXPERIMENT, Project

METHODS = {"st": MethodRow(curriculum=[1.0])}
BOTH = [
    {"splits": ["few"], "methods": ["st"]},
    {"splits": ["few"], "methods": ["st"], "select": "valtiny"},
]


def records():
    return [
        Record(f"{subset}{i}", f"{subset}{i}.png", f"{subset}{i}.png", subset)
        for subset, count in (("train", 20), ("val", 5), ("test", 3))
        for i in range(count)
    ]


@pytest.fixture
def plan(make_experiment, tmp_path):
    """Function that plans an experiment whose valtiny are val3 and val1, or the ids in `lines`."""

    def make(lines="val3\nval1\n", **changes):
        (tmp_path / "tiny.txt").write_text(lines)
        changes = {"evaluation": {"valtiny": "tiny.txt"}, "runs": BOTH[:1], **changes}
        return Plan(make_experiment(**changes), METHODS, records(), tmp_path)

    return make


def test_a_run_may_select_otherwise_in_a_folder_of_its_own(plan):
    found = plan(runs=BOTH)
    assert list(found.models) == [
        f"{division}/{name}"
        for division in ("few_0", "few_0_valtiny")
        for name in ("supervised", "st/round1")
    ]
    for path, model in found.models.items():
        stage = model.settings.train
        tiny = path.startswith("few_0_valtiny/")
        assert stage.select == ("valtiny" if tiny else "val")
        assert stage.valtiny == (("val3", "val1") if tiny else ())
        ids = ["val1", "val3"] if tiny else [f"val{i}" for i in range(5)]
        assert [record.id for record in selecting(records(), stage)] == ids
        assert model.previous is None or model.previous.division == model.division
    one, other = found.splits.values()
    assert (one.labeled, one.unlabeled) == (other.labeled, other.unlabeled)


def test_runs_select_as_the_experiment_says_where_they_say_nothing(plan):
    tiny = {"select": "valtiny", "valtiny": "tiny.txt"}
    assert list(plan(evaluation=tiny).splits) == ["few_0_valtiny"]
    runs = [{**run, "select": "val"} for run in BOTH[:1]]
    assert list(plan(evaluation=tiny, runs=runs).splits) == ["few_0"]


def test_models_that_are_selected_on_val_do_not_know_of_it(plan):
    usual = plan(evaluation={}).models
    beside = plan(runs=BOTH).models
    for path, model in usual.items():
        assert beside[path].settings.canonical() == model.settings.canonical()
        assert "valtiny" not in model.settings.canonical()
        tiny = beside[path.replace("few_0", "few_0_valtiny")].settings.train
        assert tiny.model_copy(update={"select": "val", "valtiny": ()}) == model.settings.train


@pytest.mark.parametrize("format", ["voc", "cityscapes"])
def test_a_format_brings_the_authors_list(format, make_experiment):
    ids = LAYOUTS[format].valtiny
    images = [*records(), *(Record(id, "i.png", "m.png", "val") for id in ids)]
    found = Plan(make_experiment(format=format, classes=None, runs=BOTH), METHODS, images)
    assert found.models["few_0_valtiny/supervised"].settings.train.valtiny == ids


@pytest.mark.parametrize(
    "lines, evaluation, reason",
    [
        ("", {}, "'valtiny', but valtiny of format 'folder' has no ids; set evaluation"),
        ("", {"valtiny": "none.txt"}, r"evaluation\.valtiny: .*none\.txt: no such file"),
        ("", {"valtiny": "tiny.txt"}, r"evaluation\.valtiny: .*tiny\.txt has no ids"),
        (
            "val1\ntrain1\ntest0\n", {"valtiny": "tiny.txt"},
            r"evaluation\.valtiny: .*tiny\.txt: 'train1' is not in val \(2 such ids\)",
        ),
        ("", {"select": "test"}, "'val', 'valtiny' or 'last'"),
    ],
)  # fmt: skip
def test_a_valtiny_that_cannot_be_meant_is_refused(lines, evaluation, reason, plan):
    with pytest.raises(ValueError, match=reason) as error:
        plan(lines, evaluation=evaluation, runs=BOTH)
    assert evaluation.get("select") or isinstance(error.value, ConfigError)


def test_images_of_the_authors_list_that_are_missing_are_named(make_experiment):
    experiment = make_experiment(format="voc", classes=None, runs=BOTH)
    reason = r"valtiny of format 'voc': '2007_000033' is not in val \(20 such ids\)"
    with pytest.raises(ConfigError, match=reason):
        Plan(experiment, METHODS, records())


def test_the_estimate_counts_the_few_images(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # At two steps of round 0 (4 and 7) and three of round 1 (4, 8 and 10).
    assert schedule(plan(), records(), tmp_path).validated == 5 * (2 + 3)
    assert schedule(plan(runs=BOTH), records(), tmp_path).validated == (5 + 2) * (2 + 3)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study: round 0 of the tiny experiment, selected on val and on two images of it."""
    project = Project.create(
        tmp_path_factory.mktemp("valtiny"),
        evaluation={**EXPERIMENT["evaluation"], "report": ["val"], "valtiny": "tiny.txt"},
        runs=[
            {"splits": ["6"], "methods": ["supervised"]},
            {"splits": ["6"], "methods": ["supervised"], "select": "valtiny"},
        ],
        report={"paper": {"supervised": {"6": 50.0, "6_valtiny": 40.0}}},
    )
    (project.root / "tiny.txt").write_text("val-0003\nval-0001\n")
    project.snakemake()
    return project.study


@pytest.mark.slow
def test_a_model_is_selected_on_the_few_images_and_reported_on_all_of_val(study):
    folder = study / "6_0_valtiny/supervised"
    metrics = json.loads((folder / "metrics.json").read_text())
    for checkpoint in ("best", "last"):
        assert metrics[checkpoint]["selected_on"] == "valtiny"
        assert metrics[checkpoint]["subsets"]["val"]["images"] == 4
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["train"]["valtiny"] == ["val-0003", "val-0001"]
    history = read_csv(folder / "history.csv", ["miou"])
    model = segmentation.read_model(folder / "last.pt")
    rows = read_index(study / "dataset.csv")
    few = [rows["val-0001"], rows["val-0003"]]
    for chosen, same in ((few, True), ([rows[f"val-000{i}"] for i in range(4)], False)):
        confusion = evaluate(model, study.parents[1] / "results/scenes", chosen, settings)
        assert (100 * mean_iou(confusion) == float(history[-1]["miou"])) == same


def evaluate(model, root, rows, settings):
    from dst_cbc.settings.stages import ModelSettings

    known = ModelSettings.model_validate(settings)
    return whole_images.evaluate(
        model, root, rows, known.dataset, known.train.validation, torch.device("cpu")
    )


@pytest.mark.slow
def test_selection_changes_what_is_chosen_and_not_what_is_trained(study):
    one, other = (
        segmentation.read_model(study / division / "supervised/last.pt").network.state_dict()
        for division in ("6_0", "6_0_valtiny")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_the_table_says_on_what_a_model_was_selected_and_what_the_paper_found_so(study):
    table = (study / "report/tiny/table.md").read_text()
    header, _, *lines = [line for line in table.splitlines() if line.startswith("|")]
    columns = [name.strip() for name in header.split("|")]
    cells = [dict(zip(columns, map(str.strip, line.split("|")), strict=True)) for line in lines]
    assert [(line["selected on"], line["paper"]) for line in cells] == [
        ("", "50.00"), ("valtiny", "40.00"),
    ]  # fmt: skip
    assert "selected on val or valtiny." in table


@pytest.mark.slow
def test_another_list_trains_again_only_what_is_selected_on_it(study, tmp_path):
    project = Project(study.parents[1]).copy(tmp_path / "copy")
    (project.root / "tiny.txt").write_text("val-0002\n")
    assert project.trained("--config", "replace=true") == ["6_0_valtiny/supervised"]
    said = project.snakemake("-n", fails=True)
    assert "6_0_valtiny/supervised: train.valtiny: ['val-0003', 'val-0001'] -> ['val-0002']" in said
