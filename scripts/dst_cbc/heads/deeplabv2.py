"""DeepLabV2: a sum of dilated 3x3 convolutions of the last features (paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..settings.choices import DeepLabV2
from . import Level


class Head(nn.ModuleList):
    """One branch a rate, on the last level."""

    def __init__(self, levels: Sequence[Level], classes: int, options: DeepLabV2):
        (last,) = levels
        super().__init__(
            nn.Conv2d(last.channels, classes, 3, padding=rate, dilation=rate)
            for rate in options.rates
        )
        self.stride = last.stride
        for branch in self:
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.bias)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        (last,) = features
        return sum(branch(last) for branch in self)
