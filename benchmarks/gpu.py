"""Rows measured on a GPU: the paper's network in bf16, and the hours of a column of Table 3."""

from __future__ import annotations

import copy
import itertools
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import cases
import demo
import network
import pictures
import processes
import samples
import stages
from dst_cbc.planning.plan import load_plan
from dst_cbc.runtime import devices
from dst_cbc.settings.network import NetworkSettings
from dst_cbc.settings.stages import Compute, PredictStage
from dst_cbc.training import loop, objectives
from measure import REPOSITORY, Row, in_turns, paired, row
from targets import HOURS, PREDICT_CUDA, STEP_CUDA, TRAIN_CUDA

SIDE, BATCH = 321, 8
WORKERS = min(4, os.cpu_count())
STEPS, IMAGES = 50, 256  # per turn
MOST = 20_000  # number of batches that the loader provides
COLUMN = {"runs": [{"splits": ["106"], "seeds": [0], "methods": ["dst-cbc"]}]}
"""The first column of Table 3: 100 labeled images, one seed."""


def rows(folder: Path) -> Iterator[Row]:
    if torch.cuda.is_available():
        yield from rows_on(devices.prepare("cuda", Compute()), folder, cases.RESNET)


def rows_on(
    device: torch.device,
    folder: Path,
    settings: NetworkSettings,
    side: int = SIDE,
    images: int = IMAGES,
    steps: int = STEPS,
    seconds: float = 10.0,
) -> Iterator[Row]:
    """Yield the rows for any device and network, so that they can be tested without a GPU."""
    schedule = {"steps": MOST, "validate_at": (MOST,)}
    stage = cases.paper(crop=(side, side), batch=BATCH, **schedule, **cases.CUDA)
    yield network.step_row(STEP_CUDA, cases.model(settings), stage, seconds, device)
    data = pictures.write(folder / "data", images)
    yield (trained := train_row(data, cases.model(settings), stage, steps, seconds, device))
    data = pictures.write(folder / "squares", images, (side, side))
    yield (predicted := predict_row(data, cases.model(settings), folder, seconds, device))
    yield hours_row(folder / "voc", trained, predicted)


def train_row(data, model, stage, steps: int, seconds: float, device: torch.device) -> Row:
    """Training from files with loading workers, compared with bare steps on data in memory."""
    _, bare = network.steps(copy.deepcopy(model), stage, device)
    step = network.our_step(model, stage, device)
    objective = objectives.make(model, samples.half_pseudo(data), stage, device)
    batches, _ = loop.batches(objective.streams, stage, 0, WORKERS, device)

    def ours() -> None:
        for batch in itertools.islice(batches, steps):
            step(batch)
        network.wait(device)

    def bound() -> None:
        for _ in range(steps):
            bare()

    ours()
    bound()
    with busy(device) as shares:
        ours()
    taken = in_turns(ours, bound, seconds=seconds)
    share = statistics.median(b / a for a, b in zip(*taken, strict=True))
    speeds = (steps * stage.batch / statistics.median(one) for one in taken)
    return row(TRAIN_CUDA, *speeds, share, f"{WORKERS} workers{_listed(shares)}")


def predict_row(data, model, folder: Path, seconds: float, device: torch.device) -> Row:
    """The predict stage with loading workers, compared with forward passes on images in memory."""
    model.network.to(device)
    stage = PredictStage(batch=BATCH, tile=2048, **cases.CUDA)
    predicts = stages.prediction(model, data, stage, folder, device, WORKERS)
    bound = stages.bare_pass(model, data, BATCH, device, torch.bfloat16)
    predicts()
    bound()
    with busy(device) as shares:
        predicts()
    taken = in_turns(predicts, bound, seconds=seconds)
    speed = len(data.rows) / statistics.median(taken[0])
    note = f"{speed:.1f} images/s, {WORKERS} workers{_listed(shares)}"
    return paired(PREDICT_CUDA, *taken, 1000 / len(data.rows), note)


def hours_row(folder: Path, trained: Row, predicted: Row) -> Row:
    """Hours of five rounds, computed from two rows; validation is assumed as fast as prediction."""
    place, files = processes.voc_case(folder)
    overrides = {**COLUMN, "data": str(place / "data")}
    _, records, plan = load_plan(REPOSITORY, files, overrides)
    steps, passes = demo.necessary(records, plan)

    def hours(images_per_second: float, milliseconds: float) -> float:
        return (BATCH * steps / images_per_second + passes * milliseconds / 1000) / 3600

    note = f"{steps} steps, {passes} images; the paper: 7 hours on an RTX 2080 Ti"
    ours = hours(trained.ours, predicted.ours)
    return row(HOURS, ours, hours(trained.bound, predicted.bound), note=note)


@contextmanager
def busy(device: torch.device, every: int = 200) -> Iterator[list[int]]:
    """Yield a list that gets nvidia-smi's GPU utilization in percent, every `every` ms, at exit."""
    shares: list[int] = []
    if device.type != "cuda" or not shutil.which("nvidia-smi"):
        yield shares
        return
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = ["nvidia-smi", f"--id={uuid}", "--query-gpu=utilization.gpu"]
    command += ["--format=csv,noheader,nounits", f"--loop-ms={every}"]
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(command, stdout=said) as smi:
        try:
            yield shares
        finally:
            smi.terminate()
            smi.wait()
            said.seek(0)
            shares += [int(line) for line in said if line.strip().isdigit()]


def _listed(shares: list[int]) -> str:
    return f", GPU busy {statistics.mean(shares):.0f} %" if shares else ""
