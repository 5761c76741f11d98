"""Run the labeling model on the unlabeled images: predictions, or labels by the rule of CBST."""

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
    """Predict the images of one part: write its HDF5 file, then its histogram.

    rows: all unlabeled images; part p holds PART_IMAGES of them, from p * PART_IMAGES on. The file
    has every pixel, at `settings.size` if it is set; the histogram counts every
    `settings.sampling`-th pixel of each batch (N, H, W), flattened.
    """
    first = part * predictions.PART_IMAGES
    mine = rows[first : first + predictions.PART_IMAGES]
    batches = batches_of(mine, settings)
    loader = loader_of(Images(root, mine, model, settings), batches, workers, device)
    bins = len(model.classes) * confidence.BINS
    counts = torch.zeros(bins, dtype=torch.int64, device=device)
    # A thread writes while the network computes the next batch; as many threads encode as processes
    # load, because a GPU predicts faster than one thread encodes. It also keeps HDF5's many small
    # allocations out of the main thread's heap, where they would keep torch from reusing memory.
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
            written = writer.submit(predictions.store, file, items, max(1, workers))
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
    """Yield ids and labels by the rule of CBST: argmax over c of p_c / t_c if it is >= 1, else 255.

    labels: uint8 (H, W), at `settings.size` if it is set, else at the image's own size.
    thresholds: log-odds of t_c, one per class; inf: no pixel gets the class; -inf: the class has no
    limit, and precedes all classes that have one.
    """
    edges = torch.tensor(thresholds, dtype=torch.float64, device=device).view(-1, 1, 1)

    def label(logits: torch.Tensor) -> tuple[torch.Tensor]:
        # In float64, because in float32 the pixels of an easy class would have no ranking.
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
"""Above every log p_c - log t_c; of several classes without a limit, the most probable wins."""


def _pixels(classes: torch.Tensor, levels: torch.Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield classes, uint8, and confidence, uint16, of each image: three bytes per pixel."""
    return zip(classes.cpu().numpy(), levels.to(torch.uint16).cpu().numpy(), strict=True)
