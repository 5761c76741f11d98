"""The row of the whole demo; the bound is the time of its training steps and forward passes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch

import cases
import network
from measure import REPOSITORY, Row, in_turns, row, run
from processes import SNAKEMAKE
from targets import DEMO

CORES = 2


def rows(folder: Path) -> Iterator[Row]:
    experiment, records, plan = cases.demo()
    model, stage = network.demo_case()
    _, step = network.steps(model, stage, network.CPU)
    batch = experiment.evaluation.batch
    side = experiment.digits.size
    images = torch.rand(batch, 3, side, side)
    bare = cases.model(experiment.network, plan.dataset.classes).network.eval()

    @torch.inference_mode()
    def one_pass() -> None:
        bare(images)

    # Measure the bound before and after the demo, because the machine may change in these minutes.
    before = in_turns(step, one_pass, seconds=5)
    command = [*SNAKEMAKE, "-s", REPOSITORY / "Snakefile", "--directory", folder, "--cores", CORES]
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    run([*command, "--configfile", REPOSITORY / "config.yaml"])
    seconds = time.perf_counter() - started
    after = in_turns(step, one_pass, seconds=5)
    each = [statistics.median(a + b) for a, b in zip(before, after, strict=True)]
    steps, passes = necessary(records, plan)
    bound = steps * each[0] + passes / batch * each[1]
    note = f"{steps} steps, {passes} images in sequence, because a round needs the previous one"
    yield row(DEMO, seconds, bound, note=f"{note}; on {CORES} cores")


def necessary(records, plan) -> tuple[int, int]:
    """Count training steps, and images that are validated or predicted for the next round.

    These run in sequence on one core. Loading, reports and the last evaluation can use the other
    core, so they are not part of the bound.
    """
    val = sum(record.subset == "val" for record in records)
    steps = passes = 0
    for model in plan.models.values():
        stage = model.settings.train
        steps += stage.steps
        passes += val * len(stage.validate_at)
        if model.labeled_by:
            passes += len(plan.splits[model.division].unlabeled)
    return steps, passes
