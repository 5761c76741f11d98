"""What learns, and how fast: frozen layers, learning rates, the weights of classes in the loss."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from .files import DataError
from .models import DeepLabV2
from .settings import IGNORED, Optimization, TrainStage


def optimizer(network: DeepLabV2, stage: Optimization) -> torch.optim.SGD:
    """SGD over what is not frozen: the backbone's parameters, then the head's; see `set_rate`.

    Freezes what `stage` says. Raises DataError when the backbone has fewer stages than that.
    """
    for module in _frozen(network, stage):
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
    groups = [
        {"params": [p for p in part.parameters() if p.requires_grad], "factor": factor}
        for part, factor in ((network.backbone, stage.backbone_rate), (network.head, 1.0))
    ]
    return torch.optim.SGD(groups, 1.0, momentum=stage.momentum, weight_decay=stage.weight_decay)


def synchronise_norm(network: DeepLabV2) -> None:
    """Let batch normalisation count over all processes; parameters and state stay the same."""
    # timm's own: torch's would drop the activation that timm's layers contain. Imported here: it
    # is half of a stage's start-up.
    from timm.layers import convert_sync_batchnorm

    convert_sync_batchnorm(network)


def training_mode(network: DeepLabV2, stage: Optimization) -> None:
    """Training mode, but for what is frozen: its running statistics stay as they are."""
    network.train()
    for module in _frozen(network, stage):
        module.training = False


def _frozen(network: DeepLabV2, stage: Optimization) -> list[nn.Module]:
    frozen = []
    if stage.freeze_stages > len(network.stages):
        raise DataError(
            f"train.freeze_stages: found {stage.freeze_stages}, but the backbone has "
            f"{len(network.stages)} stages: {', '.join(network.stages)}"
        )
    if stage.freeze_stages:
        frozen += _modules_until(network.backbone, network.stages[stage.freeze_stages - 1])
    if stage.freeze_norm:
        norms = nn.modules.batchnorm._BatchNorm
        frozen += [module for module in network.modules() if isinstance(module, norms)]
    return frozen


def _modules_until(backbone: nn.Module, end: str) -> Iterable[nn.Module]:
    """Modules from the input up to and with all of `end`, in the order of their registration."""
    reached = False
    for name, module in backbone.named_modules():
        inside = name == end or name.startswith(f"{end}.")
        if reached and not inside:
            return
        reached = reached or inside
        yield module


def learning_rate(stage: TrainStage, step: int) -> float:
    """Poly schedule, learning_rate (1 - step/steps)^power for steps 0 .. steps - 1.

    Over the first `warmup` steps it rises along a straight line: times (step + 1) / warmup.
    """
    rise = min(1.0, (step + 1) / stage.warmup) if stage.warmup else 1.0
    return rise * stage.learning_rate * (1 - step / stage.steps) ** stage.power


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The head learns at `rate`, the backbone at `backbone_rate` times that."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def class_weights(
    stage: Optimization, classes: list[str], labels: Iterable[np.ndarray]
) -> torch.Tensor | None:
    """Weight of each class in the labeled loss, float32 (classes,); None: all 1.

    labels: the labeled masks, uint8 (H, W) of class numbers or 255. `balanced` is
    pixels / (present classes x pixels of the class), counted over all of them: every class that
    occurs weighs the same in all, and the mean over the pixels is 1. A class that never occurs
    gets 1.
    """
    if stage.class_weights == "none":
        return None
    if stage.class_weights == "balanced":
        counts = sum(np.bincount(label.ravel(), minlength=256) for label in labels)[:IGNORED]
        counts = counts[: len(classes)]
        weights = counts.sum() / np.maximum(np.count_nonzero(counts) * counts, 1)
        weights = np.where(counts, weights, 1.0)
    else:
        weights = np.array([stage.class_weights.get(name, 1.0) for name in classes])
    return torch.from_numpy(weights.astype(np.float32))
