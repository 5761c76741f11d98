"""The work of trainings and predictions, in pixels that pass through a network forward.

A pixel of an image, at the size that the network sees, counts once for each forward pass. In a
training step, it counts `1 + BACKWARD` times for each pass that has a gradient. So the work depends
on no machine, and is the same in every repetition. Validations and evaluations do not count. It
imports no torch.
"""

import math
from collections.abc import Iterable, Sequence

from ..models.sizes import scaled_size, spans
from ..settings.network import NetworkSettings
from ..settings.stages import Inference, ModelSettings, TrainStage
from ..settings.training import Optimization
from .sampling import images_in, steps_until

BACKWARD = 2
"""A backward pass costs about as much as this many forward passes.

It computes two products of matrices for each one forward: the gradients of the inputs and those of
the weights. Kaplan et al., Scaling Laws for Neural Language Models, 2020, section 2.1
(arXiv:2001.08361).
"""
MOST_SIZES = 100
"""The sizes of at most this many images stand for those of all."""


def of_model(
    settings: ModelSettings,
    network: NetworkSettings,
    labeled: int,
    unlabeled: int,
    sizes: Sequence[tuple[int, int]],
) -> int:
    """Work of one model: its training, and the passes over whole images that make its labels.

    network: that of the experiment, also if `settings` continues a model. labeled, unlabeled:
    number of images that it learns from; `unlabeled` is 0 for supervised training. sizes: as for
    `of_prediction`; may be empty if no label files are made. That of a method is the sum over its
    models and round 0; chains that share a prediction count it once each.
    """
    work = of_training(settings.train, labeled, unlabeled)
    if settings.predict and settings.thresholds:
        # The rule `normalized` passes the images once for the thresholds and once for the labels.
        passes = 2 if settings.thresholds.needs_pass else 1
        work += passes * of_prediction(settings.predict, network, unlabeled, sizes)
    return work


def of_training(stage: TrainStage, labeled: int, unlabeled: int = 0) -> int:
    """Work of all steps of a training. labeled, unlabeled: as for `of_model`."""
    pseudo, joined = stage.batch // 2 if unlabeled else 0, not stage.short_batches
    crops = images_in(stage.steps, labeled, stage.batch - pseudo, joined)
    own = images_in(stage.steps, unlabeled, pseudo, joined) if pseudo else 0
    passes = (1 + BACKWARD) * stage.objective.trained_passes * (crops + own)
    return math.prod(stage.crop) * (passes + stage.objective.labeling_passes * own)


def of_prediction(
    settings: Inference, network: NetworkSettings, images: int, sizes: Iterable[tuple[int, int]]
) -> int:
    """Work of one pass over whole images, the overlap of tiles included; rounded up.

    images: how many. sizes: (height, width) of some of them, whose mean stands for all; not used
    where `settings.size` says the size.
    """
    sizes = [settings.size] if settings.size else list(sizes)
    seen = sum(_seen(size, network, settings.tile) for size in sizes)
    return -(-images * seen // len(sizes))


def _seen(size: tuple[int, int], network: NetworkSettings, tile: int) -> int:
    """Pixels that pass through the network for one image of this (height, width)."""
    grid = network.output_stride
    sides = scaled_size(size, network.input_scale)
    return math.prod(
        sum(end - start for start, end, _, _ in spans(side, tile, grid, grid)) for side in sides
    )


def steps_of(work: int, settings: Optimization, labeled: int) -> int:
    """The fewest steps of supervised training that are at least this much work.

    labeled: number of images that it learns from.
    """
    crops = -(-work // ((1 + BACKWARD) * math.prod(settings.crop)))
    return steps_until(crops, labeled, settings.batch, not settings.short_batches)
