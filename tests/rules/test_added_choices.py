"""Add methods, a head, a layout and a format by new files and a few lines; nothing else changes.

The examples are from docs/contributing, as printed there. A whole study runs with them, from split
to table and export. The annotation format is only tried by itself.
"""

import csv
import json
import shutil
import subprocess
import sys

import pytest
import yaml
from PIL import Image

import examples
from dst_cbc.data.digit_scenes import CLASSES, write_scenes
from dst_cbc.settings.data import DrawSettings
from workflow import EXPERIMENT, REPOSITORY, Project

pytestmark = pytest.mark.slow

# A method that learns from label files and also reads the thresholds and the labeling model.
SOFT_SETTINGS = '''
class Soft(ObjectiveSettings):
    """Self-training that prints what it could make soft labels from."""

    reads: ClassVar = ("thresholds", "labeling-model")

    name: Literal["soft"] = "soft"
'''
SOFT_CODE = """
from ...models.segmentation import read_model
from ...self_training.thresholds import read_thresholds
from . import self_training


class Objective(self_training.Objective):
    def __init__(self, model, data, stage):
        super().__init__(model, data, stage)
        edges = read_thresholds(data.thresholds, list(data.dataset.classes))
        origin = read_model(data.labeling_model).record["round"]
        print(f"{len(edges)} {data.thresholds.name} of a model of round {origin}")
"""
SOFT_ROW = """
soft: # reads all that a training may read
  {curriculum: [0.5], objective: {name: soft}}
"""
LIBRARY = "scripts/dst_cbc"
CHOICES = f"{LIBRARY}/settings/choices.py"
FORMATS = f"{LIBRARY}/settings/data.py"
LAYOUTS = f"{LIBRARY}/data/layouts/__init__.py"
SOURCES = f"{LIBRARY}/data/annotations/sources.py"
# File -> the lines that a page says to add to it.
ADDED_LINES = {
    CHOICES: {
        "HEADS = (DeepLabV2,)\n": f"{examples.HEAD_SETTINGS}\n\nHEADS = (DeepLabV2, TwoMaps)\n",
        "OBJECTIVES = (SelfTraining,)\n": f"{examples.METHOD_SETTINGS}\n{SOFT_SETTINGS}\n\n"
        "OBJECTIVES = (SelfTraining, EmaTeacher, Soft)\n",
    },
    FORMATS: {'Literal["annotations", ': 'Literal["listed", "annotations", '},
    SOURCES: {
        "from . import coco,": "from . import via, coco,",
        "= (\n    coco.FORMAT,": f"= (\n    {examples.FORMAT_ENTRY}    coco.FORMAT,",
    },
    LAYOUTS: {
        "from . import annotations, camvid,": "from . import listed, annotations, camvid,",
        "LAYOUTS = {\n": f"LAYOUTS = {{\n    {examples.LAYOUT_ENTRY}",
    },
}
ADDED_FILES = {
    f"{LIBRARY}/models/heads/two_maps.py": examples.HEAD_CODE,
    f"{LIBRARY}/training/objectives/ema_teacher.py": examples.METHOD_CODE,
    f"{LIBRARY}/training/objectives/soft.py": SOFT_CODE,
    f"{LIBRARY}/data/layouts/listed.py": examples.LAYOUT_CODE,
    f"{LIBRARY}/data/annotations/via.py": examples.FORMAT_CODE,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study with methods, a head and a layout that are not part of the library."""
    root = tmp_path_factory.mktemp("added") / "project"
    project = Project.create(
        root,
        data="photos",
        format="listed",
        classes=CLASSES,
        network={"backbone": "small", "output_stride": 4, "head": {"name": "two_maps", "fine": 0}},
        runs=[{"splits": ["6"], "seeds": [0], "methods": ["ema-teacher", "soft"]}],
    )
    for name, changes in ADDED_LINES.items():
        text = (root / name).read_text()
        for line, new in changes.items():
            assert text.count(line) == 1
            text = text.replace(line, new)
        (root / name).write_text(text)
    for name, text in ADDED_FILES.items():
        (root / name).write_text(text)
    shutil.copy(REPOSITORY / "workflow/methods.yaml", root / "workflow")
    with open(root / "workflow/methods.yaml", "a") as file:
        file.write(examples.METHOD_ROW + SOFT_ROW)
    write_scenes(DrawSettings.model_validate(EXPERIMENT["digits"]), root / "photos")
    with open(root / "photos/index.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mask", "subset"])
        for path in sorted((root / "photos/images").rglob("*.png")):
            image = path.relative_to(root / "photos").as_posix()
            writer.writerow([image, image.replace("images/", "labels/"), path.parent.name])
    project.snakemake()
    return project


def test_no_shipped_file_but_the_registers_and_the_row_was_touched(study):
    found = {
        str(path.relative_to(study.root))
        for folder in ("scripts", "workflow", "profiles")
        for path in (study.root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    changed = {
        name
        for name in found
        if not (REPOSITORY / name).is_file()
        or (REPOSITORY / name).read_bytes() != (study.root / name).read_bytes()
    }
    assert changed == {*ADDED_LINES, *ADDED_FILES, "workflow/methods.yaml"}


def test_the_study_is_whole_and_nothing_is_made_twice(study):
    assert not study.jobs()
    with open(study.study / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"supervised", "ema-teacher", "soft"}
    assert all(row["miou"] for row in rows)
    settings = yaml.safe_load((study.study / "6_0/ema-teacher/round1/settings.json").read_text())
    assert settings["train"]["objective"] == {"name": "ema_teacher", "keep": 0.9}
    assert settings["train"]["steps"] == 5 * EXPERIMENT["train"]["steps"]
    base = yaml.safe_load((study.study / "6_0/supervised/settings.json").read_text())
    assert base["network"]["head"] == {"name": "two_maps", "fine": 0}
    assert "aspp_rates" not in base["network"] and "objective" not in base["train"]


def test_the_reference_pages_list_what_was_added(study):
    code = (
        "from documentation.settings_pages import *\n"
        "print(keys_page(), methods_page(), networks_page(), formats_page())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=study.root / "scripts", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for added in ("### `two_maps`", "### `ema_teacher`", "## `listed`", "| `ema-teacher` | a mean"):
        assert added in done.stdout
    assert "keys of one of `ema_teacher`, `self_training`, `soft`" in done.stdout


def test_its_key_reruns_its_training_alone_and_is_told(study, tmp_path):
    project = study.copy(tmp_path / "edited")
    methods = project.root / "workflow/methods.yaml"
    methods.write_text(methods.read_text().replace("keep: 0.9", "keep: 0.8"))
    said = project.snakemake("-n", fails=True)
    assert "train.objective.keep: 0.9 -> 0.8" in said
    assert project.trained("--config", "replace=true") == ["6_0/ema-teacher/round1"]
    methods.write_text(methods.read_text().replace("keep: 0.8", "kep: 0.8"))
    assert "did you mean 'keep'?" in project.snakemake("-n", fails=True)


def test_an_objective_reads_what_its_settings_say(study, tmp_path):
    log = study.study / "logs/6_0/soft/round1/finetune.log"
    assert "11 thresholds.csv of a model of round 0" in log.read_text()
    project = study.copy(tmp_path / "edited")
    place = project.study / "6_0/soft/round1"
    (place / "thresholds.edited.csv").write_bytes((place / "thresholds.csv").read_bytes())
    assert project.trained() == ["6_0/soft/round1"]
    project.snakemake("results/tiny/6_0/soft/round1/model.pt")
    log = project.study / "logs/6_0/soft/round1/finetune.log"
    assert "11 thresholds.edited.csv of a model of round 0" in log.read_text()


def test_a_model_is_handed_over_by_name_and_compared_on_val(study):
    folder = study.study / "6_0/ema-teacher/round1/export"
    assert not folder.exists(), "nobody has asked for it"
    target = str((folder / "model.onnx").relative_to(study.root))
    study.snakemake(target)
    assert {path.name for path in folder.iterdir()} == {
        "model.md", "model.onnx", "model.pt2", "checksums",
    }  # fmt: skip
    log = (study.study / "logs/6_0/ema-teacher/round1/export.log").read_text()
    assert "in 4 images" in log and "(real images)" in log
    card = (folder / "model.md").read_text()
    assert card.startswith("# tiny/6_0/ema-teacher/round1\n") and "6 labeled, 8 unlabeled" in card
    assert "head `two_maps`, fine 0" in card
    assert not study.jobs(target)


def test_the_annotations_of_an_added_format_become_masks(study, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(5):
        Image.new("RGB", (10, 8), (number, 0, 0)).save(tmp_path / f"photos/{number}.png")

    def region(label, x, y):
        area = {"name": "polygon", "all_points_x": x, "all_points_y": y}
        return {"shape_attributes": area, "region_attributes": {"class": label}}

    triangle = region("nucleus", [1, 6, 1], [1, 1, 6])
    square = region("cell", [0, 7, 7, 0], [0, 0, 7, 7])
    point = {"shape_attributes": {"name": "point", "cx": 1, "cy": 1}, "region_attributes": {}}
    regions = [triangle, square, point]
    via = {f"{n}.png99": {"filename": f"{n}.png", "regions": regions} for n in range(5)}
    path = tmp_path / "via.json"

    def look():
        path.write_text(json.dumps(via))
        script = study.root / "scripts/new_experiment.py"
        options = ["--images", tmp_path / "photos", "--labels", path, "--look"]
        command = [sys.executable, script, *options]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    told = look().stdout
    assert "found: VGG Image Annotator: 10 shapes of 2 labels in 5 images" in told
    assert "left out: regions that are no polygons (5)" in told
    # 15 of 80 pixels: the centres in the triangle; the square covers 49, with these.
    assert "class 'nucleus': value 1" in told or "class 'cell': value 1" in told
    assert "18.75% of the pixels" in told and "42.50% of the pixels" in told
    triangle["shape_attributes"]["all_points_y"] = [1, 1]
    refused = look()
    assert refused.returncode == 1
    assert "0.png99, region 1, 1.png99, region 1" in refused.stderr
    assert "as many x as y are expected" in refused.stderr
