"""Objectives by name: `objectives/<name>.py` has a class `Objective`; see `settings/choices.py`."""

from importlib import import_module

import torch

from ...models.interleaving import interleave
from ...models.segmentation import SegmentationModel
from ...runtime import devices
from ...settings.stages import TrainStage
from .. import optimization
from ..objective import Objective
from ..ranks import ALONE, Ranks
from ..samples import Data


def make(
    model: SegmentationModel,
    data: Data,
    stage: TrainStage,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Objective:
    """The objective that `stage` chooses, of a model that is put on its device first, in place."""
    place(model, stage, device, ranks)
    module = import_module(f"{__name__}.{stage.objective.name}")
    return module.Objective(model, data, stage)


def place(
    model: SegmentationModel, stage: TrainStage, device: torch.device, ranks: Ranks = ALONE
) -> None:
    """Put a model's network where and how it trains, in place; its state stays the same."""
    network = model.network.to(device).to(memory_format=devices.memory_format(stage))
    if device.type == "cpu":
        # Where a dilated depthwise convolution takes far longer than a plain one.
        interleave(network)
    if stage.sync_norm and ranks.size > 1:
        optimization.synchronise_norm(network)
