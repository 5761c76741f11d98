"""Rows of the loss, the training step, and saving the state."""

from __future__ import annotations

import copy
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F

import cases
import pictures
from dst_cbc.models import segmentation
from dst_cbc.settings.data import IGNORED
from dst_cbc.settings.stages import TrainStage
from dst_cbc.training import checkpoint, objectives, optimization
from dst_cbc.training.loading import Batch
from dst_cbc.training.losses import dynamic_loss
from dst_cbc.training.objective import Trained, trained
from dst_cbc.training.samples import Data
from dst_cbc.training.steps import descents_of, set_modes, take_step
from measure import SCRIPTS, Row, in_turns, paired, peak, row
from targets import (
    LOSS,
    LOSS_PEAK,
    SAVE_LITE,
    SAVE_RESNET,
    STEP_DEMO,
    STEP_LITE,
    STEP_LITE_ALL,
    STEP_RESNET,
)

SAVE_SECONDS = 60.0  # default time between two saves
CPU = torch.device("cpu")


def rows(folder: Path) -> Iterator[Row]:
    yield loss_row()
    yield loss_peak_row()
    resnet = cases.model(cases.RESNET)
    yield step_row(STEP_RESNET, resnet, cases.paper(crop=(161, 161), batch=2), seconds=45)
    yield step_row(STEP_DEMO, *demo_case(), seconds=8)
    lite = cases.model(cases.LITE)
    yield step_row(STEP_LITE, lite, cases.camvid(crop=(160, 160)), seconds=15)
    learning = cases.camvid(crop=(160, 160), freeze_stages=0)
    yield step_row(STEP_LITE_ALL, cases.model(cases.LITE), learning, seconds=15)
    yield save_row(SAVE_RESNET, resnet, folder)
    yield save_row(SAVE_LITE, lite, folder)


# --------------------------------------------------------------------------- the loss


def loss_row() -> Row:
    logits, labels = _logits_and_labels()
    calls = [lambda one=one: _descend_to(one, logits, labels) for one in (_ours, _cross_entropy)]
    for call in calls:
        call()
    return paired(LOSS, *in_turns(*calls, seconds=10), 1000, "half pseudo-labeled, gamma 9")


def loss_peak_row() -> Row:
    """Peak memory of each loss beyond the logits, each measured in its own process."""
    found = []
    for name in ("_ours", "_cross_entropy"):
        code = f"import network; network.tell_memory_before(network.{name})"
        paths = [str(Path(__file__).parent), str(SCRIPTS)]
        program = f"import sys; sys.path[:0] = {paths}; {code}"
        highest, said = peak([sys.executable, "-c", program])
        found.append(highest - float(said.split()[-1]))
    return row(LOSS_PEAK, *found, note="gradient of the logits included")


def tell_memory_before(loss: Callable) -> None:
    """Print this process's peak memory in MiB with the logits in memory, then compute `loss`."""
    # Warm up first, so that code and thread pools are not counted as memory of the loss.
    _descend_to(loss, *_logits_and_labels(side=32))
    logits, labels = _logits_and_labels()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)
    _descend_to(loss, logits, labels)


def _ours(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return dynamic_loss(logits, labels, 4, 9.0)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, labels, ignore_index=IGNORED)


def _descend_to(loss: Callable, logits: torch.Tensor, labels: torch.Tensor) -> None:
    logits.grad = None
    loss(logits, labels).backward()


def _logits_and_labels(side: int = 321) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    logits = torch.randn(8, 21, side, side, requires_grad=True)
    return logits, _labels(8, 21, (side, side))


def _labels(images: int, classes: int, size: tuple[int, int]) -> torch.Tensor:
    """Labels, int64 (images, height, width): squares of one class, a twentieth of them ignored."""
    coarse = torch.randint(classes, (images, 1, 12, 12)).float()
    coarse[torch.rand(coarse.shape) < 0.05] = IGNORED
    return F.interpolate(coarse, size, mode="nearest").squeeze(1).long()


# --------------------------------------------------------------------------- the step


def step_row(
    what: str,
    model: segmentation.SegmentationModel,
    stage: TrainStage,
    seconds: float,
    device: torch.device = CPU,
) -> Row:
    ours, bound = steps(model, stage, device)
    for _ in range(3):
        ours()
        bound()
    taken = in_turns(ours, bound, seconds=seconds)
    speed = stage.batch / statistics.median(taken[0])
    note = f"batch {stage.batch}, {len(taken[0])} steps each, {speed:.1f} images/s"
    return paired(what, *taken, 1000, note)


def demo_case() -> tuple[segmentation.SegmentationModel, TrainStage]:
    """The demo's network, and the training settings of its first self-training round."""
    experiment, _, plan = cases.demo()
    (stage, *_) = [m.settings.train for m in plan.models.values() if m.learns_unlabeled]
    return cases.model(experiment.network, plan.dataset.classes), stage


def steps(
    model: segmentation.SegmentationModel, stage: TrainStage, device: torch.device
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return a step of our training loop, and a hand-written step of the unmodified timm network.

    Both train the same layers on the same batch, half of it pseudo-labeled.
    """
    torch.manual_seed(0)
    images = torch.randint(256, (stage.batch, 3, *stage.crop), dtype=torch.uint8)
    labels = _labels(stage.batch, len(model.classes), stage.crop)
    # Copy the network before our step modifies it.
    bare = copy.deepcopy(model.network).to(device)
    bound = _bare_step(bare, images, labels, stage, device)
    half, bytes_ = stage.batch // 2, labels.to(torch.uint8)
    batch = {
        "labeled": {"image": images[half:], "label": bytes_[half:]},
        "pseudo": {"image": images[:half], "label": bytes_[:half]},
    }
    step = our_step(model, stage, device)

    def ours() -> None:
        step(batch)
        wait(device)

    return ours, bound


def our_step(
    model: segmentation.SegmentationModel, stage: TrainStage, device: torch.device
) -> Callable[[Batch], None]:
    """Return a function that takes a step of the training loop with a batch from the loader."""
    # One pseudo-labeled image makes the objective split the batch in half; no file is read.
    data = Data(Path(), pictures.dataset(), [], [None], None, [])
    objective = objectives.make(model, data, stage, device)
    descents = descents_of(objective, stage, device)
    set_modes(objective.modules)
    sizes = [stream.share for stream in objective.streams]
    return lambda batch: take_step(objective, descents, batch, sizes, stage, 0)


def _bare_step(network, images, labels, stage, device) -> Callable[[], None]:
    images, labels = images.to(device).float() / 255, labels.to(device)
    bare = trained(network, stage)  # freezes layers as `stage` sets
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, 1e-4, stage.momentum, weight_decay=stage.weight_decay)
    set_modes({"network": bare})
    half = getattr(torch, stage.precision) if stage.precision != "float32" else None

    def step() -> None:
        with torch.autocast(device.type, half) if half else nullcontext():
            low = network(images).float()
        logits = F.interpolate(low, labels.shape[-2:], mode="bilinear", align_corners=True)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits, labels, ignore_index=IGNORED).backward()
        optimizer.step()
        wait(device)

    return step


def wait(device: torch.device) -> None:
    """Wait until the device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


# --------------------------------------------------------------------------- the state


def save_row(what: str, model: segmentation.SegmentationModel, folder: Path, saves: int = 7) -> Row:
    """Time to save the state (weights, momentum, best weights), as in training, with fsync."""
    stage = cases.paper()
    for parameter in model.network.parameters():
        parameter.requires_grad_(True)
        parameter.grad = torch.zeros_like(parameter)
    optimizer = optimization.optimizer(model.network, stage)
    optimizer.step()
    modules = {"network": Trained(model.network, optimizer)}
    scalers = {"network": torch.amp.GradScaler("cpu", enabled=False)}
    progress = checkpoint.Progress(
        1, {"round": 0, "step": 1, "score": 1.0}, segmentation.cpu_state(model), []
    )
    path, taken = folder / "state.pt", []
    for _ in range(saves):
        started = time.perf_counter()
        checkpoint.save(path, progress, modules, scalers)
        taken.append(time.perf_counter() - started)
    seconds, size = statistics.median(taken), path.stat().st_size / 1e6
    return row(what, seconds, SAVE_SECONDS, seconds / (SAVE_SECONDS + seconds), f"{size:.0f} MB")
