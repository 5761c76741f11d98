"""Optimizer, frozen layers, learning rates, averaged weights, and class weights of the loss."""

from collections.abc import Iterable
from inspect import unwrap
from typing import Any

import numpy as np
import torch
from torch import nn

from ..models.segmentation import Network
from ..runtime.errors import DataError
from ..settings.data import IGNORED
from ..settings.stages import TrainStage
from ..settings.training import Optimization


class SGD(torch.optim.SGD):
    """torch's SGD without its decorators, which import torch.compile: half of a start-up's time."""

    add_param_group = unwrap(torch.optim.SGD.add_param_group)
    zero_grad = unwrap(torch.optim.SGD.zero_grad)
    state_dict = unwrap(torch.optim.SGD.state_dict)
    load_state_dict = unwrap(torch.optim.SGD.load_state_dict)
    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


def optimizer(network: Network, stage: Optimization) -> SGD:
    """Freeze the layers that `stage` names, and return SGD over all other parameters.

    The first parameter group is the backbone, the second the head; see `set_rate`. Raises DataError
    when the backbone has fewer stages than `freeze_stages`.
    """
    frozen = frozen_modules(network, stage) + (norms(network) if stage.freeze_norm else [])
    for module in frozen:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
    groups = [
        {"params": [p for p in part.parameters() if p.requires_grad], "factor": factor}
        for part, factor in ((network.backbone, stage.backbone_rate), (network.head, 1.0))
    ]
    return SGD(groups, 1.0, momentum=stage.momentum, weight_decay=stage.weight_decay)


def synchronise_norm(network: Network) -> None:
    """Compute batch statistics over all processes; parameters and state dict stay the same."""
    # torch's own conversion would drop the activation that timm's layers contain. Imported late
    # because this import takes half of a stage's start-up time.
    from timm.layers.norm_act import convert_sync_batchnorm

    convert_sync_batchnorm(network)


def norms(module: nn.Module) -> list[nn.Module]:
    """All batch normalisation layers in a module."""
    return [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]


def frozen_modules(network: Network, stage: Optimization) -> list[nn.Module]:
    """The modules of the backbone that `freeze_stages` freezes.

    Raises DataError when the backbone has fewer stages.
    """
    if stage.freeze_stages > len(network.ends):
        raise DataError(
            f"train.freeze_stages: found {stage.freeze_stages}, but the backbone has "
            f"{len(network.ends)} stages: {', '.join(network.ends)}; lower it"
        )
    if not stage.freeze_stages:
        return []
    return list(_modules_until(network.backbone, network.ends[stage.freeze_stages - 1]))


def _modules_until(backbone: nn.Module, end: str) -> Iterable[nn.Module]:
    """Yield the modules from the input through `end`, inclusive, in the order of registration."""
    reached = False
    for name, module in backbone.named_modules():
        inside = name == end or name.startswith(f"{end}.")
        if reached and not inside:
            return
        reached = reached or inside
        yield module


def learning_rate(stage: TrainStage, step: int) -> float:
    """Poly schedule: learning_rate * (1 - step/steps)^power for steps 0 .. steps - 1.

    In the first `warmup` steps, the rate is multiplied by (step + 1) / warmup.
    """
    rise = min(1.0, (step + 1) / stage.warmup) if stage.warmup else 1.0
    return rise * stage.learning_rate * (1 - step / stage.steps) ** stage.power


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of each parameter group to `rate` times the group's `factor` (or 1)."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


@torch.no_grad()
def average(teacher: nn.Module, student: nn.Module, keep: float) -> None:
    """Update `teacher` in place: keep * teacher + (1 - keep) * student.

    Both modules have the same structure. Floating-point parameters and buffers are averaged;
    integer buffers, which are counts, are copied.
    """
    ours, theirs = teacher.state_dict(), student.state_dict()
    for name, value in ours.items():
        if value.is_floating_point():
            value.lerp_(theirs[name], 1 - keep)
        else:
            value.copy_(theirs[name])


def class_weights(
    stage: Optimization, classes: list[str], labels: Iterable[np.ndarray]
) -> torch.Tensor | None:
    """Weight of each class in the labeled loss, float32 (classes,); None means that all are 1.

    labels: the labeled masks, uint8 (H, W) of class numbers or 255 (ignored). `balanced` is
    pixels / (present classes x pixels of the class), counted over all masks. Every class that
    occurs then has the same total weight, and the mean weight of a pixel is 1. A class that never
    occurs gets 1.
    """
    if stage.class_weights == "none":
        return None
    if stage.class_weights == "balanced":
        counts: Any = sum(np.bincount(label.ravel(), minlength=256) for label in labels)
        counts = counts[:IGNORED][: len(classes)]
        weights = counts.sum() / np.maximum(np.count_nonzero(counts) * counts, 1)
        weights = np.where(counts, weights, 1.0)
    else:
        weights = np.array([stage.class_weights.get(name, 1.0) for name in classes])
    return torch.from_numpy(weights.astype(np.float32))
