"""Simple versions of what stages compute, formulas written out, and given random numbers."""

import math

import numpy as np

from dst_cbc.self_training import confidence


def histogram(classes: np.ndarray, levels: np.ndarray, class_count: int) -> np.ndarray:
    """int64 (class_count, 65536): pixels of each predicted class at each confidence level."""
    flat = classes.astype(np.int64).ravel() * confidence.BINS + levels.ravel()
    counts = np.bincount(flat, minlength=class_count * confidence.BINS)
    return counts.reshape(class_count, confidence.BINS)


def bilinear(image, height, width):
    """Pixel centres, no antialiasing, in float64: out (i, j) lies at (i + 1/2) H/h - 1/2."""
    for axis, side in enumerate((height, width)):
        old = image.shape[axis]
        at = np.maximum((np.arange(side) + 0.5) * old / side - 0.5, 0)
        below = np.floor(at).astype(int)
        share = (at - below).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        after = np.minimum(below + 1, old - 1)
        image = (1 - share) * image.take(below, axis) + share * image.take(after, axis)
    return image


def nearest(label, height, width):
    """Output pixel i shows input pixel floor(i H/h)."""
    rows = [math.floor(i * label.shape[0] / height) for i in range(height)]
    columns = [math.floor(j * label.shape[1] / width) for j in range(width)]
    return label[rows][:, columns]


class Script:
    """A random generator that returns the given numbers, in order of use."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)
        self.bounds = []

    def integers(self, low, high, endpoint):
        assert endpoint
        self.bounds.append((low, high))
        return self.numbers.pop(0)

    def random(self):
        return self.numbers.pop(0)
