"""Dilated depthwise blocks, trained as convolutions of neighbours on interleaved images.

On a CPU, PyTorch takes two (5x5) to eight times (3x3) as long for a dilated depthwise convolution
as for a plain one on as many pixels, most of it backwards. But a convolution of dilation d only
ever combines pixels that lie d apart: it is a plain one on the d x d images of every d-th row and
column, (N, C, H, W) -> (N d d, C, H/d, W/d). Pointwise layers do not care where a pixel lies, and
batch normalisation counts the same values. So only the order of summation differs, and that in
training alone.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any, TypeGuard

import torch
from torch import nn

from .segmentation import Network

BLOCKS = {"DepthwiseSeparableConv", "InvertedResidual"}
"""timm's blocks that do nothing but run their layers and add their input."""

POINTWISE = (
    nn.modules.batchnorm._BatchNorm, nn.Identity, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish,
)  # fmt: skip


def interleave(network: Network) -> None:
    """Let dilated depthwise blocks of the backbone run on interleaved images while it trains.

    Hooks do it, and leave parameters, state and evaluation as they are; a second call changes
    nothing. Sizes that the dilation does not divide take the plain path, as in evaluation.
    """
    for dilation, group in groupby(_blocks(network.backbone), _dilation):
        blocks: list[Any] = list(group)
        if dilation > 1 and not hasattr(blocks[0], "interleaved"):
            blocks[0].interleaved = run = _Run(network, blocks, dilation)
            blocks[0].register_forward_pre_hook(run.enter)
            blocks[-1].register_forward_hook(run.leave)


class _Run:
    """Consecutive blocks of one dilation: images are taken apart before, put together after."""

    def __init__(self, network: nn.Module, blocks: list[nn.Module], dilation: int):
        self.network, self.dilation, self.apart = network, dilation, False
        parts = (part for block in blocks for part in block.modules())
        self.convolutions = [part for part in parts if _is_dilated(part, dilation)]

    def enter(self, _block: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (images,) = inputs
        divides = not any(side % self.dilation for side in images.shape[2:])
        # Not the block's own mode: a frozen block is in that of evaluation.
        self._set(self.network.training and divides)
        return (take_apart(images, self.dilation) if self.apart else images,)

    def leave(self, _block: nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        if not self.apart:
            return output
        self._set(False)
        return put_together(output, self.dilation)

    def _set(self, apart: bool) -> None:
        # Every time anew: an exception may have kept `leave` from its work.
        self.apart, dilation = apart, 1 if apart else self.dilation
        for part in self.convolutions:
            part.dilation = (dilation, dilation)
            part.padding = tuple(dilation * (size // 2) for size in part.kernel_size)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The modules of nested sequences, in the order in which they run."""
    for child in module.children():
        yield from _blocks(child) if isinstance(child, nn.Sequential) else [child]


def _dilation(block: nn.Module) -> int:
    """The one dilation of a block of depthwise and pointwise layers; 1: it is another block."""
    layers = [part for part in block.modules() if part is not block and not _is_pointwise(part)]
    if type(block).__name__ not in BLOCKS or not layers:
        return 1
    dilation = getattr(layers[0], "dilation", (1,))[0]
    return dilation if all(_is_dilated(layer, dilation) for layer in layers) else 1


def _is_pointwise(part: nn.Module) -> bool:
    if type(part) is nn.Conv2d:
        return part.kernel_size == part.stride == (1, 1) and part.padding == (0, 0)
    return isinstance(part, POINTWISE)


def _is_dilated(part: nn.Module, dilation: int) -> TypeGuard[nn.Conv2d]:
    """Whether it is a depthwise convolution of this dilation that keeps the size."""
    return (
        type(part) is nn.Conv2d
        and part.kernel_size != (1, 1)
        and part.groups == part.in_channels == part.out_channels
        and part.stride == (1, 1)
        and part.dilation == (dilation, dilation)
        and part.padding == tuple(dilation * (size // 2) for size in part.kernel_size)
        and part.padding_mode == "zeros"
    )


def take_apart(images: torch.Tensor, step: int) -> torch.Tensor:
    """(N, C, H, W) -> (N step step, C, H/step, W/step): every step-th row and column.

    The memory format stays, and so it does backwards.
    """
    images, row = _rows_at(images)
    grid = images.unflatten(row + 1, (-1, step)).unflatten(row, (-1, step))
    return _channels_at_one(grid.movedim((row + 1, row + 3), (1, 2)).flatten(0, 2), row)


def put_together(images: torch.Tensor, step: int) -> torch.Tensor:
    """The inverse of `take_apart`: (N step step, C, H, W) -> (N, C, step H, step W)."""
    images, row = _rows_at(images)
    grid = images.unflatten(0, (-1, step, step)).movedim((1, 2), (row + 1, row + 3))
    return _channels_at_one(grid.flatten(row + 2, row + 3).flatten(row, row + 1), row)


def _rows_at(images: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The images with their axes in the order of memory, and which of them is that of rows."""
    last = images.is_contiguous(memory_format=torch.channels_last)
    return (images.movedim(1, 3), 1) if last else (images, 2)


def _channels_at_one(images: torch.Tensor, row: int) -> torch.Tensor:
    return images.movedim(3, 1) if row == 1 else images
