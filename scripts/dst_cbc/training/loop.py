"""The training loop: draws batches, takes steps, validates, saves, resumes, stops.

The loop is independent of the method: an objective (objective.py) defines the losses of a step.
All randomness is derived from the step number (sampling.py) and the whole state is saved, so a
training that was killed and resumed ends in the same bytes as an undisturbed one.
"""

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..inference.metrics import mean_iou, pixel_accuracy
from ..inference.paired import describe, difference
from ..inference.whole_images import evaluate_each, require_fit
from ..models.segmentation import SegmentationModel, cpu_state, write_model
from ..runtime import signals
from ..runtime.errors import DataError, Unusable
from ..runtime.paths import make_folder
from ..runtime.resume import Work
from ..settings.stages import TrainStage
from . import checkpoint, loading, sampling
from .checkpoint import Progress
from .loading import Batch, Tensors
from .objective import Objective, Stream
from .ranks import ALONE, Ranks
from .samples import Data
from .steps import descents_of, seed_torch, set_modes, take_step

HISTORY = list(checkpoint.HistoryRow.__annotations__)
"""Columns of history.csv."""

STATE = "state.pt"
SNAPSHOTS = "snapshots"

Draws = list[list[sampling.Draw]]


def train(
    objective: Objective,
    best: dict[str, Any] | None,
    data: Data,
    stage: TrainStage,
    device: torch.device,
    work: Work,
    board: Path | None = None,
    workers: int = 0,
    save_seconds: float = 60.0,
    ranks: Ranks = ALONE,
    on_step: Callable[[Progress], None] = lambda progress: None,
    best_model: SegmentationModel | None = None,
) -> Progress:
    """Train the objective's modules in place for `stage.steps` steps.

    best: record of the best model of the chain so far, None in round 0. work: holds the state of
    the unfinished training. board: folder of TensorBoard files. ranks: this process among those
    that train together; only the first one validates, saves and has the history. on_step: called
    after each step, before the validation and the save. best_model: the model that `best` is the
    record of; with `data.groups`, it is compared with each validated one. Returns the final
    progress; `history` has one row per validation, mIoU and pixel accuracy in percent. Raises
    Unusable when the loss is not finite. Raises Stopped, after saving the state, when a signal
    asked the process to stop.
    """
    require_fit(data.root, data.validation, stage.validation)
    modules = objective.modules
    if all(one.module is not objective.evaluated.network for one in modules.values()):
        raise ValueError(f"{type(objective).__name__}: `evaluated` is not one of its modules")
    for one in modules.values():
        one.module.to(device)
    descents = descents_of(objective, stage, device, ranks)
    scalers = {name: descent.scaler for name, descent in descents.items()}
    state = work.folder / STATE
    progress = checkpoint.resume(state, modules, scalers)
    if progress is None:
        progress = Progress(0, best, None, [])
        if data.groups and best_model and ranks.first:
            best_model.network.to(device)
            found = _confusions(best_model, data, stage, device, workers)
            progress.best_confusions = torch.from_numpy(found)
    writer = _replay(board if ranks.first else None, progress.history)
    loader, draws = batches(objective.streams, stage, progress.step, workers, device, ranks)
    begun = time.monotonic() - progress.seconds

    def save() -> None:
        work.refresh()
        progress.seconds = time.monotonic() - begun
        checkpoint.save(state, progress, modules, scalers)

    def save_and_stop() -> None:
        if ranks.first:
            save()
        signals.stop_if_asked(f"step {progress.step} of {stage.steps} is saved")

    def validate() -> None:
        reached = progress.history[-1]["step"] if progress.history else None
        if progress.step in stage.validate_at and progress.step != reached:
            if ranks.first:
                # An interrupted validation leaves no row of history; the next start repeats it.
                with suppress(signals.Stopped):
                    _validate(objective, data, stage, device, workers, progress)
                    _log(writer, progress.history[-1])
            if ranks.asked_to_stop():
                save_and_stop()
        set_modes(modules)

    # The state may have been saved between a step and its validation.
    validate()
    saved = time.monotonic()
    quiet = None if ranks.first else True
    bar = tqdm(total=stage.steps, initial=progress.step, desc="train", disable=quiet)
    for draw, batch in zip(draws, loader, strict=True):
        sizes = [len(of_stream) for of_stream in draw]
        seed_torch(stage, progress.step, device, ranks)
        losses = take_step(objective, descents, batch, sizes, stage, progress.step, ranks)
        if not math.isfinite(sum(losses)):
            # Do not save: this step has already changed the weights.
            raise Unusable(_not_finite(losses, objective.streams, draw, progress.step, work))
        progress.step += 1
        progress.loss_sum += sum(losses)
        progress.loss_steps += 1
        bar.update()
        if ranks.first:
            _keep_snapshot(objective.evaluated, stage, progress.step, work)
        on_step(progress)
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


def batches(
    streams: Sequence[Stream],
    stage: TrainStage,
    start: int,
    workers: int,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> tuple[Iterator[Batch], list[Draws]]:
    """Return the batches of this process from step `start` on, and the draws of whole batches.

    Raises DataError if the processes cannot divide a stream's images of a batch evenly.
    """
    uneven = next((stream for stream in streams if stream.share % ranks.size), None)
    if uneven:
        raise DataError(
            f"train.gpus: found {ranks.size}, but a batch has {uneven.share} images of the stream "
            f"{uneven.name!r}; expected a divisor of {uneven.share}"
        )
    sizes = [(len(stream.rows), stream.share, stream.joined) for stream in streams]
    draws = list(sampling.batches(stage.seed, stage.round, sizes, start, stage.steps))
    shares = [[ranks.share(of_stream) for of_stream in draw] for draw in draws]
    samples = {stream.name: partial(_sample, stream.sample, stage) for stream in streams}
    return loading.batches(samples, shares, workers, pin=device.type == "cuda"), draws


def _sample(sample: Callable[..., Tensors], stage: TrainStage, draw: sampling.Draw) -> Tensors:
    return sample(draw, sampling.sample_generator(stage.seed, stage.round, draw))


def _not_finite(
    losses: list[float], streams: Sequence[Stream], draw: Draws, step: int, work: Work
) -> str:
    ids = ", ".join(
        stream.rows[one.index].id
        for stream, of_stream in zip(streams, draw, strict=True)
        for one in of_stream
    )
    return (
        f"step {step}: the loss is {', '.join(map(str, losses))}; images: {ids}. The last saved "
        f"state is kept in {work.folder}. Lower train.learning_rate or set train.clip"
    )


def beats(score: float, best: dict[str, Any] | None) -> bool:
    """Whether a mIoU is greater than the best of the chain. NaN and an equal mIoU are not."""
    return not math.isnan(score) and (best is None or score > best["score"])


def ended_early(stage: TrainStage, share: float) -> TrainStage:
    """The stage that ends after a share of its steps, 0..1, validated there for the last time."""
    end = max(1, round(share * stage.steps))
    if end == stage.steps:
        return stage
    steps = (*(step for step in stage.validate_at if step < end), end)
    return stage.model_copy(update={"steps": end, "validate_at": steps})


def is_chosen(stage: TrainStage, step: int, score: float, best: dict[str, Any] | None) -> bool:
    """Whether the weights of a validated step become the chain's model."""
    if stage.select in ("last", "folds"):
        return step == stage.steps
    return (stage.candidates == "validations" or step == stage.steps) and beats(score, best)


def _validate(
    objective: Objective,
    data: Data,
    stage: TrainStage,
    device: torch.device,
    workers: int,
    progress: Progress,
) -> None:
    """Append a row to the history; keep the weights if they become the chain's model."""
    model = objective.evaluated
    found = _confusions(model, data, stage, device, workers)
    confusion, before = found.sum(0), progress.best_confusions
    miou = 100 * mean_iou(confusion)
    if is_chosen(stage, progress.step, miou, progress.best):
        progress.best = record(stage, progress.step, None if math.isnan(miou) else miou)
        progress.best_state = copy.deepcopy(cpu_state(model))
        progress.best_confusions = torch.from_numpy(found) if data.groups else None
    rates = (one.rate for one in objective.modules.values() if one.rate)
    row: checkpoint.HistoryRow = {
        "step": progress.step,
        "loss": progress.loss_sum / progress.loss_steps,
        "learning_rate": next(rates)(progress.step - 1),
        "miou": miou,
        "pixel_accuracy": 100 * pixel_accuracy(confusion),
        "best": progress.best["score"] if progress.best else None,
    }
    progress.history.append(row)
    progress.loss_sum, progress.loss_steps = 0.0, 0
    subset = "val" if stage.select in ("last", "folds") else stage.select
    print(
        f"step {row['step']}/{stage.steps}  loss {row['loss']:.4f}  {subset} mIoU {miou:.2f}"
        f"  best of the chain {row['best'] if row['best'] is None else format(row['best'], '.2f')}",
        flush=True,
    )
    if before is not None:
        compared = describe(difference(found, before.numpy(), data.groups))
        print(f"against the best model before: {compared}", flush=True)


def _confusions(
    model: SegmentationModel, data: Data, stage: TrainStage, device: torch.device, workers: int
) -> np.ndarray:
    """The matrix of each image of the validation, int64 (images, classes, classes)."""
    each = evaluate_each(
        model, data.root, data.validation, data.dataset, stage.validation, device, workers
    )
    return np.array([*each], np.int64).reshape(-1, *(len(data.dataset.classes),) * 2)


def _keep_snapshot(model: SegmentationModel, stage: TrainStage, step: int, work: Work) -> None:
    """Write a snapshot of the weights into the folder of the state, if one is due at `step`."""
    for number in range(1, stage.snapshots + 1):
        if step == -(-stage.steps * number // stage.snapshots):
            path = work.folder / SNAPSHOTS / f"{number}.pt"
            write_model(path, model, cpu_state(model), record(stage, step, None))


def record(stage: TrainStage, step: int, score: float | None) -> dict[str, Any]:
    """Where weights come from: round, step, selection and score (mIoU in percent, or None).

    Model files contain this record.
    """
    return {"round": stage.round, "step": step, "selected_on": stage.select, "score": score}


def _replay(board: Path | None, history: list[checkpoint.HistoryRow]) -> SummaryWriter | None:
    """Start new TensorBoard files with the history so far, so that no step occurs twice."""
    if board is None:
        return None
    make_folder(board)
    for old in board.glob("events.out.tfevents.*"):
        old.unlink()
    writer = SummaryWriter(os.fspath(board))
    for row in history:
        _log(writer, row)
    return writer


def _log(writer: SummaryWriter | None, row: checkpoint.HistoryRow) -> None:
    if writer:
        for name in ("loss", "learning_rate", "miou", "pixel_accuracy"):
            writer.add_scalar(name, row[name], row["step"])
        writer.flush()
