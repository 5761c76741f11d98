"""Rows of whole processes: start-up time, time to plan a workflow, and peak memory."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

import cases
import pictures
import shards
from dst_cbc.data.layouts import LAYOUTS
from dst_cbc.models import segmentation
from dst_cbc.settings.stages import PredictStage, ThresholdStage
from measure import REPOSITORY, SCRIPTS, Row, in_turns, paired, peak, row, run
from stages import arguments
from targets import (
    PEAK_LABELS,
    PEAK_PREDICT,
    PEAK_THRESHOLDS,
    PLAN,
    PLAN_MANY,
    START,
    START_TORCH,
)

IMAGES = (100, 2000)
SIZE = (160, 160)
UNLABELED = 10_000
VOC_TRAIN, VOC_VAL = 10_582, 1449
SNAKEMAKE = (sys.executable, "-m", "snakemake")


def rows(folder: Path) -> Iterator[Row]:
    yield from start_rows()
    yield plan_row(PLAN, *voc_case(folder / "voc"))
    yield plan_row(PLAN_MANY, *many_case(folder / "many"))
    yield from peak_rows(folder)


# --------------------------------------------------------------------------- start-up


def start_rows() -> Iterator[Row]:
    """Time until a stage has imported its modules; without torch, --help imports them all."""
    train = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import runpy; "
    train += (
        f"runpy.run_path({str(SCRIPTS / 'train.py')!r}); from dst_cbc.models import segmentation; "
    )
    train += "from dst_cbc.training import loop, objectives; "
    train += "from dst_cbc.training.objectives import self_training"
    for what, ours, bound, note in (
        (START_TORCH, ("-c", train), ("-c", "import torch, torchvision"), "train.py"),
        (START, (SCRIPTS / "thresholds.py", "--help"), ("-c", "import numpy"), "thresholds.py"),
    ):
        calls = [_python(ours), _python(bound)]
        for call in calls:
            call()
        yield paired(what, *in_turns(*calls, seconds=10, least=5), 1, note)


def _python(command: tuple) -> Callable[[], object]:
    return lambda: run([sys.executable, *command])


# --------------------------------------------------------------------------- plans


def plan_row(what: str, folder: Path, files: list[Path]) -> Row:
    """A dry run without earlier results, compared with `snakemake --version`."""
    command = [*SNAKEMAKE, "-s", REPOSITORY / "Snakefile", "--directory", folder, "--cores", "2"]
    command += ["--nocolor", "-n", "--configfile", *files]
    said = []

    def ours() -> None:
        shutil.rmtree(folder / "results", ignore_errors=True)
        said.append(run(command))

    taken = in_turns(ours, lambda: run([*SNAKEMAKE, "--version"]), seconds=12)
    total = re.search(r"^total +(\d+)", said[-1], re.MULTILINE)
    return paired(what, *taken, 1, f"{total[1]} jobs")


def voc_case(folder: Path) -> tuple[Path, list[Path]]:
    """voc.yaml, and a data set with VOC's layout, file names and number of tiny images."""
    root, lists = folder / "data", folder / "data/ImageSets/Segmentation"
    for name in (lists, root / "JPEGImages", root / "SegmentationClassAug"):
        name.mkdir(parents=True)
    train = [f"2013_{number:06d}" for number in range(VOC_TRAIN)]
    val = [*LAYOUTS["voc"].valtiny]
    val += [f"2014_{number:06d}" for number in range(VOC_VAL - len(val))]
    for name, ids in (("trainaug", train), ("val", val)):
        (lists / f"{name}.txt").write_text("".join(f"{id}\n" for id in ids))
    pixels = Image.fromarray(np.zeros((8, 8), np.uint8))
    for place, suffix in (("JPEGImages", "jpg"), ("SegmentationClassAug", "png")):
        source = folder / f"source.{suffix}"
        pixels.save(source)
        for id in (*train, *val):
            os.link(source, root / place / f"{id}.{suffix}")
    changes = folder / "changes.yaml"
    changes.write_text(yaml.safe_dump({"data": "data", "network": {"weights": None}}))
    return folder, [REPOSITORY / "workflow/experiments/voc.yaml", changes]


def many_case(folder: Path) -> tuple[Path, list[Path]]:
    """The experiment of shards.py with one job per stage."""
    (folder / "data").mkdir(parents=True)
    shards.write_data(folder / "data", shards.LABELED + UNLABELED)
    (folder / "many.yaml").write_text(shards.EXPERIMENT.format(shards=1))
    return folder, [folder / "many.yaml"]


# --------------------------------------------------------------------------- memory


def peak_rows(folder: Path) -> Iterator[Row]:
    """Peak memory for many images and for few: stages stream, so it must not grow."""
    few, many = (peaks(folder / str(images), images) for images in IMAGES)
    for what in few:
        yield row(what, many[what], few[what], note="160x160")


def peaks(folder: Path, images: int) -> dict[str, float]:
    """Row name -> peak memory of the stage in MiB, for `images` images."""
    data = pictures.write(folder / "data", images, SIZE, masks=False)
    data.write_lists(folder)
    model = cases.model(cases.SMALL)
    record = {"round": 0, "step": 1}
    segmentation.write_model(folder / "model.pt", model, model.network.state_dict(), record)
    common = {
        "--data": data.root,
        "--index": folder / "dataset.csv",
        "--unlabeled": folder / "ids.txt",
        "--predictions": folder / "p.h5",
    }
    predict = {
        "--settings": PredictStage(batch=8, tile=2048).canonical(),
        **common,
        "--model": folder / "model.pt",
        "--histogram": folder / "h.npz",
        "--resume": folder / "resume",
        "--device": "cpu",
    }
    thresholds = {
        "--settings": ThresholdStage(alpha="0.2", balance="class").canonical(),
        "--histogram": folder / "h.npz",
        "--classes": [*pictures.CLASSES],
        "--out": folder / "thresholds.csv",
    }
    labels = {
        "--settings": data.dataset.canonical(),
        **common,
        "--thresholds": folder / "thresholds.csv",
        "--out": folder / "pseudo_labels",
    }
    return {
        PEAK_PREDICT: _peak("predict.py", predict),
        PEAK_THRESHOLDS: _peak("thresholds.py", thresholds),
        PEAK_LABELS: _peak("pseudo_labels.py", labels),
    }


def _peak(script: str, options: dict[str, object]) -> float:
    highest, _ = peak([sys.executable, SCRIPTS / script, *arguments(options)])
    return highest
