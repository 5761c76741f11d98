"""Run the labeling model on the unlabeled images: predictions, or labels by the rule of CBST."""

import math
from collections.abc import Callable, Iterator, Sequence
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
    """Yield ids and labels by the rule of CBST, see `normalized`.

    labels: uint8 (H, W), at `settings.size` if it is set, else at the image's own size.
    """
    label = normalized(thresholds, device)
    batches = batches_of(rows, settings)
    loader = loader_of(Images(root, rows, model, settings), batches, workers, device)
    for indexes, (pixels,) in zip(batches, loader, strict=True):
        (labels,) = predict(model, pixels, settings, device, label)
        yield from zip((rows[i].id for i in indexes), labels.cpu().numpy(), strict=True)


def normalized(
    thresholds: Sequence[float], device: torch.device
) -> Callable[[torch.Tensor], tuple[torch.Tensor]]:
    """Return the rule of CBST: argmax over c of p_c / t_c if this ratio is at least 1, else 255.

    thresholds: log-odds of t_c, one per class; inf: no pixel gets the class; -inf: the class has no
    limit, and precedes all classes that have one. The function takes logits, float (N, C, H, W), to
    labels, uint8 (N, H, W). It compares p_c and t_c by the levels of `confidence`, as the rule
    `threshold` does; probabilities of an easy class would all round to 1.
    """
    edges = torch.tensor(thresholds, dtype=torch.float64)
    log_thresholds = torch.where(edges == math.inf, _LAST, F.logsigmoid(edges))
    without_limit = edges == -math.inf
    if without_limit.any():
        log_thresholds = torch.where(without_limit, 0.0, _LAST)
    # One factor on all thresholds changes no comparison; with equal ones, nothing is rounded.
    divisors = (log_thresholds - log_thresholds.min()).float().view(-1, 1, 1).to(device)
    cutoffs = torch.tensor([confidence.level_from(edge) for edge in thresholds], device=device)

    def label(logits: torch.Tensor) -> tuple[torch.Tensor]:
        classes, levels = confidence.quantise(logits, divisors)
        return (classes.masked_fill(levels < cutoffs[classes.long()], IGNORED),)

    return label


_LAST = torch.finfo(torch.float32).max
"""In place of log t_c of a class that yields to all others; inf would lead to NaN."""


def _pixels(classes: torch.Tensor, levels: torch.Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield classes, uint8, and confidence, uint16, of each image: three bytes per pixel."""
    return zip(classes.cpu().numpy(), levels.to(torch.uint16).cpu().numpy(), strict=True)
