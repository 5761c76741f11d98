"""Each stage names an image or a mask of which one bit has flipped since the data check."""

import os
import runpy
import shutil
import sys
from contextlib import chdir
from unittest.mock import patch

import pytest

from damage import flip
from dst_cbc.data.digit_scenes import CLASSES
from dst_cbc.data.index import write_index
from dst_cbc.runtime.errors import Changed, DataError, Spoiled
from dst_cbc.self_training import predictions
from dst_cbc.settings.data import SplitStage
from dst_cbc.settings.stages import (
    EvaluateStage,
    LabelStage,
    ModelSettings,
    PredictStage,
    ThresholdStage,
)
from trainings import SCRIPTS, make_stage, small_network

CHECKED = "--data data --index dataset.csv"
UNLABELED = f"{CHECKED} --settings dataset.json --unlabeled unlabeled.txt"
MODEL, ROUND = "4_0/supervised", "4_0/dst-cbc/round1"
PREDICTED = f"--predictions {MODEL}/predictions.h5"
LABELS = f"--thresholds {ROUND}/thresholds.csv --out {ROUND}/pseudo_labels"
COMMANDS = {
    "train": f"train.py {CHECKED} --settings train.json --labeled labeled.txt --out {MODEL}"
    " --resume state/train",
    "evaluate": f"evaluate.py {CHECKED} --settings evaluate.json --model {MODEL}/model.pt"
    f" --last {MODEL}/last.pt --out {MODEL}/metrics.json --confusions {MODEL}/confusions.csv",
    "predict": f"predict.py {CHECKED} --settings predict.json --unlabeled unlabeled.txt"
    f" --model {MODEL}/model.pt {PREDICTED} --histogram {MODEL}/histogram.npz"
    " --resume state/predict",
    "thresholds": f"thresholds.py --settings thresholds.json --histogram {MODEL}/histogram.npz"
    f" --classes {' '.join(CLASSES)} --out {ROUND}/thresholds.csv",
    "pseudo labels": f"pseudo_labels.py {UNLABELED} {PREDICTED} {LABELS}",
    "normalized pseudo labels": f"pseudo_labels.py {UNLABELED} --model {MODEL}/model.pt {LABELS}"
    " --settings normalized.json",
    "contact sheet": f"contact_sheet.py {UNLABELED} {PREDICTED} --labels {ROUND}/pseudo_labels"
    " --out sheet.jpg",
    "gallery": f"gallery.py {UNLABELED} --rounds {ROUND} --agreement agreement.csv --out page.html",
    "export": f"export.py --model {MODEL}/model.pt --images data --index dataset.csv --out export",
}


def run(command):
    """Run a stage in this process, from its command line."""
    script, *options = command.split()
    # A stage sets the number of threads in the environment, and handlers of signals.
    with (
        patch.dict(os.environ),
        patch.object(sys, "argv", [script, *options]),
        patch("dst_cbc.runtime.signals.listen"),
    ):
        runpy.run_path(str(SCRIPTS / script))["run"]()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, drawn, drawn_rows, digits_dataset):
    """A folder in which round 0 and the labels of round 1 are made: 4 of 8 images are labeled."""
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(drawn, folder / "data")
    write_index(folder / "dataset.csv", [row for rows in drawn_rows.values() for row in rows])
    ids = [row.id for row in drawn_rows["train"]]
    for name, some in (("labeled", ids[:4]), ("unlabeled", ids[4:])):
        (folder / f"{name}.txt").write_text("".join(f"{id}\n" for id in some))
    inference = {"batch": 4, "tile": 2048}
    settings = {
        "dataset": digits_dataset,
        "train": ModelSettings(
            dataset=digits_dataset,
            split=SplitStage(rule={"count": 4}, seed=0),
            network=small_network(),
            train=make_stage(steps=2, validate_at=(2,)),
        ),
        "evaluate": EvaluateStage(dataset=digits_dataset, report=("val", "test"), **inference),
        "predict": PredictStage(**inference),
        "normalized": LabelStage(**dict(digits_dataset), inference=inference),
        "thresholds": ThresholdStage(alpha=0.5, balance="class"),
    }
    for name, stage in settings.items():
        (folder / f"{name}.json").write_text(stage.canonical())
    with chdir(folder):
        for name in ("train", "predict", "thresholds", "pseudo labels"):
            run(COMMANDS[name])
    return folder


@pytest.mark.parametrize(
    "stage, file",
    [
        ("train", "images/train/train-0001.png"),
        ("train", "labels/train/train-0001.png"),
        ("train", "images/val/val-0001.png"),
        ("evaluate", "images/val/val-0001.png"),
        ("evaluate", "labels/test/test-0001.png"),
        ("predict", "images/train/train-0005.png"),
        ("pseudo labels", "labels/train/train-0005.png"),
        ("normalized pseudo labels", "images/train/train-0005.png"),
        ("normalized pseudo labels", "labels/train/train-0005.png"),
        ("contact sheet", "images/train/train-0005.png"),
        ("contact sheet", "labels/train/train-0005.png"),
        ("gallery", "images/train/train-0005.png"),
        ("gallery", "labels/train/train-0005.png"),
        pytest.param("export", "images/val/val-0001.png", marks=pytest.mark.slow),
    ],
)
def test_a_flipped_bit_is_named(stage, file, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "study")
    flip(folder / "data" / file)
    with chdir(folder), pytest.raises(Changed, match=f"data/{file}"):
        run(COMMANDS[stage])


def test_a_flipped_bit_of_a_pseudo_label_is_named_before_a_page_shows_it(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "study")
    flip(folder / ROUND / "pseudo_labels/train-0005.png")
    with chdir(folder), pytest.raises(DataError, match=r"pseudo_labels/train-0005\.png"):
        run(COMMANDS["gallery"])


def test_a_training_drops_the_steps_that_may_have_used_a_changed_file(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "study")
    flip(folder / "data/images/val/val-0001.png")
    with chdir(folder), pytest.raises(Spoiled):
        run(COMMANDS["train"])
    assert not list((folder / "state").iterdir())


def test_a_prediction_keeps_the_parts_that_are_done(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "PART_IMAGES", 2)
    folder, parts = shutil.copytree(finished, tmp_path / "study"), []
    new_part = predictions.new_part
    recorded = lambda folder, part: parts.append(part) or new_part(folder, part)  # noqa: E731
    monkeypatch.setattr(predictions, "new_part", recorded)
    image = folder / "data/images/train/train-0006.png"
    flip(image)
    with chdir(folder):
        with pytest.raises(Changed):
            run(COMMANDS["predict"])
        flip(image)
        run(COMMANDS["predict"])
    # The image is the first one of the second part.
    assert parts == [0, 1, 1]
