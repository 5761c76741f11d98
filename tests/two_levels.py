"""A head that is no part of the library: logits of a fine level and the last one, summed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from dst_cbc.heads import Level

SETTINGS = '''
class TwoLevels(Settings):
    """The sum of 1x1 convolutions of a fine level and the last."""

    name: Literal["two_levels"] = "two_levels"
    fine: int = Field(0, ge=0, description="place of the fine level, from the input on")


HEADS = (DeepLabV2, TwoLevels)
'''
"""What choices.py gets."""


class Head(nn.Module):
    """Logits at the stride of the fine level."""

    @staticmethod
    def levels(available: Sequence[Level], options) -> Sequence[int]:
        return [options.fine, len(available) - 1]

    def __init__(self, levels: Sequence[Level], classes: int, options):
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(level.channels, classes, 1) for level in levels)
        self.stride = levels[0].stride

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        fine, last = (branch(one) for branch, one in zip(self.branches, features, strict=True))
        return fine + F.interpolate(last, fine.shape[-2:], mode="bilinear", align_corners=False)
