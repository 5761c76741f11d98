"""Faster training of dilated depthwise blocks: undilated convolutions of interleaved images.

On a CPU, PyTorch takes two (5x5) to eight times (3x3) as long for a dilated depthwise convolution
as for an undilated one on as many pixels, mostly in the backward pass. But a convolution of
dilation d only combines pixels whose distance is a multiple of d. It equals an undilated
convolution of d x d smaller images, each of every d-th row and column:
(N, C, H, W) -> (N d d, C, H/d, W/d). Pointwise layers do not depend on the position of a pixel,
and batch normalisation sees the same values. So only the order of summation differs, and only in
training.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any, TypeGuard

import torch
from torch import nn

from .segmentation import Network

BLOCKS = {"DepthwiseSeparableConv", "InvertedResidual"}
"""timm's blocks that only run their layers in order and add their input."""

POINTWISE = (
    nn.modules.batchnorm._BatchNorm, nn.Identity, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish,
)  # fmt: skip


def interleave(network: Network) -> None:
    """Make the dilated depthwise blocks of the backbone run on interleaved images in training.

    This is done by hooks, which change neither parameters, nor state, nor evaluation; a second call
    changes nothing. Features whose height or width is no multiple of the dilation are not
    interleaved.
    """
    for dilation, group in groupby(_blocks(network.backbone), _dilation):
        blocks: list[Any] = list(group)
        if dilation > 1 and not hasattr(blocks[0], "interleaved"):
            blocks[0].interleaved = run = _Run(network, blocks, dilation)
            blocks[0].register_forward_pre_hook(run.enter)
            blocks[-1].register_forward_hook(run.leave)


class _Run:
    """Consecutive blocks of one dilation; splits images before them and joins the output."""

    def __init__(self, network: nn.Module, blocks: list[nn.Module], dilation: int):
        self.network, self.dilation, self.apart = network, dilation, False
        parts = (part for block in blocks for part in block.modules())
        self.convolutions = [part for part in parts if _is_dilated(part, dilation)]

    def enter(self, _block: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (images,) = inputs
        divides = not any(side % self.dilation for side in images.shape[2:])
        # The mode of the network, not of the block: a frozen block is in evaluation mode.
        self._set(self.network.training and divides)
        return (take_apart(images, self.dilation) if self.apart else images,)

    def leave(self, _block: nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        if not self.apart:
            return output
        self._set(False)
        return put_together(output, self.dilation)

    def _set(self, apart: bool) -> None:
        # Set at every call, because `leave` does not run after an exception.
        self.apart, dilation = apart, 1 if apart else self.dilation
        for part in self.convolutions:
            part.dilation = (dilation, dilation)
            part.padding = tuple(dilation * (size // 2) for size in part.kernel_size)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules inside nested nn.Sequential, in the order in which they run."""
    for child in module.children():
        yield from _blocks(child) if isinstance(child, nn.Sequential) else [child]


def _dilation(block: nn.Module) -> int:
    """The dilation of a block of only depthwise and pointwise layers; 1 for any other block."""
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
    """Whether `part` is a depthwise convolution of this dilation that keeps the size."""
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
    """Split images into smaller ones that hold every step-th row and column.

    (N, C, H, W) -> (N step step, C, H/step, W/step). Images and gradients keep the memory format.
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
    """The images with their axes in memory order, and the index of the axis of rows."""
    last = images.is_contiguous(memory_format=torch.channels_last)
    return (images.movedim(1, 3), 1) if last else (images, 2)


def _channels_at_one(images: torch.Tensor, row: int) -> torch.Tensor:
    return images.movedim(3, 1) if row == 1 else images
