import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from dst_cbc.data.layouts.layout import Record
from dst_cbc.planning import cost
from dst_cbc.planning.plan import Plan
from dst_cbc.settings.methods import MethodRow
from workflow import Project

METHODS = {
    "dst-cbc": MethodRow(curriculum=[0.5, 1.0]),
    "ost": MethodRow(labeling="online"),
}
SIZE = 64
STUDY = Path("results/study")


@pytest.fixture
def plan(make_experiment, tmp_path, monkeypatch, write_image):
    """Function that plans 20 training images of 64x64, 4 labeled: 7 steps, then 2 rounds of 10."""
    monkeypatch.chdir(tmp_path)

    def make(**changes):
        return Plan(make_experiment(**changes), METHODS, records())

    for record in records():
        write_image(tmp_path / "pictures" / record.image, [[0] * SIZE] * SIZE)
    return make


def records():
    return [
        Record(f"{subset}{i}", f"{subset}{i}.png", f"{subset}{i}.png", subset)
        for subset, count in (("train", 20), ("val", 3))
        for i in range(count)
    ]


def test_the_schedule_is_that_of_the_plan(plan):
    work = cost.schedule(plan(), records(), STUDY)
    assert (work.trainings, work.steps) == (3, 7 + 2 * 10)
    # 3 images at steps 4 and 7 of round 0, and at steps 4, 8 and 10 of both rounds.
    assert work.validated == 3 * (2 + 3 + 3)
    # By supervised and by round 1; the last round labels nothing.
    assert (work.predictions, work.predicted) == (2, 2 * 16)
    assert work.evaluated == 2 * 3 * 3
    # 3 bytes per pixel of two predictions, and of the parts of one while they are joined.
    assert work.prediction_bytes == 3 * SIZE**2 * (16 + 16 + 16)
    assert work.label_bytes == round(0.1 * SIZE**2 * 2 * 16)


def test_a_model_that_labels_itself_needs_no_prediction(plan):
    runs = [{"splits": ["few"], "methods": ["ost"]}]
    work = cost.schedule(plan(runs=runs), records(), STUDY)
    assert (work.trainings, work.predictions, work.predicted) == (2, 0, 0)
    assert (work.prediction_bytes, work.label_bytes) == (0, 0)


def test_predictions_that_are_deleted_need_space_once(plan):
    work = cost.schedule(plan(keep_predictions="supervised"), records(), STUDY)
    assert work.prediction_bytes == 3 * SIZE**2 * (16 + 16)


def test_what_is_finished_costs_nothing(plan, tmp_path):
    folder = tmp_path / "results/study/few_0/supervised"
    folder.mkdir(parents=True)
    (folder / "model.pt").touch()
    (folder / "predictions.h5").touch()
    work = cost.schedule(plan(), records(), STUDY)
    assert (work.trainings, work.steps, work.predictions) == (2, 20, 1)


MEASURED = cost.Measured("cpu", step=2.0, image=0.5, memory=3 * 10**9, model=10**6)


def test_time_and_memory_come_from_what_was_measured(plan):
    work = cost.schedule(plan(), records(), STUDY)
    text = "\n".join(cost.describe(work, MEASURED, 2, 10**12, 10**12))
    # 27 steps of 2 s, 24 + 32 + 18 images of 0.5 s, 12 jobs of 5 s: 151 s.
    assert "about 3 min in total, 1 min at best with 2 jobs at once" in text
    assert "about 3.0 GB per training, 2 at once" in text and "WARNING" not in text


def test_without_a_measurement_only_what_is_counted_is_told(plan):
    text = "\n".join(cost.describe(cost.schedule(plan(), records(), STUDY), None, 1, 10**12, 0))
    assert "3 trainings of 27 steps" in text and "disk:" in text
    assert "time" not in text and "memory" not in text


def test_too_little_disk_is_told_before_the_start(plan):
    text = "\n".join(cost.describe(cost.schedule(plan(), records(), STUDY), None, 1, 1000, 0))
    assert re.search(r"WARNING: .* of disk are needed .* set keep_predictions: supervised", text)


def test_too_little_memory_is_told_before_the_start(plan):
    work = cost.schedule(plan(), records(), STUDY)
    text = "\n".join(cost.describe(work, MEASURED, 2, 10**12, 5 * 10**9))
    assert "WARNING: 6.0 GB of memory are needed and 5.0 GB are free: lower train.batch" in text
    assert "WARNING" not in "\n".join(cost.describe(work, MEASURED, 1, 10**12, 5 * 10**9))


def test_nothing_to_train_is_said(plan, tmp_path):
    for path in plan().models:
        (tmp_path / "results/study" / path).mkdir(parents=True)
        (tmp_path / "results/study" / path / "model.pt").touch()
    assert cost.describe(cost.schedule(plan(), records(), STUDY), MEASURED, 1, 0, 0) == [
        "to do: no training"
    ]


def cells(lines):
    """The rows of the table of steps as lists, without its heading and its last line."""
    return [re.split(r"  +", line) for line in lines[1:-1]]


def test_the_steps_of_the_paper_s_schedule_on_voc_are_those_of_its_formula(make_experiment):
    """100 of 10582 images: 308.6 epochs in batches of 8; rounds of 6 epochs, 4 images a step."""
    counts = {"train": 10582, "val": 1449}
    voc = [Record(f"{s}{i}", "i", "m", s) for s, count in counts.items() for i in range(count)]
    experiment = make_experiment(
        train={"batch": 8, "epochs": 6, "validate_every": 1000},
        supervised={"epochs": "formula"},
        splits={"106": {"count": 100}, "half": {"count": 5291}},
        runs=[
            {"splits": ["106"], "seeds": [0, 1, 2], "methods": ["dst-cbc"]},
            {"splits": ["half"], "methods": ["dst-cbc"]},
        ],
    )
    methods = {"dst-cbc": MethodRow(curriculum=[0.2, 0.4, 0.6, 0.8, 1])}
    lines = cost.steps(Plan(experiment, methods, voc))
    assert cells(lines) == [
        ["106", "100", "10482", "supervised", "1", "3857", "4", "3857", "3"],
        ["106", "100", "10482", "dst-cbc", "5", "15723", "16", "78615", "3"],
        ["half", "5291", "5291", "supervised", "1", "28059", "29", "28059", "1"],
        ["half", "5291", "5291", "dst-cbc", "5", "7936", "8", "39680", "1"],
    ]
    assert lines[-1].startswith(f"{3 * (3857 + 78615) + 28059 + 39680} steps in all trainings")
    # Each cell is below its heading.
    for heading, cell in (("method", "dst-cbc"), ("steps in all", "78615")):
        assert lines[0].index(heading) == lines[2].index(cell)


def test_seeds_and_rounds_with_other_numbers_are_told_apart(plan):
    runs = [
        {"splits": ["few"], "methods": ["dst-cbc"], "vary": {"batch": [4, 8]}},
        {"splits": ["few"], "methods": ["ost"], "select": "last"},
    ]
    rows = cells(cost.steps(plan(runs=runs)))
    assert [(row[0], row[3], row[4], row[5]) for row in rows] == [
        ("few", "supervised", "1", "7"),
        ("few", "dst-cbc@batch=4", "2", "10"),
        ("few", "dst-cbc@batch=8", "2", "10"),
        ("few, by last", "supervised", "1", "7"),
        ("few, by last", "ost", "1", "10"),
    ]


def test_what_is_finished_is_in_the_table_all_the_same(plan, tmp_path):
    before = cost.steps(plan())
    for path in plan().models:
        (tmp_path / "results/study" / path).mkdir(parents=True)
        (tmp_path / "results/study" / path / "model.pt").touch()
    assert cost.steps(plan()) == before


def test_a_table_of_steps_measures_and_writes_nothing(tmp_path, monkeypatch, capsys):
    project = Project.create(tmp_path / "project")
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(cost, "measure", lambda *_: pytest.fail("measured"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(sys, "argv", ["cost.py", "config.yaml", "--steps"])
    before = set(project.root.rglob("*"))
    # In this process, so that the replaced function counts.
    runpy.run_path(str(project.root / "scripts/cost.py"))["run"]()
    assert set(project.root.rglob("*")) == before
    printed = capsys.readouterr().out.splitlines()
    assert [(row[3], row[5]) for row in cells(printed)] == [("supervised", "6"), ("dst-cbc", "3")]
    assert printed[-1] == "15 steps in all trainings of all seeds"


@pytest.mark.parametrize("step, steps", [(0.0, 20), (0.1, 20), (0.5, 8), (1.0, 4), (9.0, 3)])
def test_slow_steps_are_measured_fewer_times(step, steps):
    assert cost.steps_in(4.0, step) == steps


@pytest.mark.slow
def test_a_measurement_is_made_by_the_stages_code_and_remembered(tmp_path):
    project = Project.create(tmp_path / "project")
    assert "to do: 4 trainings of 15 steps" in project.snakemake("results/scenes/scenes.json")
    # However long the study is, a run that trains nothing measures no training.
    project.configure(supervised={"steps": 9999})
    assert "s per step" not in project.snakemake("results/tiny/dataset.csv")
    assert not (project.study / "cost.json").exists()
    project.configure()
    command = [sys.executable, "scripts/cost.py", "config.yaml", "--jobs", "2"]
    before = {path for path in project.root.rglob("*") if path.is_file()}
    printed = subprocess.run(
        command, cwd=project.root, capture_output=True, text=True, check=True
    ).stdout
    assert printed.splitlines()[3] == "15 steps in all trainings of all seeds"
    assert re.search(r"time: about \d+ min in total.* \(0\.\d+ s per step, 0\.\d+ s per", printed)
    assert "GB per training, 2 at once" in printed
    new = {path for path in project.root.rglob("*") if path.is_file()} - before
    assert new == {project.study / "cost.json"}
    # The next run reuses the measurement; with other settings it does not.
    lists = "results/tiny/splits/6_0.labeled.txt"
    assert "s per step" in project.snakemake(lists)
    project.configure(channels_last=True)
    assert "s per step" not in project.snakemake(lists, "--forcerun", lists)
