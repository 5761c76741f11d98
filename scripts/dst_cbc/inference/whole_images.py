"""Passes of a model over whole images, batch by batch, for validation and for prediction."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..data.augmentation import whole
from ..data.images import open_image
from ..data.index import Row
from ..data.masks import label_table, open_label
from ..models.segmentation import SegmentationModel
from ..runtime import devices, signals
from ..runtime.errors import DataError, loaded
from ..settings.data import DatasetStage
from ..settings.stages import PART_IMAGES, Inference
from .metrics import confusion_matrix
from .tiling import AS_IT_IS, View, full_logits
from .winners import winners


class Images(Dataset):
    """Whole images, (3, H, W) in 0..255; with `table` also their masks, uint8 (H, W).

    They are resized and padded as `settings` say; the padding of masks is 255. Images are uint8,
    or float32 if `resampling: torch` has resized or padded them. Raises Changed for a file that
    the data check has not read.
    """

    def __init__(
        self,
        root: Path,
        rows: Sequence[Row],
        model: SegmentationModel,
        settings: Inference,
        dataset: DatasetStage | None = None,
    ):
        self.root, self.rows, self.settings = root, rows, settings
        self.table = label_table(dataset) if dataset else None
        self.masks = dataset.mask_root(root) if dataset else root
        self.window, self.bands = model.window, model.bands
        self.fill = mean_colour(model) if settings.pad_colour == "mean" else (0, 0, 0)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        row = self.rows[index]
        own, size, pad = (row.height, row.width), self.settings.size, self.settings.pad
        kind = self.settings.resampling
        warp = whole(own, size or own, pad, kind) if size or pad else None
        path = self.root / row.image
        image = np.asarray(open_image(path, self.window, row.image_sha256, self.bands))
        sample = (image_tensor(warp.image(image, self.fill) if warp else image),)
        if self.table is not None:
            label = np.array(open_label(self.masks / row.label, self.table, row.label_sha256))
            if warp and self.settings.masks == "resized":
                label = warp.label(label)
            sample += (torch.from_numpy(label),)
        return sample


def mean_colour(model: SegmentationModel) -> tuple[int, ...]:
    """RGB in 0..255 of the padding around an image: zero after normalisation."""
    return tuple(round(255 * channel) for channel in model.mean)


def require_fit(root: Path, rows: Sequence[Row], settings: Inference) -> None:
    """Raise DataError, with the name of the image, if an image is larger than `evaluation.pad`."""
    if not settings.pad:
        return
    for row in rows:
        size = settings.size or (row.height, row.width)
        if size[0] > settings.pad[0] or size[1] > settings.pad[1]:
            raise DataError(
                f"evaluation.pad: found {list(settings.pad)}, but {root / row.image} has "
                f"{size[0]} x {size[1]} pixels; expected at least this size: enlarge "
                "evaluation.pad, or set it to null"
            )


def image_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Copy an array, (H, W, 3), into a tensor of the same type, (3, H, W)."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def batches_of(rows: Sequence[Row], settings: Inference) -> list[list[int]]:
    size = None if settings.masks == "own" else settings.pad or settings.size
    seen = [replace(row, height=size[0], width=size[1]) for row in rows] if size else rows
    return same_size_batches(seen, settings.batch, PART_IMAGES)


def same_size_batches(rows: Sequence[Row], batch: int, every: int) -> list[list[int]]:
    """Divide images into batches of at most `batch` indexes: neighbours of equal size.

    No batch crosses a multiple of `every`. So the batches, and with them the results, depend
    neither on the number of workers nor on the image at which a killed pass continued.
    """
    batches: list[list[int]] = []
    for i, row in enumerate(rows):
        last = rows[i - 1]
        full = not batches or len(batches[-1]) == batch or i % every == 0
        if full or (row.height, row.width) != (last.height, last.width):
            batches.append([])
        batches[-1].append(i)
    return batches


def loader_of(
    images: Images, batches: list[list[int]], workers: int, device: torch.device
) -> Iterator[Sequence[torch.Tensor]]:
    loader = DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=signals.leave_to_parent,
    )
    return loaded(loader)


def evaluate(
    model: SegmentationModel, root: Path, rows: Sequence[Row], dataset: DatasetStage, *more: Any
) -> np.ndarray:
    """The sum of the confusion matrices of `evaluate_each`, which has the same arguments."""
    nothing = np.zeros((len(dataset.classes),) * 2, np.int64)
    return sum(evaluate_each(model, root, rows, dataset, *more), nothing)


def evaluate_each(
    model: SegmentationModel,
    root: Path,
    rows: Sequence[Row],
    dataset: DatasetStage,
    settings: Inference,
    device: torch.device,
    workers: int = 0,
) -> Iterator[np.ndarray]:
    """Yield the confusion matrix of each image in order, int64 (classes, classes).

    Leaves the model in eval mode. Raises DataError if an image has no label or is larger than
    `settings.pad`, and Changed if a file is not the one that the data check read.
    """
    unlabeled = [row.id for row in rows if not row.label]
    if unlabeled:
        raise DataError(f"{root}: {unlabeled[0]!r} has no label; it cannot be evaluated")
    require_fit(root, rows, settings)
    images = Images(root, rows, model, settings, dataset)
    batches = batches_of(rows, settings)
    loader = loader_of(images, batches, workers, device)
    for pixels, labels in tqdm(loader, "evaluate", len(batches), disable=None, leave=False):
        signals.stop_if_asked("this evaluation will start again")
        size = labels.shape[-2:]
        (winner,) = predict(model, pixels, settings, device, _winner, size=size)
        for truth, found in zip(labels.numpy(), winner.cpu().numpy(), strict=True):
            yield confusion_matrix(truth, found, len(dataset.classes))


def _winner(logits: torch.Tensor) -> tuple[torch.Tensor]:
    return (winners(logits),)


@torch.inference_mode()
def predict(
    model: SegmentationModel,
    pixels: torch.Tensor,
    settings: Inference,
    device: torch.device,
    reduce: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
    views: Sequence[View] = (AS_IT_IS,),
    size: Sequence[int] | None = None,
) -> tuple[torch.Tensor, ...]:
    """Apply `reduce` to the logits of `pixels`, (N, 3, H, W); leaves the model in eval mode.

    pixels: uint8 or float32 in 0..255. reduce: logits of some rows, float32 (N, classes, h, W), to
    tensors (N, h, W). Returns these tensors for all rows, (N, H, W). views, size: as for
    `full_logits`.
    """
    model.network.eval().to(memory_format=devices.memory_format(settings))
    pixels = pixels.to(device, non_blocking=True)
    stripes = full_logits(model, pixels, settings.tile, settings.precision, views, size)
    parts = zip(*map(reduce, stripes), strict=True)
    return tuple(part[0] if len(part) == 1 else torch.cat(part, 1) for part in parts)
