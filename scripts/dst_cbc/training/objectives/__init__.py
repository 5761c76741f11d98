"""Objectives by name: `objectives/<name>.py` defines `Objective`; see `settings/choices.py`."""

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
    """Move `model` to `device` in place, and return the objective that `stage` chooses for it."""
    place(model, stage, device, ranks)
    module = import_module(f"{__name__}.{stage.objective.name}")
    return module.Objective(model, data, stage)


def place(
    model: SegmentationModel, stage: TrainStage, device: torch.device, ranks: Ranks = ALONE
) -> None:
    """Prepare the network for training in place: device, memory format, synchronised batch norm.

    The state dict keeps its keys and values.
    """
    network = model.network.to(device).to(memory_format=devices.memory_format(stage))
    if device.type == "cpu":
        # On a CPU, a dilated depthwise convolution is far slower than a plain one.
        interleave(network)
    if stage.sync_norm and ranks.size > 1:
        optimization.synchronise_norm(network)
