"""Heads: from a backbone's features to logits. The contract, and the choice by name.

A head is the class `Head` of the module of its name here; its settings are a class of
`settings/choices.py`. `Head(levels, classes, options)` makes the module: features of these levels,
a list of float (N, channels, h, w), to logits (N, classes, h, w), one every `stride` pixels of the
image, an attribute. It gets the last level of the backbone, unless a static method
`Head.levels(available, options)` says otherwise: places among the available levels, finest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from torch import nn

from ..settings.choices import Head as HeadSettings


@dataclass(frozen=True)
class Level:
    """Features of one stage of a backbone. stride: pixels of the image from one to the next."""

    channels: int
    stride: int


def head_class(options: HeadSettings) -> type[nn.Module]:
    """The class of the head that these settings choose."""
    return import_module(f"{__name__}.{options.name}").Head
