"""A method and a head are added: new files, two registers and a row; no other file is changed.

The method is the README's example, word for word. A whole study runs with it, from split to table
and export.
"""

import csv
import shutil
from pathlib import Path

import pytest
import yaml

import two_maps
from added_method import CODE, ROW, SETTINGS
from workflow import EXPERIMENT, REPOSITORY, Project

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
soft: {curriculum: [0.5], objective: {name: soft}}
"""
LIBRARY = "scripts/dst_cbc"
CHOICES = f"{LIBRARY}/settings/choices.py"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study with methods and a head that are not part of the library."""
    network = {"backbone": "small", "output_stride": 4, "head": {"name": "two_maps", "fine": 0}}
    runs = [{"splits": ["6"], "seeds": [0], "methods": ["ema-teacher", "soft"]}]
    root = tmp_path_factory.mktemp("added") / "project"
    project = Project.create(root, network=network, runs=runs)
    choices = root / CHOICES
    text = choices.read_text()
    for line, new in (
        ("HEADS = (DeepLabV2,)\n", two_maps.SETTINGS.lstrip()),
        (
            "OBJECTIVES = (SelfTraining,)\n",
            f"{SETTINGS}\n{SOFT_SETTINGS}\n\nOBJECTIVES = (SelfTraining, EmaTeacher, Soft)\n",
        ),
    ):
        assert text.count(line) == 1
        text = text.replace(line, new)
    choices.write_text(text)
    shutil.copy(Path(two_maps.__file__), root / LIBRARY / "models/heads/two_maps.py")
    (root / LIBRARY / "training/objectives/ema_teacher.py").write_text(CODE)
    (root / LIBRARY / "training/objectives/soft.py").write_text(SOFT_CODE)
    shutil.copy(REPOSITORY / "workflow/methods.yaml", root / "workflow")
    with open(root / "workflow/methods.yaml", "a") as file:
        file.write(ROW + SOFT_ROW)
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
    assert changed == {
        CHOICES,
        f"{LIBRARY}/models/heads/two_maps.py",
        f"{LIBRARY}/training/objectives/ema_teacher.py",
        f"{LIBRARY}/training/objectives/soft.py",
        "workflow/methods.yaml",
    }


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


@pytest.mark.slow
def test_a_network_with_the_head_is_exported(study):
    folder = "results/tiny/6_0/ema-teacher/round1/export"
    study.snakemake(f"{folder}/model.onnx")
    card = (study.root / folder / "model.md").read_text()
    assert "head `two_maps`, fine 0" in card
