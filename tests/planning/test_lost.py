"""Which gone results are made again, and in which order, in a study of files of one line."""

import shutil
from pathlib import Path

import pytest

from dst_cbc.planning.lost import Lost
from dst_cbc.runtime import checksums
from dst_cbc.runtime.checksums import record_of
from dst_cbc.runtime.job_record import Job, write

# Results of each job, the target first -> (name of its script, what it reads).
JOBS = {
    ("dataset.csv",): ("check_data", []),
    ("splits/6_0.labeled.txt", "splits/6_0.unlabeled.txt"): ("split", ["dataset.csv"]),
    ("6_0/supervised/model.pt", "6_0/supervised/run.json"): (
        "train", ["dataset.csv", "splits/6_0.labeled.txt", "../weights.pt"],
    ),
    ("6_0/supervised/metrics.json",): ("evaluate", ["6_0/supervised/model.pt"]),
    ("6_0/supervised/histogram.npz", "6_0/supervised/predictions.h5"): (
        "predict", ["6_0/supervised/model.pt", "splits/6_0.unlabeled.txt"],
    ),
    ("6_0/st/round1/thresholds.csv",): ("thresholds", ["6_0/supervised/histogram.npz"]),
    ("6_0/st/round1/pseudo_labels.csv", "6_0/st/round1/pseudo_labels"): (
        "pseudo_labels", ["6_0/supervised/predictions.h5", "6_0/st/round1/thresholds.csv"],
    ),
    ("6_0/st/round1/model.pt", "6_0/st/round1/run.json"): (
        "train", ["6_0/supervised/model.pt", "6_0/st/round1/pseudo_labels.csv"],
    ),
    ("6_0/st/round1/metrics.json",): ("evaluate", ["6_0/st/round1/model.pt"]),
    ("6_0/st/round1/histogram.npz", "6_0/st/round1/predictions.h5"): (
        "predict", ["6_0/st/round1/model.pt"],
    ),
    ("6_0/st/round2/contact_sheet.jpg",): ("contact_sheet", ["6_0/st/round1/predictions.h5"]),
    ("6_0/st/round1/contact_sheet.jpg",): (
        "contact_sheet", ["6_0/supervised/predictions.h5", "6_0/st/round1/pseudo_labels.csv"],
    ),
    ("6_0/st/gallery.html",): ("gallery", ["6_0/st/round1/predictions.h5"]),
    ("summary.csv",): ("summarize", ["6_0/supervised/metrics.json", "6_0/st/round1/metrics.json"]),
}  # fmt: skip


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The folder of a finished study with records of all its jobs."""
    monkeypatch.chdir(tmp_path)
    study = Path("results/study")
    (tmp_path / "weights.pt").write_text("of the user")
    for outputs, (job, read) in JOBS.items():
        for name in outputs:
            (study / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("pseudo_labels"):
                (study / name).mkdir()
                for id in ("a", "b"):
                    (study / name / f"{id}.png").write_text(id)
            else:
                (study / name).write_text("id\na\nb\n")
        paths = [study / name for name in outputs]
        record = Job(record_of(paths[0]), paths, job, "")
        found = [study / name if study / name != study / "../weights.pt" else Path("weights.pt")
                 for name in read]  # fmt: skip
        write(record, {path: checksums.sha256_of(path) for path in found})
    return study


def lost(study, remake=False):
    planned = {study / names[0]: [study / name for name in names] for names in JOBS}
    return Lost(planned, remake)


def steps(study, remake=False):
    """Targets of each step, relative to the study."""
    return [
        [str(path.relative_to(study)) for path in step.targets]
        for step in lost(study, remake).steps
    ]


def withheld(study, remake=False):
    return sorted(str(job.target.relative_to(study)) for job in lost(study, remake).withheld)


def delete(study, *names):
    for name in names:
        path = study / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_whole_study_has_lost_nothing(study):
    found = lost(study, remake=True)
    assert len(found.jobs) == len(JOBS)
    assert (found.gone, found.withheld, found.steps, found.unrecorded) == ([], [], [], [])


def test_equal_jobs_are_made_again_together(study):
    metrics = ["6_0/st/round1/metrics.json", "6_0/supervised/metrics.json"]
    delete(study, *metrics)
    assert steps(study) == [metrics] and withheld(study) == []


def test_what_lies_behind_comes_later_though_a_finished_training_lies_between(study):
    """In one run, Snakemake would train the model between the list and the metrics again."""
    delete(study, "splits/6_0.labeled.txt", "6_0/st/round1/metrics.json", "summary.csv")
    found = lost(study).steps
    assert [[path.name for path in step.targets] for step in found] == [
        ["6_0.labeled.txt"], ["metrics.json"], ["summary.csv"],
    ]  # fmt: skip
    assert [step.forced for step in found] == [[], [], []]
    both = {study / "splits/6_0.labeled.txt", study / "splits/6_0.unlabeled.txt"}
    assert set(found[0].wrote) == both


def test_what_snakemake_needs_for_a_job_comes_before_it(study):
    """Otherwise its Snakemake would make that too, and run all that follows from it."""
    metrics, labels = "6_0/supervised/metrics.json", "6_0/st/round1/pseudo_labels.csv"
    delete(study, metrics, labels)
    assert steps(study) == [[metrics], [labels]]
    planned = {study / names[0]: [study / name for name in names] for names in JOBS}
    inputs = {study / metrics: [study / labels]}
    found = Lost(planned, inputs=inputs)
    assert [step.targets for step in found.steps] == [[study / labels], [study / metrics]]
    delete(study, "6_0/supervised/predictions.h5")
    assert study / metrics in {job.target for job in Lost(planned, inputs=inputs).withheld}


def test_a_job_whose_target_still_exists_is_forced(study):
    delete(study, "splits/6_0.unlabeled.txt")
    (step,) = lost(study).steps
    assert step.targets == step.forced == [study / "splits/6_0.labeled.txt"]
    assert step.gone == [study / "splits/6_0.unlabeled.txt"]


@pytest.mark.parametrize("name", ["pseudo_labels/b.png", "pseudo_labels"])
def test_labels_are_made_again_where_a_png_is_missing(study, name):
    delete(study, f"6_0/st/round1/{name}")
    (step,) = lost(study).steps
    assert step.targets == step.forced == [study / "6_0/st/round1/pseudo_labels.csv"]


def test_what_shows_labels_needs_every_png(study):
    sheet, manifest = (
        f"6_0/st/round1/{name}" for name in ("contact_sheet.jpg", "pseudo_labels.csv")
    )
    delete(study, sheet, "6_0/st/round1/pseudo_labels/b.png")
    assert steps(study) == [[manifest], [sheet]]
    # Then the labels cannot be made again, and so neither can the sheet.
    delete(study, "6_0/supervised/model.pt", "6_0/st/round1/thresholds.csv")
    delete(study, "6_0/supervised/histogram.npz")
    assert steps(study) == [] and {sheet, manifest} < set(withheld(study))


def test_a_png_too_many_is_left_to_the_training_that_refuses_it(study):
    (study / "6_0/st/round1/pseudo_labels/c.png").write_text("c")
    assert lost(study).gone == []


def test_trainings_and_predictions_are_withheld_with_what_needs_them(study):
    delete(study, "6_0/supervised/model.pt", "6_0/supervised/metrics.json", "summary.csv")
    assert withheld(study) == [
        "6_0/supervised/metrics.json", "6_0/supervised/model.pt", "summary.csv",
    ]  # fmt: skip
    assert steps(study) == []
    assert steps(study, remake=True) == [
        ["6_0/supervised/model.pt"], ["6_0/supervised/metrics.json"], ["summary.csv"],
    ]  # fmt: skip
    delete(study, "6_0/supervised/predictions.h5")
    assert "6_0/supervised/histogram.npz" in withheld(study)


def test_a_training_with_any_result_gone_is_withheld(study):
    delete(study, "6_0/st/round1/run.json")
    assert withheld(study) == ["6_0/st/round1/model.pt"]
    (step,) = lost(study, remake=True).steps
    assert step.forced == [study / "6_0/st/round1/model.pt"]


def test_predictions_of_later_rounds_may_be_deleted(study):
    delete(study, "6_0/st/round1/predictions.h5")
    assert lost(study).gone == []
    # A sheet needs them; the page shows them only where they exist.
    delete(study, "6_0/st/round2/contact_sheet.jpg", "6_0/st/gallery.html")
    assert withheld(study) == ["6_0/st/round2/contact_sheet.jpg"]
    assert steps(study) == [["6_0/st/gallery.html"]]
    assert steps(study, remake=True) == [
        ["6_0/st/round1/histogram.npz"],
        ["6_0/st/round2/contact_sheet.jpg"],
        ["6_0/st/gallery.html"],
    ]


def test_what_a_person_accepted_is_never_replaced(study):
    checksums.accept(study / "6_0/st/round1/pseudo_labels.csv")
    delete(study, "6_0/st/round1/pseudo_labels/b.png")
    assert withheld(study, remake=True) == ["6_0/st/round1/pseudo_labels.csv"]


def test_without_a_file_of_the_user_nothing_is_made_again(study):
    delete(study, "6_0/supervised/model.pt")
    Path("weights.pt").unlink()
    assert withheld(study, remake=True) == ["6_0/supervised/model.pt"]


def test_a_job_without_record_and_results_has_to_run(study):
    for name in ("metrics.json", "checksums/metrics.json.json"):
        delete(study, f"6_0/st/round1/{name}")
    found = lost(study)
    assert found.unrecorded == [study / "6_0/st/round1/metrics.json"] and found.steps == []
