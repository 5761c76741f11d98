"""A model over images, streamed: validation and prediction use this one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from . import confidence, devices, predictions, stopping
from .files import DataError
from .images import LabelTable, label_table, open_image, open_label
from .index import Row
from .metrics import confusion_matrix
from .models import Model
from .settings import IGNORED, DatasetStage, Inference, PredictStage
from .tiling import AS_IT_IS, View, full_logits
from .transforms import Warp, whole


class Images(Dataset):
    """Whole images, uint8 (3, H, W); with `table` also their masks, uint8 (H, W).

    Resized and padded as `settings` say: with the mean colour, in masks with 255.
    """

    def __init__(
        self,
        root: Path,
        rows: Sequence[Row],
        model: Model,
        settings: Inference,
        table: LabelTable | None = None,
    ):
        self.root, self.rows, self.settings, self.table = root, rows, settings, table
        self.window, self.fill = model.window, mean_colour(model)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        row = self.rows[index]
        warp = self._warp(row)
        image = np.asarray(open_image(self.root / row.image, self.window))
        sample = (image_tensor(warp.image(image, self.fill) if warp else image),)
        if self.table is not None:
            label = np.array(open_label(self.root / row.label, self.table))
            sample += (torch.from_numpy(warp.label(label) if warp else label),)
        return sample

    def _warp(self, row: Row) -> Warp | None:
        own, size, pad = (row.height, row.width), self.settings.size, self.settings.pad
        return whole(own, size or own, pad) if size or pad else None


def mean_colour(model: Model) -> tuple[int, ...]:
    """RGB of what lies outside an image: zero after normalisation."""
    return tuple(round(255 * channel) for channel in model.mean)


def require_room(root: Path, rows: Sequence[Row], settings: Inference) -> None:
    """Raise DataError that names an image which `evaluation.pad` would cut."""
    if not settings.pad:
        return
    for row in rows:
        size = settings.size or (row.height, row.width)
        if size[0] > settings.pad[0] or size[1] > settings.pad[1]:
            raise DataError(
                f"evaluation.pad: found {list(settings.pad)}, but {root / row.image} has "
                f"{size[0]} x {size[1]} pixels; expected at least as many: enlarge it, or set it "
                "to null"
            )


def image_tensor(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) as a tensor uint8 (3, H, W) of its own memory."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def _batches(rows: Sequence[Row], settings: Inference) -> list[list[int]]:
    size = settings.pad or settings.size
    seen = [replace(row, height=size[0], width=size[1]) for row in rows] if size else rows
    return same_size_batches(seen, settings.batch, predictions.PART_IMAGES)


def same_size_batches(rows: Sequence[Row], batch: int, every: int) -> list[list[int]]:
    """Indexes of neighbours of one size, at most `batch`, never across a multiple of `every`.

    Batches depend on neither workers nor on where a killed pass went on, and so do the results.
    """
    batches: list[list[int]] = []
    for i, row in enumerate(rows):
        last = rows[i - 1]
        full = not batches or len(batches[-1]) == batch or i % every == 0
        if full or (row.height, row.width) != (last.height, last.width):
            batches.append([])
        batches[-1].append(i)
    return batches


def _loader(
    images: Images, batches: list[list[int]], workers: int, device: torch.device
) -> DataLoader:
    return DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=stopping.leave_to_parent,
    )


def evaluate(
    model: Model,
    root: Path,
    rows: Sequence[Row],
    dataset: DatasetStage,
    settings: Inference,
    device: torch.device,
    workers: int = 0,
) -> np.ndarray:
    """Confusion matrix, int64 (classes, classes), of `model` in eval mode on labeled images.

    Raises DataError as `evaluate_each`.
    """
    total = np.zeros((len(dataset.classes),) * 2, np.int64)
    for confusion in evaluate_each(model, root, rows, dataset, settings, device, workers):
        total += confusion
    return total


def evaluate_each(
    model: Model,
    root: Path,
    rows: Sequence[Row],
    dataset: DatasetStage,
    settings: Inference,
    device: torch.device,
    workers: int = 0,
) -> Iterator[np.ndarray]:
    """The same of each image, in order.

    Raises DataError when an image has no label, or does not fit into `settings.pad`.
    """
    unlabeled = [row.id for row in rows if not row.label]
    if unlabeled:
        raise DataError(f"{root}: {unlabeled[0]!r} has no label; it cannot be evaluated")
    require_room(root, rows, settings)
    images = Images(root, rows, model, settings, label_table(dataset))
    batches = _batches(rows, settings)
    bar = tqdm(_loader(images, batches, workers, device), "evaluate", disable=None, leave=False)
    for pixels, labels in bar:
        stopping.stop_if_asked("this evaluation starts anew")
        (winner,) = predict(model, pixels, settings, device, _winner)
        for truth, found in zip(labels.numpy(), winner.cpu().numpy(), strict=True):
            yield confusion_matrix(truth, found, len(dataset.classes))


def _winner(logits: torch.Tensor) -> tuple[torch.Tensor]:
    return (confidence.winners(logits),)


@torch.inference_mode()
def predict(
    model: Model,
    pixels: torch.Tensor,
    settings: Inference,
    device: torch.device,
    reduce: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
    views: Sequence[View] = (AS_IT_IS,),
) -> tuple[torch.Tensor, ...]:
    """What `reduce` makes of the logits of uint8 (N, 3, H, W); leaves the model in eval mode.

    reduce: float32 (N, classes, h, W), some rows of the images, to tensors (N, h, W); they come
    back as (N, H, W). views: as of `full_logits`.
    """
    model.network.eval().to(memory_format=devices.memory_format(settings))
    pixels = pixels.to(device, non_blocking=True)
    stripes = full_logits(model, pixels, settings.tile, settings.precision, views)
    parts = zip(*map(reduce, stripes), strict=True)
    return tuple(torch.cat(part, 1) if len(part) > 1 else part[0] for part in parts)


def predict_part(
    model: Model,
    root: Path,
    rows: Sequence[Row],
    part: int,
    folder: Path,
    settings: PredictStage,
    device: torch.device,
    workers: int = 0,
) -> None:
    """Predict the images of one part and close it: HDF5 file and histogram.

    rows: of all unlabeled images; part p holds the images p * PART_IMAGES and on. The file has
    every pixel, at `settings.size` where there is one; the histogram counts every
    `settings.sampling`-th pixel of a batch (N, H, W), flattened.
    """
    first = part * predictions.PART_IMAGES
    mine = rows[first : first + predictions.PART_IMAGES]
    batches = _batches(mine, settings)
    loader = _loader(Images(root, mine, model, settings), batches, workers, device)
    bins = len(model.classes) * confidence.BINS
    counts = torch.zeros(bins, dtype=torch.int64, device=device)
    # Written while the network computes the next batch; and HDF5's many small allocations stay out
    # of the main thread's heap, where they would keep torch's freed blocks from being used again.
    with predictions.new_part(folder, part) as file, ThreadPoolExecutor(1) as writer:
        written = writer.submit(lambda: None)
        for indexes, (pixels,) in zip(batches, loader, strict=True):
            stopping.stop_if_asked(f"{part} parts of {predictions.PART_IMAGES} images are kept")
            classes, levels = predict(model, pixels, settings, device, confidence.quantise)
            flat = classes.long() * confidence.BINS + levels
            counts += torch.bincount(flat.ravel()[:: settings.sampling], minlength=bins)
            items = [
                predictions.Prediction(first + i, mine[i].id, *item)
                for i, item in zip(indexes, _pixels(classes, levels), strict=True)
            ]
            written.result()
            written = writer.submit(predictions.store, file, items)
        written.result()
    predictions.close_part(folder, part, counts.view(-1, confidence.BINS).cpu().numpy())


def normalized_labels(
    model: Model,
    root: Path,
    rows: Sequence[Row],
    thresholds: Sequence[float],
    settings: Inference,
    device: torch.device,
    workers: int = 0,
) -> Iterator[tuple[str, np.ndarray]]:
    """Ids and labels uint8 (H, W) by the rule of CBST: argmax over c of p_c / t_c where it is >= 1.

    H, W: `settings.size` where there is one, else the image's own.
    thresholds: log-odds of t_c, one a class; inf: nothing becomes the class, -inf: all it wins.
    """
    edges = torch.tensor(thresholds, dtype=torch.float64, device=device).view(-1, 1, 1)

    def label(logits: torch.Tensor) -> tuple[torch.Tensor]:
        # In float64: there an easy class still has a ranking.
        confidence = logits.double().log_softmax(1)
        above = confidence - F.logsigmoid(edges)
        above = torch.where(edges == -math.inf, confidence + _FOR_SURE, above)
        best, winner = torch.where(edges == math.inf, -math.inf, above).max(1)
        return (winner.masked_fill(best < 0, IGNORED).to(torch.uint8),)

    batches = _batches(rows, settings)
    loader = _loader(Images(root, rows, model, settings), batches, workers, device)
    for indexes, (pixels,) in zip(batches, loader, strict=True):
        (labels,) = predict(model, pixels, settings, device, label)
        yield from zip((rows[i].id for i in indexes), labels.cpu().numpy(), strict=True)


_FOR_SURE = 1e6
"""Beyond every logarithm of a probability: among classes without a limit the likeliest wins."""


def _pixels(classes: torch.Tensor, levels: torch.Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Three bytes a pixel: classes uint8, confidence uint16."""
    return zip(classes.cpu().numpy(), levels.to(torch.uint16).cpu().numpy(), strict=True)
