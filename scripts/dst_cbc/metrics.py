"""Figures of merit, all from the confusion matrix of a whole subset."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .settings import IGNORED


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """int64 (classes, classes), row = truth, column = prediction; ignored truth left out.

    A prediction that is itself ignored (a pseudo label) is left out, too.
    """
    valid = (truth != IGNORED) & (prediction != IGNORED)
    pairs = truth[valid].astype(np.int64) * classes + prediction[valid]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """float64 (classes,) in 0..1: intersection over union; NaN where the union is empty."""
    hit = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hit
    return np.divide(hit, union, out=np.full(len(hit), math.nan), where=union > 0)


def mean_iou(confusion: np.ndarray) -> float:
    """Mean in 0..1 over the classes whose union is not empty; NaN when there is none."""
    iou = class_iou(confusion)
    return float(np.nanmean(iou)) if np.isfinite(iou).any() else math.nan


def pixel_accuracy(confusion: np.ndarray) -> float:
    """Share of right pixels, 0..1; NaN when there is no pixel."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else math.nan


def report(confusion: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """What metrics.json says of one model on one subset: figures in percent, None = undefined."""
    return {
        "miou": _percent(mean_iou(confusion)),
        "pixel_accuracy": _percent(pixel_accuracy(confusion)),
        "classes": classes,
        "iou": dict(zip(classes, map(_percent, class_iou(confusion)), strict=True)),
        "confusion": confusion.tolist(),
    }


def _percent(share: float) -> float | None:
    return None if math.isnan(share) else 100 * float(share)
