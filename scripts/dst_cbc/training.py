"""The training loop: supervised when it is given no pseudo labels, self-training when it is.

Everything random follows from the step (see sampling.py), and the state of a killed training is
saved whole: one that was killed and resumed ends in the bytes of one that was not.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from . import devices, loading, optimization, sampling, stopping
from .files import DataError, Unusable, atomic
from .images import label_table, open_image, open_label
from .index import Row
from .inference import evaluate, image_tensor, mean_colour, require_room
from .interleaving import interleave
from .losses import dynamic_loss, online_labels, valid_pixels
from .metrics import mean_iou, pixel_accuracy
from .models import Model, low_logits, read_checkpoint, upsample
from .predictions import read_probabilities
from .ranks import ALONE, Ranks
from .resume import Work
from .settings import DatasetStage, TrainStage
from .transforms import draw_warp, jitter, whole

HISTORY = ["step", "loss", "learning_rate", "miou", "pixel_accuracy", "best"]
STATE = "state.pt"


@dataclass(frozen=True)
class Data:
    """What one training reads.

    pseudo: the images without a label of their own. pseudo_folder: where `<id>.png` of each of
    them lies, None where the model in training labels them. predictions: of the model that
    labeled, in the order of `pseudo`; needed where its confidence is the weight.
    """

    root: Path
    dataset: DatasetStage
    labeled: Sequence[Row]
    pseudo: Sequence[Row]
    pseudo_folder: Path | None
    validation: Sequence[Row]
    predictions: Path | None = None


@dataclass
class Progress:
    """All that changes in training beside weights and optimizer.

    best: record of the best model of the chain so far, None before the first; best_state: its
    weights when it was reached in this training, None when it is still the one it began with.
    seconds: of training and validation in all sittings.
    """

    step: int
    best: dict[str, Any] | None
    best_state: dict[str, torch.Tensor] | None
    history: list[dict[str, Any]]
    loss_sum: float = 0.0
    loss_steps: int = 0
    resumes: int = 0
    seconds: float = 0.0


class Samples(Dataset):
    """Augmented samples by `sampling.Draw`: image uint8 (3, h, w) and label uint8 (h, w).

    With `weighting: original` also the confidence of the model that labeled, float32 (h, w).
    """

    def __init__(self, data: Data, stage: TrainStage, model: Model):
        self.data, self.stage = data, stage
        self.table = label_table(data.dataset)
        self.input_scale, self.window = model.settings.input_scale, model.window
        self.fill = mean_colour(model)

    def row(self, draw: sampling.Draw) -> Row:
        rows = self.data.labeled if draw.stream == sampling.LABELED else self.data.pseudo
        return rows[draw.index]

    def __getitem__(self, draw: sampling.Draw) -> tuple[torch.Tensor, ...]:
        row, settings = self.row(draw), self.stage.augmentation
        random = sampling.sample_generator(self.stage.seed, self.stage.round, draw)
        size, augmented = (row.height, row.width), self._is_augmented(draw)
        if augmented:
            warp = draw_warp(size, self.stage.crop, settings, random, self.input_scale)
        else:
            warp = whole(size, self.stage.crop)
        image = open_image(self.data.root / row.image, self.window)
        pixels = warp.image(np.asarray(image), self.fill)
        if augmented:
            pixels = jitter(pixels, settings, random)
        label = warp.label(np.asarray(self._label(row, draw.stream)))
        sample = (image_tensor(pixels), torch.from_numpy(label))
        if self.stage.weighting == "original":
            confidence = np.asarray(self._confidence(row, draw))
            sample += (torch.from_numpy(warp.values(confidence)),)
        return sample

    def _is_augmented(self, draw: sampling.Draw) -> bool:
        return draw.stream == sampling.LABELED or self.stage.augment_pseudo

    def _label(self, row: Row, stream: int) -> Image.Image:
        if stream == sampling.LABELED:
            return open_label(self.data.root / row.label, self.table)
        if self.data.pseudo_folder is None:
            # Labeled by the model in training; the warp marks what lies outside the image.
            return Image.new("L", (row.width, row.height))
        # Its pixels are class numbers already; the manifest vouched for them before training.
        return Image.open(self.data.pseudo_folder / f"{row.id}.png")

    def _confidence(self, row: Row, draw: sampling.Draw) -> Image.Image:
        if draw.stream == sampling.LABELED:
            return Image.new("F", (row.width, row.height), 1.0)
        stored = Image.fromarray(read_probabilities(self.data.predictions, draw.index, row.id))
        # Predicted on a squashed image: back to its size, as its label.
        return stored.resize((row.width, row.height), Image.Resampling.NEAREST)


def beats(score: float, best: dict[str, Any] | None) -> bool:
    """Whether a mIoU replaces the best of the chain; NaN never does, an equal one does not."""
    return not math.isnan(score) and (best is None or score > best["score"])


def is_chosen(stage: TrainStage, step: int, score: float, best: dict[str, Any] | None) -> bool:
    """Whether the weights of a validated step become the chain's model."""
    return step == stage.steps if stage.select == "last" else beats(score, best)


def train(
    model: Model,
    best: dict[str, Any] | None,
    data: Data,
    stage: TrainStage,
    device: torch.device,
    work: Work,
    board: Path | None = None,
    workers: int = 0,
    save_seconds: float = 60.0,
    ranks: Ranks = ALONE,
) -> Progress:
    """Train `model` in place for `stage.steps` steps.

    best: record of the model that must be beaten, None in round 0. work: where unfinished state
    goes. board: folder of TensorBoard files. ranks: this process among those that share the work,
    of which the first validates and saves, and alone knows the history. Returns where it ended;
    `history` has one row per validation, mIoU and accuracy in percent. Raises Unusable
    when the loss is not finite, and Stopped, with the state saved, when a signal asked for it.
    """
    require_room(data.root, data.validation, stage.validation)
    state = work.folder / STATE
    network = model.network.to(device, memory_format=devices.memory_format(stage))
    if device.type == "cpu":
        # Where a dilated depthwise convolution takes far longer than a plain one.
        interleave(network)
    if stage.sync_norm and ranks.size > 1:
        optimization.synchronise_norm(network)
    optimizer = optimization.optimizer(network, stage)
    weights = _class_weights(data, stage, device)
    scaler = torch.amp.GradScaler(device.type, enabled=stage.precision == "float16")
    progress = _resumed(state, network, optimizer, scaler) or Progress(0, best, None, [])
    writer = _replay(board if ranks.first else None, progress.history)
    loader, draws, samples = _batches(data, stage, model, progress.step, workers, device, ranks)
    parallel = ranks.parallel(model)
    begun = time.monotonic() - progress.seconds

    def save() -> None:
        work.refresh()
        progress.seconds = time.monotonic() - begun
        save_state(state, progress, network, optimizer, scaler)

    def save_and_stop() -> None:
        if ranks.first:
            save()
        stopping.stop_if_asked(f"step {progress.step} of {stage.steps} is saved")

    def validate() -> None:
        reached = progress.history[-1]["step"] if progress.history else None
        if progress.step in stage.validate_at and progress.step != reached:
            if ranks.first:
                # Cut short, it is repeated.
                with suppress(stopping.Stopped):
                    _validate(model, data, stage, device, workers, progress)
                    _log(writer, progress.history[-1])
            if ranks.asked_to_stop():
                save_and_stop()
        optimization.training_mode(network, stage)

    # Where the state was saved between a step and its validation.
    validate()
    saved = time.monotonic()
    quiet = None if ranks.first else True
    bar = tqdm(total=stage.steps, initial=progress.step, desc="train", disable=quiet)
    for draw, batch in zip(draws, loader, strict=True):
        seed = sampling.torch_seed(stage.seed, stage.round, progress.step, ranks.rank)
        torch.manual_seed(seed)
        optimization.set_rate(optimizer, optimization.learning_rate(stage, progress.step))
        loss = _loss(parallel, batch, data, stage, weights, device, ranks)
        value = ranks.sum(loss).item()
        if not math.isfinite(value):
            ids = ", ".join(samples.row(one).id for one in draw)
            # Not saved here: this forward pass has already reached the running statistics.
            raise Unusable(
                f"step {progress.step}: the loss is {value}; images: {ids}. The last saved state "
                f"is kept in {work.folder}. Lower train.learning_rate or set train.clip"
            )
        # The mean over the processes becomes their sum.
        _descend(ranks.size * loss, network, stage, optimizer, scaler)
        progress.step += 1
        progress.loss_sum += value
        progress.loss_steps += 1
        bar.update()
        if ranks.asked_to_stop():
            save_and_stop()
        validate()
        due = time.monotonic() - saved >= save_seconds and progress.step < stage.steps
        if due and ranks.first:
            save()
            saved = time.monotonic()
    if writer:
        writer.close()
    progress.seconds = time.monotonic() - begun
    return progress


def _loss(
    model: Model,
    batch: tuple[torch.Tensor, ...],
    data: Data,
    stage: TrainStage,
    weights: torch.Tensor | None,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> torch.Tensor:
    """This process's part of the batch's loss: the parts add up to it."""
    images, labels, *confidence = batch
    images = images.to(device, non_blocking=True, memory_format=devices.memory_format(stage))
    labels = labels.to(device, non_blocking=True).long()
    logits = upsample(low_logits(model, images, stage.precision), labels.shape[-2:])
    pseudo = _pseudo_share(data, stage) // ranks.size
    if pseudo and stage.online_threshold is not None:
        own = online_labels(logits[-pseudo:], labels[-pseudo:], stage.online_threshold)
        labels = torch.cat((labels[:-pseudo], own))
    original = confidence[0][-pseudo:].to(device, non_blocking=True) if confidence else None
    valid = ranks.sum(valid_pixels(labels))
    return dynamic_loss(logits, labels, pseudo, stage.gamma, weights, original, valid)


def _descend(
    loss: torch.Tensor,
    network: torch.nn.Module,
    stage: TrainStage,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """One step down the gradient."""
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    if stage.clip:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), stage.clip)
    scaler.step(optimizer)
    scaler.update()


def _class_weights(data: Data, stage: TrainStage, device: torch.device) -> torch.Tensor | None:
    table = label_table(data.dataset)
    labels = (np.asarray(open_label(data.root / row.label, table)) for row in data.labeled)
    weights = optimization.class_weights(stage, list(data.dataset.classes), labels)
    return None if weights is None else weights.to(device)


def _pseudo_share(data: Data, stage: TrainStage) -> int:
    """Pseudo-labeled images of a batch: half of it, none in supervised training (section 4.2)."""
    return stage.batch // 2 if data.pseudo else 0


def _batches(
    data: Data,
    stage: TrainStage,
    model: Model,
    start: int,
    workers: int,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> tuple[Iterator[loading.Batch], list[list[sampling.Draw]], Samples]:
    """This process's shares of the batches, and the draws of the whole ones."""
    pseudo = _pseudo_share(data, stage)
    streams = [(sampling.LABELED, len(data.labeled), stage.batch - pseudo)]
    if pseudo:
        streams.append((sampling.PSEUDO, len(data.pseudo), pseudo))
    draws = list(sampling.batches(stage.seed, stage.round, streams, start, stage.steps))
    samples = Samples(data, stage, model)
    labeled = stage.batch - pseudo
    shares = [ranks.share(draw[:labeled]) + ranks.share(draw[labeled:]) for draw in draws]
    loader = loading.batches(samples, shares, workers, pin=device.type == "cuda")
    return loader, draws, samples


def _validate(
    model: Model,
    data: Data,
    stage: TrainStage,
    device: torch.device,
    workers: int,
    progress: Progress,
) -> None:
    """Append a row of history; keep the weights when they are the best of the chain."""
    confusion = evaluate(
        model,
        data.root,
        data.validation,
        data.dataset,
        stage.validation,
        device,
        workers,
    )
    miou = 100 * mean_iou(confusion)
    if is_chosen(stage, progress.step, miou, progress.best):
        progress.best = record(stage, progress.step, None if math.isnan(miou) else miou)
        progress.best_state = copy.deepcopy(cpu_state(model))
    row = {
        "step": progress.step,
        "loss": progress.loss_sum / progress.loss_steps,
        "learning_rate": optimization.learning_rate(stage, progress.step - 1),
        "miou": miou,
        "pixel_accuracy": 100 * pixel_accuracy(confusion),
        "best": progress.best["score"] if progress.best else None,
    }
    progress.history.append(row)
    progress.loss_sum, progress.loss_steps = 0.0, 0
    subset = "val" if stage.select == "last" else stage.select
    print(
        f"step {row['step']}/{stage.steps}  loss {row['loss']:.4f}  {subset} mIoU {miou:.2f}"
        f"  best of the chain {row['best'] if row['best'] is None else format(row['best'], '.2f')}",
        flush=True,
    )


def record(stage: TrainStage, step: int, score: float | None) -> dict[str, Any]:
    """Where weights come from; part of the model file."""
    return {"round": stage.round, "step": step, "selected_on": stage.select, "score": score}


def cpu_state(model: Model) -> dict[str, torch.Tensor]:
    """The network's state, on the CPU."""
    return {key: value.detach().cpu() for key, value in model.network.state_dict().items()}


def save_state(path: Path, progress: Progress, network, optimizer, scaler) -> None:
    """Write all that a killed training needs to end in the same bytes."""
    with atomic(path) as temporary:
        torch.save(
            {
                "progress": vars(progress),
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
            },
            temporary,
        )


def _resumed(path: Path, network, optimizer, scaler) -> Progress | None:
    """Where a killed training went on to, with everything back in its place; None: nowhere."""
    if not path.is_file():
        return None
    try:
        state = read_checkpoint(path)
    except DataError as error:
        print(f"{error}; starts at the first step, and ends the same", flush=True)
        return None
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    progress = Progress(**state["progress"])
    progress.resumes += 1
    print(f"resumed at step {progress.step}", flush=True)
    return progress


def _replay(board: Path | None, history: list[dict[str, Any]]) -> SummaryWriter | None:
    """A fresh TensorBoard folder with what is known so far: no step twice after a resume."""
    if board is None:
        return None
    for old in board.glob("events.out.tfevents.*"):
        old.unlink()
    writer = SummaryWriter(os.fspath(board))
    for row in history:
        _log(writer, row)
    return writer


def _log(writer: SummaryWriter | None, row: dict[str, Any]) -> None:
    if writer:
        for name in ("loss", "learning_rate", "miou", "pixel_accuracy"):
            writer.add_scalar(name, row[name], row["step"])
        writer.flush()
