"""Heads compute logits from a backbone's features: their interface, and their choice by name.

A head is a class `Head`, in the module of this package that has the name of the head. Its settings
are a class in `settings/choices.py`. `Head(maps, classes, options)` builds an nn.Module. It takes
a list of features, float (N, channels, h, w), one for each of `maps`, and returns logits
(N, classes, h, w). Its attribute `stride` is the distance of two logits in image pixels. A head
gets only the last feature map of the backbone, unless it has a static method
`Head.choose(available, options)`, which returns the indexes of the maps that it needs, ascending;
`available` lists all maps, finest first.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ...settings.choices import Head as HeadSettings


@dataclass(frozen=True)
class FeatureMap:
    """A feature map of a backbone. stride: image pixels from one feature to the next."""

    channels: int
    stride: int


def head_class(options: HeadSettings) -> Any:
    """Return the class `Head` that these settings choose."""
    return import_module(f"{__name__}.{options.name}").Head
