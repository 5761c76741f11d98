"""The paper's experiment files from end to end, on miniatures of both data sets in their layouts.

Only sizes are reduced: images, crops, epochs and the backbone (test_released_network tests the
real one).
"""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dst_cbc.data.layouts import LAYOUTS
from dst_cbc.models.segmentation import read_model
from dst_cbc.runtime.tables import read_csv
from workflow import Project

CUT = {
    "network": {"backbone": "resnet18", "weights": None},
    "supervised": {"steps": 4},
    "workers": 0,
    # A CPU is slow with half precision.
    "precision": "float32",
}
TRAIN = {"epochs": 1, "validate_every": 2}
VOC = {
    "train": {**TRAIN, "crop": [33, 33], "augmentation": {"size": [[33, 33], [50, 50]]}},
    "prediction": {"size": [33, 33]},
}
CITYSCAPES = {
    "train": {**TRAIN, "crop": [13, 25], "augmentation": {"size": [[13, 25], [25, 49]]}},
    "prediction": {"size": [13, 25]},
    "evaluation": {"size": [25, 49]},
}


def cut(project, sizes, splits, runs, **changes):
    """Write cut.yaml, which overrides keys of an experiment file."""
    content = {**CUT, **sizes, "splits": splits, "runs": runs, **changes}
    project.write(project.root / "cut.yaml", content)


def run(project, files, data, *arguments):
    """Run experiment files with cut.yaml, as a user would; returns what is printed."""
    files = [f"workflow/experiments/{file}.yaml" for file in files.split()]
    place = ("--config", f"data={data}")
    return project.snakemake(*arguments, "--configfile", *files, "cut.yaml", *place)


def settings(model):
    """The settings of a model, from its folder."""
    return json.loads((model / "settings.json").read_text())


def validated(model):
    """The steps that history.csv lists, and whether the last model has a score."""
    steps = [int(row["step"]) for row in read_csv(model / "history.csv", ["step"])]
    return steps, read_model(model / "last.pt").record["score"] is not None


def best(study, **wanted):
    """Row of summary.csv for the best checkpoint on val of the one model with `wanted` values."""
    rows = read_csv(study / "summary.csv", ["miou"])
    wanted = {**wanted, "checkpoint": "best", "subset": "val"}
    (row,) = [r for r in rows if all(r[key] == value for key, value in wanted.items())]
    return row


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """Miniatures of the VOC and SBD releases, joined by build_trainaug.py: 14 training images.

    Odd sizes, indexed masks with borders of 255; the masks of SBD are .mat files.
    """
    root = tmp_path_factory.mktemp("voc")
    released, sbd = root / "VOC2012", root / "sbd"
    train = [f"2009_{i:06}" for i in range(6)]
    others = [f"2010_{i:06}" for i in range(8)]
    val = [*LAYOUTS["voc"].valtiny, "2011_000001"]
    random = np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (released / folder).mkdir(parents=True)
    (sbd / "cls").mkdir(parents=True)
    for number, id in enumerate([*train, *others, *val]):
        size = (37 + number % 5, 50 - number % 3)
        mask = np.zeros(size, np.uint8)
        mask[8:30, 10:40] = 1 + number % 3
        pixels = np.repeat(60 * mask[..., None], 3, 2) + random.integers(0, 40, (*size, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(released / f"JPEGImages/{id}.jpg")
        if id in others:
            savemat(sbd / f"cls/{id}.mat", {"GTcls": {"Segmentation": mask}})
            continue
        mask[8, 10:40] = 255
        image = Image.fromarray(mask)
        image.putpalette([224, 224, 192] * 256)
        image.save(released / f"SegmentationClass/{id}.png")
    lists = {
        released / "ImageSets/Segmentation/train.txt": train,
        released / "ImageSets/Segmentation/val.txt": val,
        sbd / "train.txt": others[:5],
        sbd / "val.txt": others[5:],
    }
    for path, ids in lists.items():
        path.write_text("".join(f"{id}\n" for id in ids))
    script = Project.create(root / "project").root / "scripts/build_trainaug.py"
    subprocess.run(
        [sys.executable, script, "--voc", released, "--sbd", sbd, "--out", root / "voc2012"],
        check=True,
    )
    return root / "voc2012"


@pytest.mark.slow
def test_voc_runs_from_the_original_releases_to_table_3(voc, tmp_path):
    project = Project.create(tmp_path / "project")
    project.write(project.root / "workflow/methods.yaml", {"dst-cbc": {"curriculum": [0.5, 1.0]}})
    splits = {"106": {"divide": None, "count": 4}, "1": {"all": True}}
    runs = [
        {"splits": ["106"], "methods": ["dst-cbc"]},
        {"splits": ["106"], "methods": ["supervised"], "select": "valtiny"},
        {"splits": ["1"], "methods": ["supervised"]},
    ]
    cut(project, VOC, splits, runs)
    run(project, "voc", voc)
    study = project.root / "results/voc"
    labels = sorted(p.stem for p in (study / "106_0/dst-cbc/round2/pseudo_labels").glob("*.png"))
    unlabeled = (study / "splits/106_0.unlabeled.txt").read_text().split()
    assert labels == sorted(unlabeled) and len(unlabeled) == 14 - 4
    # Labels are made at 321 x 321 (section 4.2); the masks come to them (section A.1).
    for row in read_csv(study / "106_0/dst-cbc/round2/pseudo_labels.csv", ["compared"]):
        assert (row["height"], row["width"]) == ("33", "33")
        assert int(row["compared"]) <= int(row["kept"]) == 33 * 33
    row = best(study, method="dst-cbc", round="2")
    assert (row["images"], row["labeled"], row["unlabeled"]) == ("21", "4", "10")
    # Selected on valtiny, reported on all of val.
    assert best(study, selected_on="valtiny")["images"] == "21"
    assert best(study, split="1")["unlabeled"] == "0"
    table = read_csv(study / "report/voc/table.csv", ["paper"])
    paper = {
        (r["split"], r["selected_on"], r["method"]): float(r["paper"]) for r in table if r["paper"]
    }
    assert paper == {
        ("106", "val", "supervised"): 45.7,
        ("106", "val", "dst-cbc"): 61.6,
        ("106", "valtiny", "supervised"): 44.8,
        ("1", "val", "supervised"): 73.5,
    }
    assert any(r["relative"] for r in table if r["method"] == "dst-cbc")
    assert "| CowMix | paper | 52.1 | - | 73.4 |" in (study / "report/voc/table.md").read_text()
    # table3.yaml adds a report, and trains nothing.
    said = run(project, "table3", voc, "-n", "--quiet", "rules")
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE))
    assert jobs == {"all": "1", "figures": "1", "tables": "1", "total": "3"}


@pytest.mark.slow
def test_voc_runs_like_the_released_code_to_table_3(voc, tmp_path):
    project = Project.create(tmp_path / "project")
    project.write(project.root / "workflow/methods.yaml", {"dst-cbc": {"curriculum": [0.5, 1.0]}})
    runs = [{"splits": ["106"], "methods": ["dst-cbc"]}]
    splits = {"106": {"divide": None, "count": 5}}
    supervised = {"epochs": {"106": 3}, "validate_every": 2}
    evaluation = {"pad": [45, 52]}
    cut(project, VOC, splits, runs, supervised=supervised, evaluation=evaluation)
    run(project, "voc variants/voc-released", voc)
    folder = project.root / "results/voc-released/106_0"
    # 5 images in a batch of 8, three times; 9 images in batches of 4, once.
    assert settings(folder / "supervised")["train"]["steps"] == 3
    assert settings(folder / "dst-cbc/round1")["train"]["steps"] == 3
    # After the steps 2 k - 1 and the last but one.
    assert validated(folder / "supervised") == ([1, 2, 3], True)
    used = settings(folder / "supervised")
    assert used["train"]["resampling"] == used["train"]["validation"]["resampling"] == "torch"
    assert used["train"]["validation"]["pad_colour"] == "black"
    with Image.open(next((folder / "dst-cbc/round1/pseudo_labels").glob("*.png"))) as image:
        assert image.size == (33, 33) and image.mode == "P"
    row = best(folder.parent, method="dst-cbc", round="2")
    assert (row["images"], row["labeled"], row["unlabeled"]) == ("21", "5", "9")
    table = read_csv(folder.parent / "report/voc-released/table.csv", ["paper"])
    assert {r["paper"] for r in table if r["paper"]} == {"45.7", "61.6"}


@pytest.mark.slow
def test_a_model_of_the_authors_is_evaluated_without_initial_weights_and_training(voc, tmp_path):
    project = Project.create(tmp_path / "project")
    model = project.root / "results/voc-released/given/authors/model.pt"
    model.parent.mkdir(parents=True)
    model.touch()
    # The miniature has too few images to divide them by 106.
    runs = [{"splits": ["106"], "methods": ["dst-cbc"]}]
    few = {"splits": {"106": {"divide": None, "count": 4}}, "runs": runs}
    project.write(project.root / "few.yaml", few)
    files = [f"workflow/experiments/{name}.yaml" for name in ("voc", "variants/voc-released")]
    place = ("--configfile", *files, "few.yaml", "--config", f"data={voc}")
    target = "results/voc-released/given/authors/metrics.json"
    assert project.jobs(target, *place) == {"check_data": 1, "evaluate_given": 1}


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory):
    """A miniature of Cityscapes: 9 training images of 48 x 96 pixels, and the images of valtiny."""
    data, layout = tmp_path_factory.mktemp("cityscapes"), LAYOUTS["cityscapes"]
    ids = {"train": [f"ulm/ulm_{i:06}_000019" for i in range(9)], "val": layout.valtiny}
    values = [*[*layout.labels][:4], 0, 3]
    random = np.random.default_rng(0)
    for subset, names in ids.items():
        for number, id in enumerate(names):
            mask = np.repeat(values[number % 3 : number % 3 + 4], 24)[None].repeat(48, 0)
            pixels = np.repeat(7 * mask[..., None], 3, 2) + random.integers(0, 20, (48, 96, 3))
            for kind, content in (("leftImg8bit", pixels), ("gtFine", mask)):
                name = "gtFine_labelIds" if kind == "gtFine" else kind
                path = data / kind / subset / f"{id}_{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content.astype(np.uint8)).save(path)
    return data


def study_of(cityscapes, tmp_path, file, **changes):
    """Run an experiment file to its table; return the folder of the study."""
    project = Project.create(tmp_path / "project")
    project.write(project.root / "workflow/methods.yaml", {"dst-cbc": {"curriculum": [1.0]}})
    runs = [{"splits": ["30"], "methods": ["dst-cbc"], "select": "valtiny"}]
    cut(project, CITYSCAPES, {"30": {"divide": None, "count": 4}}, runs, **changes)
    run(project, file, cityscapes)
    (study,) = (project.root / "results").glob("cityscapes*")
    row = best(study, method="dst-cbc")
    assert (row["images"], row["labeled"], row["unlabeled"]) == ("19", "4", "5")
    table = read_csv(study / f"report/{study.name}/table.csv", ["paper"])
    assert {r["paper"] for r in table if r["paper"]} == {"45.4", "48.2"}
    (label, *_) = (study / "30_0_valtiny/dst-cbc/round1/pseudo_labels/ulm").iterdir()
    with Image.open(label) as image:
        assert image.size == (25, 13) and image.mode == "P"
    return study


def compared(study):
    """Number of pixels that the evaluation compared with masks."""
    metrics = json.loads((study / "30_0_valtiny/dst-cbc/round1/metrics.json").read_text())
    return np.sum(metrics["best"]["subsets"]["val"]["confusion"])


@pytest.mark.slow
def test_cityscapes_runs_at_half_resolution_to_table_4(cityscapes, tmp_path):
    study = study_of(cityscapes, tmp_path, "cityscapes")
    # Masks keep their size (section A.1); of four stripes, the one with value 0 is ignored.
    assert compared(study) > 19 * 48 * 96 / 2


@pytest.mark.slow
def test_cityscapes_runs_like_the_released_code_to_table_4(cityscapes, tmp_path):
    supervised = {"epochs": {"30": 2}, "validate_every": 9}
    file = "cityscapes variants/cityscapes-released"
    study = study_of(cityscapes, tmp_path, file, supervised=supervised)
    # Masks are resized like the images.
    assert 19 * 25 * 49 / 2 < compared(study) < 19 * 25 * 49
    folder = study / "30_0_valtiny"
    # 4 images in a batch of 8, twice; 5 images in batches of 4, once.
    assert settings(folder / "supervised")["train"]["steps"] == 2
    assert settings(folder / "dst-cbc/round1")["train"]["steps"] == 2
    assert validated(folder / "supervised") == ([1], False)
