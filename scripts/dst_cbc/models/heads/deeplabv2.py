"""DeepLabV2: the sum of dilated 3x3 convolutions of the last feature map (section 4.2)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ...settings.choices import DeepLabV2
from . import FeatureMap


class Head(nn.ModuleList):
    """One branch, a convolution of the last feature map, for each dilation rate."""

    def __init__(self, maps: Sequence[FeatureMap], classes: int, options: DeepLabV2):
        (last,) = maps
        branches: list[Any] = [
            nn.Conv2d(last.channels, classes, 3, padding=rate, dilation=rate)
            for rate in options.rates
        ]
        super().__init__(branches)
        self.stride = last.stride
        if options.init == "torch":
            return
        for branch in branches:
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.bias)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        (last,) = features
        logits: Any = sum(branch(last) for branch in self)
        return logits
