"""Which model a study hands over: by folds, by val with patience, and for studies of before."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dst_cbc.data.digit_scenes import CLASSES, write_scenes
from dst_cbc.models.segmentation import read_model
from dst_cbc.runtime.reading import read_ids
from dst_cbc.runtime.tables import read_csv
from dst_cbc.settings.data import DrawSettings
from workflow import REPOSITORY, Project, results

pytestmark = pytest.mark.slow

METHODS = {
    "dst-cbc": {"curriculum": [0.5, 1.0]},
    "supervised-long": {"labeling": "none", "match": "dst-cbc"},
}
RUNS = [{"splits": ["all"], "seeds": [0], "methods": ["dst-cbc", "supervised-long"]}]
RESULTS = ("results/tiny/recommendation.md", "results/tiny/summary.csv")
MASKED, TESTED = 6, 2


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A folder with images/ and masks/: 14 scenes, the first 8 with a mask."""
    folder = tmp_path_factory.mktemp("photos")
    drawn = DrawSettings(size=32, train=14, val=1, test=1, digits=(2, 3), digit_size=(12, 14))
    write_scenes(drawn, folder / "drawn")
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    scenes = sorted((folder / "drawn/images/train").glob("*.png"))
    for number, scene in enumerate(scenes):
        shutil.copy(scene, folder / "images")
        if number < MASKED + TESTED:
            shutil.copy(folder / "drawn/labels/train" / scene.name, folder / "masks")
    return folder


def own_images(photos: Path, root: Path, **changes) -> Project:
    ids = sorted(path.stem for path in (photos / "masks").iterdir())
    keys = {
        "data": "data",
        "format": "pairs",
        "pairs": {"images": "images", "labels": "masks", "val": [], "test": ids[MASKED:]},
        "classes": dict(CLASSES),
        "evaluation": {"report": ["test"], "batch": 4},
        "splits": {"all": {"folds": 2, "fold_length": 0.5}},
        "runs": RUNS,
        "supervised": {"steps": 8},
    }
    project = Project.create(root, **(keys | changes))
    project.write(root / "workflow/methods.yaml", METHODS)
    shutil.copytree(photos / "images", root / "data/images")
    shutil.copytree(photos / "masks", root / "data/masks")
    return project


@pytest.fixture(scope="module")
def folds(photos, tmp_path_factory) -> Project:
    """A finished study whose two folds choose."""
    project = own_images(photos, tmp_path_factory.mktemp("folds") / "project")
    project.snakemake(*RESULTS)
    return project


FOLDS = ("all_0_fold1", "all_0_fold2")
FINAL = "all_0_folds"
TRAINED = ("supervised", "dst-cbc/round1", "dst-cbc/round2", "supervised-long/round1")


def ids_of(project: Project, division: str, side: str) -> set[str]:
    return {*read_ids(project.study / f"splits/{division}.{side}.txt")}


def masked(project: Project) -> list[str]:
    masks = sorted(path.stem for path in (project.root / "data/masks").iterdir())
    return masks[:MASKED]


def test_each_mask_is_held_out_in_one_fold_and_labeled_in_the_end(folds):
    labeled = [ids_of(folds, division, "labeled") for division in (*FOLDS, FINAL)]
    assert labeled[2] == {*masked(folds)} and [len(one) for one in labeled] == [3, 3, 6]
    assert not labeled[0] & labeled[1]
    for division, ids in zip(FOLDS, labeled, strict=False):
        assert not ids_of(folds, division, "unlabeled") & {*masked(folds)}
        for name in TRAINED:
            rows = read_csv(folds.study / division / name / "confusions.csv", ["id", "subset"])
            assert {row["id"] for row in rows} == labeled[2] - ids
            assert {row["subset"] for row in rows} == {"val"}


def test_the_trainings_on_all_masks_do_what_the_folds_chose(folds):
    choice = json.loads((folds.study / FINAL / "choice.json").read_text())
    assert {*choice["models"]} == {*TRAINED}
    before = folds.study / FINAL / "supervised/model.pt"
    for name, chosen in choice["models"].items():
        folder = folds.study / FINAL / name
        settings = json.loads((folder / "settings.json").read_text())["train"]
        run, model = json.loads((folder / "run.json").read_text()), folder / "model.pt"
        if "stopped" in chosen:
            assert run["stopped"] == chosen["stopped"]
            assert model.read_bytes() == (folder / "last.pt").read_bytes() == before.read_bytes()
            assert len((folder / "history.csv").read_text().splitlines()) == 1
        else:
            assert read_model(model).record["step"] == round(chosen["share"] * settings["steps"])
            assert "stopped" not in run
        if name.startswith("dst-cbc"):
            before = model


def test_trainings_of_a_fold_are_shorter_and_are_in_no_report(folds):
    steps = {
        division: json.loads((folds.study / division / "supervised/settings.json").read_text())
        for division in (FOLDS[0], FINAL)
    }
    assert [one["train"]["steps"] for one in steps.values()] == [4, 8]
    rows = read_csv(folds.study / "summary.csv", ["split", "selected_on", "method", "subset"])
    assert {(row["selected_on"], row["subset"]) for row in rows} == {("folds", "test")}
    left = folds.jobs()
    assert {job.split()[0] for job in left} == {"contact_sheet", "gallery", "tables", "figures"}
    assert not [job for job in left if "fold1" in job or "fold2" in job]


def test_the_recommended_model_is_a_copy(folds):
    said = json.loads((folds.study / "recommendation.json").read_text())
    model = folds.study / said["model"] / "model.pt"
    assert (folds.study / "model.pt").read_bytes() == model.read_bytes()
    assert said["subset"] == "test" and said["images"] == TESTED
    best = json.loads((folds.study / FINAL / "choice.json").read_text())["best"]
    method = best.partition("/")[0]
    assert said["method"] == method or said["method"] == "supervised"
    shown = (folds.study / "recommendation.md").read_text()
    assert "each held out in one fold" in shown and f"`{said['model']}`" in shown


@pytest.mark.parametrize("division", FOLDS)
def test_in_a_fold_nothing_is_learned_from_its_own_masks(folds, division, photos, tmp_path):
    garbled = own_images(photos, tmp_path / "garbled")
    for id in {*masked(folds)} - ids_of(folds, division, "labeled"):
        path = garbled.root / f"data/masks/{id}.png"
        size = Image.open(path).size[::-1]
        noise = np.random.default_rng(0).integers(0, 11, size, np.uint8)
        Image.fromarray(noise).save(path)
    garbled.snakemake(f"results/tiny/{division}/dst-cbc/round1/model.pt")
    for name in ("supervised", "dst-cbc/round1"):
        ours, theirs = (
            read_model(one.study / division / name / "model.pt").network.state_dict()
            for one in (folds, garbled)
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        curves = [(p.study / division / name / "history.csv").read_text() for p in (folds, garbled)]
        assert curves[0] != curves[1]
    labels = [
        results(one.study / division / "dst-cbc/round1", "pseudo_labels/*.png", "thresholds.csv")
        for one in (folds, garbled)
    ]
    assert labels[0] == labels[1] and len(labels[0]) > 1


def test_a_chain_without_a_better_model_ends_after_its_patience(photos, tmp_path):
    ids = sorted(path.stem for path in (photos / "masks").iterdir())
    project = own_images(
        photos,
        tmp_path / "project",
        pairs={"images": "images", "labels": "masks", "val": ids[:2], "test": ids[MASKED:]},
        splits={"all": {"all": True}},
        evaluation={"select": "val", "report": ["val", "test"], "batch": 4},
        runs=[{"splits": ["all"], "seeds": [0], "methods": ["dst-cbc"]}],
        # So small a rate changes no class of any pixel, so no round is better.
        train={
            "steps": 3,
            "validate_every": 3,
            "batch": 4,
            "crop": [24, 24],
            "learning_rate": 1e-12,
        },
        supervised={"steps": 8, "learning_rate": 0.05},
        switches={"patience": 2},
    )
    project.write(
        project.root / "workflow/methods.yaml", {"dst-cbc": {"curriculum": [0.5, 0.8, 1.0]}}
    )
    project.snakemake(*RESULTS)
    chain = project.study / "all_0/dst-cbc"
    runs = [json.loads((chain / f"round{r}/run.json").read_text()) for r in (1, 2, 3)]
    assert ["stopped" in run for run in runs] == [False, False, True]
    assert runs[2]["stopped"] == (
        "no round after round 0 has reached a better model, and patience is 2"
    )
    first = (project.study / "all_0/supervised/model.pt").read_bytes()
    assert (chain / "round3/model.pt").read_bytes() == first
    assert (chain / "round3/last.pt").read_bytes() == first
    rows = read_csv(project.study / "summary.csv", ["method", "round", "steps"])
    steps = {row["round"]: row["steps"] for row in rows if row["method"] == "dst-cbc"}
    assert steps == {"1": "11", "2": "14", "3": "14"}
    assert not project.jobs(*RESULTS)
    said = json.loads((project.study / "recommendation.json").read_text())
    assert said["unlabeled_images_paid"] is False and said["subset"] == "test"


def figures(path: Path) -> dict:
    """The content of metrics.json without intervals: that version drew neighbours one by one."""
    content = json.loads(path.read_text())
    for checkpoint in content.values():
        for one in checkpoint["subsets"].values():
            one.pop("miou_interval", None)
    return content


def test_a_study_of_an_earlier_version_gets_its_recommendation_without_training(tmp_path):
    project = Project.create(tmp_path / "finished")
    shutil.copy(REPOSITORY / "workflow/methods.yaml", project.root / "workflow")
    with tarfile.open(Path(__file__).parent / "studies/finished.tar.xz") as archive:
        archive.extractall(project.root, filter="data")
    config = yaml.safe_load((project.root / "config.yaml").read_text())
    (run,) = config["runs"]
    # This version makes the labels of this method otherwise.
    run["methods"].remove("cbst")
    project.write(project.root / "config.yaml", config)
    models = {path: path.read_bytes() for path in project.study.rglob("*.pt")}
    metrics = {path: figures(path) for path in project.study.rglob("metrics.json")}
    target = "results/tiny/recommendation.md"
    jobs = {job.split()[0] for job in project.jobs(target)}
    assert jobs == {"evaluate", "recommend"}
    project.snakemake(target)
    assert (project.root / target).is_file()
    assert all(path.read_bytes() == content for path, content in models.items())
    assert all(figures(path) == before for path, before in metrics.items())
