"""The labeling model over the unlabeled images: predictions, or labels by the rule of CBST."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..data.index import Row
from ..inference.whole_images import Images, batches_of, loader_of, predict
from ..models.segmentation import SegmentationModel
from ..runtime import signals
from ..settings.data import IGNORED
from ..settings.stages import Inference, PredictStage
from . import confidence, predictions


def predict_part(
    model: SegmentationModel,
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
    batches = batches_of(mine, settings)
    loader = loader_of(Images(root, mine, model, settings), batches, workers, device)
    bins = len(model.classes) * confidence.BINS
    counts = torch.zeros(bins, dtype=torch.int64, device=device)
    # Written while the network computes the next batch; and HDF5's many small allocations stay out
    # of the main thread's heap, where they would keep torch's freed blocks from being used again.
    with predictions.new_part(folder, part) as file, ThreadPoolExecutor(1) as writer:
        written = writer.submit(lambda: None)
        for indexes, (pixels,) in zip(batches, loader, strict=True):
            signals.stop_if_asked(f"{part} parts of {predictions.PART_IMAGES} images are kept")
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
    model: SegmentationModel,
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
        log_shares = logits.double().log_softmax(1)
        above = log_shares - F.logsigmoid(edges)
        above = torch.where(edges == -math.inf, log_shares + _FOR_SURE, above)
        best, winner = torch.where(edges == math.inf, -math.inf, above).max(1)
        return (winner.masked_fill(best < 0, IGNORED).to(torch.uint8),)

    batches = batches_of(rows, settings)
    loader = loader_of(Images(root, rows, model, settings), batches, workers, device)
    for indexes, (pixels,) in zip(batches, loader, strict=True):
        (labels,) = predict(model, pixels, settings, device, label)
        yield from zip((rows[i].id for i in indexes), labels.cpu().numpy(), strict=True)


_FOR_SURE = 1e6
"""Beyond every logarithm of a probability: among classes without a limit the likeliest wins."""


def _pixels(classes: torch.Tensor, levels: torch.Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Three bytes a pixel: classes uint8, confidence uint16."""
    return zip(classes.cpu().numpy(), levels.to(torch.uint16).cpu().numpy(), strict=True)
