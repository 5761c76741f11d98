"""Simple versions of what stages compute on a device or during a pass, for comparison."""

import numpy as np

from dst_cbc.self_training import confidence


def histogram(classes: np.ndarray, levels: np.ndarray, class_count: int) -> np.ndarray:
    """int64 (class_count, 65536): pixels of each predicted class at each confidence level."""
    flat = classes.astype(np.int64).ravel() * confidence.BINS + levels.ravel()
    counts = np.bincount(flat, minlength=class_count * confidence.BINS)
    return counts.reshape(class_count, confidence.BINS)
