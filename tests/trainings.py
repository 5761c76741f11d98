"""Helpers that train small models in one process or two, and that make single samples."""

from __future__ import annotations

import pickle
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dst_cbc.data.masks import write_indexed_png
from dst_cbc.models.segmentation import build
from dst_cbc.runtime.resume import Work, resume_folder
from dst_cbc.settings.network import NetworkSettings
from dst_cbc.settings.stages import TrainStage
from dst_cbc.training import loop, objectives
from dst_cbc.training.ranks import ALONE
from dst_cbc.training.samples import PseudoSamples, Samples
from dst_cbc.training.sampling import Draw, sample_generator
from workflow import SCRIPTS

LABELED, PSEUDO = 0, 1
"""Numbers of the two streams of self-training."""


def small_network(**settings):
    """Settings of the smallest network, with one dilation rate; `settings` replace keys."""
    values = {"backbone": "small", "output_stride": 4, "aspp_rates": (1,)}
    return NetworkSettings(**values | settings)


def small_model(dataset, seed=0, **settings):
    """A model with `small_network`; equal seeds give equal weights."""
    torch.manual_seed(seed)
    return build(small_network(**settings), dataset.classes)


def make_stage(**changes):
    """Settings of six steps on 24-pixel crops, validated after 3 and 6; `changes` replace keys."""
    values = {
        "batch": 4, "crop": (24, 24), "learning_rate": 0.05, "weight_decay": 1e-4, "gamma": 2.0,
        "steps": 6, "validate_at": (3, 6), "seed": 1, "round": 0, "select": "val",
        "validation": {"batch": 3, "tile": 2048},
    }  # fmt: skip
    return TrainStage(**values | changes)


class Killed(BaseException):
    """Raised instead of killing the process."""


def same(one, other):
    """Whether two states have the same tensors under the same names."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def train(model, best, data, stage, device, work, *, ranks=ALONE, **options):
    """Train `model` by the objective that `stage` chooses; returns where training ended."""
    objective = objectives.make(model, data, stage, device, ranks)
    return loop.train(objective, best, data, stage, device, work, ranks=ranks, **options)


def first_batch(data, stage, model, device):
    """The objective of self-training, and its first batch."""
    objective = objectives.make(model, data, stage, device)
    loader, _ = loop.batches(objective.streams, stage, 0, 0, device)
    return objective, next(loader)


def sample(data, stage, model, draw: Draw):
    """Image, label and, if it is used, confidence of one draw from the streams of self-training."""
    kind, rows = (Samples, data.labeled) if draw.stream == LABELED else (PseudoSamples, data.pseudo)
    parts = kind(rows, data, stage, model)(draw, sample_generator(stage.seed, stage.round, draw))
    return tuple(parts.values())


CPU = torch.device("cpu")
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

# The script of each of two processes: it trains in float64 and saves the weights.
ONE_OF_TWO = """
import pickle, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:4]
import numpy as np
import torch
from dst_cbc.training.ranks import here
from trainings import weights_after
mine = here(2)
folder = Path(sys.argv[4])
make, data, stage = pickle.loads((folder / "work.pickle").read_bytes())
mine.join(torch.device("cpu"), stage)
torch.save(weights_after(make, data, stage, folder / "state", mine), folder / f"{mine.rank}.pt")
"""


def weights_after(make, data, stage, folder, ranks=ALONE):
    """Train in float64; return all tensors before and after, and the names of trained parameters.

    make: a function like `objectives.make`.
    """
    model = small_model(data.dataset)
    model.network.double()
    objective = make(model, data, stage, CPU, ranks)

    def state():
        return {
            f"{name}.{key}": value.clone()
            for name, one in objective.modules.items()
            for key, value in one.module.state_dict().items()
        }

    before = state()
    holding = resume_folder(folder, "") if ranks.first else nullcontext(Work.of_another(folder))
    with holding as work:
        loop.train(objective, None, data, stage, CPU, work, ranks=ranks)
    learning = [
        f"{name}.{key}"
        for name, one in objective.modules.items()
        for key, value in one.module.named_parameters()
        if one.optimizer and value.requires_grad
    ]
    return before, state(), learning


def weights_after_two(make, data, stage, folder):
    """Run the same training in two processes; return the tensors of each process after it."""
    (folder / "work.pickle").write_bytes(pickle.dumps((make, data, stage)))
    (folder / "one_of_two.py").write_text(ONE_OF_TWO)
    here = Path(__file__).parent
    # The last folder holds modules that may define `make`.
    found_in = [SCRIPTS, here, here / "training"]
    command = [sys.executable, *TWO, folder / "one_of_two.py", *found_in, folder]
    subprocess.run([*map(str, command)], check=True)
    return [torch.load(folder / f"{rank}.pt")[1] for rank in (0, 1)]


def require_gradients_of_one(make, data, stage, folder):
    """Assert that a step of two processes equals a step of one, up to the rounding of float64.

    stage: one step at learning rate 1 without momentum, so that the change of a weight is its
    gradient. Returns the result of `weights_after`.
    """
    first, second = weights_after_two(make, data, stage, folder)
    before, alone, learning = weights_after(make, data, stage, folder / "alone")
    largest = max((before[name] - alone[name]).abs().max() for name in learning)
    assert learning and largest > 1e-3
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        if value.is_floating_point():
            assert (first[name] - value).abs().max() < 1e-6 * largest, name
        else:
            assert torch.equal(first[name], value), name
    return before, alone, learning


def pseudo_labeled(rows, folder, classes):
    """Label all pixels of the images as digit 7; returns their rows, whose masks cannot be read."""
    for row in rows:
        labels = np.full((row.height, row.width), 8, np.uint8)
        write_indexed_png(folder / f"{row.id}.png", labels, classes)
    return [replace(row, label="no/such/mask.png") for row in rows]
