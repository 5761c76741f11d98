"""Heads: from a backbone's features to logits. The contract, and the choice by name.

A head is the class `Head` of the module of its name here; its settings are a class of
`settings/choices.py`. `Head(maps, classes, options)` makes the module: features of these maps,
a list of float (N, channels, h, w), to logits (N, classes, h, w), one every `stride` pixels of the
image, an attribute. It gets the last map of the backbone, unless a static method
`Head.choose(available, options)` says otherwise: places among the available maps, finest first.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ...settings.choices import Head as HeadSettings


@dataclass(frozen=True)
class FeatureMap:
    """Features that a backbone makes. stride: pixels of the image from one to the next."""

    channels: int
    stride: int


def head_class(options: HeadSettings) -> Any:
    """The class of the head that these settings choose."""
    return import_module(f"{__name__}.{options.name}").Head
