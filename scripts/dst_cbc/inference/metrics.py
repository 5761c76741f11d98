"""Metrics, all computed from the confusion matrix of a whole subset."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..settings.data import IGNORED

FEW_IMAGES = 30
"""With fewer images, a mIoU is too noisy to select a model, and is reported with an interval."""
DRAWS = 2000
"""Number of bootstrap samples."""


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """int64 (classes, classes), row = truth, column = prediction, of all pixels not ignored.

    A pixel is left out if its truth is ignored, or if its prediction (a pseudo label) is ignored.
    """
    valid = (truth != IGNORED) & (prediction != IGNORED)
    pairs = truth[valid].astype(np.int64) * classes + prediction[valid]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """float64 (…, classes) in 0..1: intersection over union; NaN where the union is empty.

    confusion: (…, classes, classes), one matrix or several.
    """
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    union = confusion.sum(-2) + confusion.sum(-1) - hit
    return np.divide(hit, union, out=np.full(hit.shape, math.nan), where=union > 0)


def mean_iou(confusion: np.ndarray) -> float:
    """Mean in 0..1 over the classes whose union is not empty; NaN when there is none."""
    return float(mean_ious(confusion))


def mean_ious(confusions: np.ndarray) -> np.ndarray:
    """float64 (…): `mean_iou` of each of the matrices (…, classes, classes)."""
    values = class_iou(confusions)
    counted = ~np.isnan(values)
    total, count = np.where(counted, values, 0).sum(-1), counted.sum(-1)
    return np.divide(total, count, out=np.full(count.shape, math.nan), where=count > 0)


def pixel_accuracy(confusion: np.ndarray) -> float:
    """Share of correct pixels, 0..1; NaN when there is no pixel."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else math.nan


def group_sums(confusions: np.ndarray, groups: Sequence[int]) -> np.ndarray:
    """int64 (…, groups, classes, classes): the sum of the matrices of each group of images.

    confusions: (…, images, classes, classes). groups: the number of each image's group.
    """
    order = np.argsort(groups, kind="stable")
    _, begins = np.unique(np.asarray(groups)[order], return_index=True)
    return np.add.reduceat(confusions[..., order, :, :], begins, axis=-3)


def bootstrap_interval(confusions: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mIoU over images: lower and upper end, in 0..1.

    confusions: int64 (images, classes, classes), the matrix of each image; at least one image. The
    draws are the same in every call. NaN if no draw has a labeled pixel.
    """
    generator = np.random.default_rng(0)
    count = len(confusions)
    counts = generator.multinomial(count, [1 / count] * count, size=DRAWS)
    drawn = mean_ious(np.tensordot(counts, confusions, 1))
    if np.isnan(drawn).all():
        return math.nan, math.nan
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def report(confusions: np.ndarray, classes: list[str], groups: Sequence[int]) -> dict[str, Any]:
    """The entry of metrics.json for one model on one subset, in percent; None = undefined.

    confusions: int64 (images, classes, classes). groups: the number of each image's group. The
    entry of fewer than FEW_IMAGES images also has `miou_interval`, whose draws are of whole groups;
    it is undefined for several images of one group.
    """
    confusion = confusions.sum(0)
    few = 0 < len(confusions) < FEW_IMAGES
    return {
        **({"miou_interval": [*map(_percent, _grouped(confusions, groups))]} if few else {}),
        "miou": _percent(mean_iou(confusion)),
        "pixel_accuracy": _percent(pixel_accuracy(confusion)),
        "classes": classes,
        "iou": dict(zip(classes, map(_percent, class_iou(confusion)), strict=True)),
        "confusion": confusion.tolist(),
    }


def _grouped(confusions: np.ndarray, groups: Sequence[int]) -> tuple[float, float]:
    sums = group_sums(confusions, groups)
    if len(sums) == 1 < len(confusions):
        return math.nan, math.nan
    return bootstrap_interval(sums)


def _percent(share: float) -> float | None:
    return None if math.isnan(share) else 100 * float(share)
