"""Logits of whole images of any size; large ones pass through the network in overlapping tiles."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..models.segmentation import SegmentationModel, low_logits, resize, upsample
from ..runtime.files import Unusable


@dataclass(frozen=True)
class View:
    """How the network sees an image once: resized by `scale`, mirrored left to right or not."""

    scale: float = 1
    flip: bool = False


AS_IT_IS = View()


def full_logits(
    model: SegmentationModel,
    images: torch.Tensor,
    tile: int,
    precision: str = "float32",
    views: Sequence[View] = (AS_IT_IS,),
) -> Iterator[torch.Tensor]:
    """Images as stored to logits at their own size, a stripe of rows after the other.

    images: uint8 (N, 3, H, W) on the network's device. tile: longest side, in the network's
    pixels, that goes through the network in one piece. views: of several, the logarithm of their
    mean probabilities, which are logits, too. Yields float32 (N, classes, rows, W),
    bilinear with align_corners=True from the network's resolution; an image of up to tile x tile
    pixels is one stripe. Raises Unusable when the output is not finite.
    """
    height, width = images.shape[-2:]
    lows = [_seen(model, images, view, tile, precision) for view in views]
    rows = height if height * width <= tile * tile else max(1, tile * tile // width)
    for start in range(0, height, rows):
        end = min(start + rows, height)
        stripes = (_upsample_rows(low, (height, width), start, end) for low in lows)
        yield next(stripes) if len(lows) == 1 else _log_mean(stripes, len(lows))


def _seen(model: SegmentationModel, images: torch.Tensor, view: View, tile: int, precision: str):
    """Logits at the network's resolution, the right way round."""
    images = resize(model, images.flip(-1) if view.flip else images, view.scale)
    low = _low_logits(model, images, tile, precision)
    if not torch.isfinite(low).all():
        raise Unusable("the network's output is not finite; its weights are unusable")
    # Class by class, whatever the network's layout: what reads the logits takes half of the time.
    return (low.flip(-1) if view.flip else low).contiguous()


def _log_mean(logits: Iterator[torch.Tensor], count: int) -> torch.Tensor:
    """log of the mean probabilities, one after the other: stripes are large."""
    total = next(logits).log_softmax(1)
    for one in logits:
        total = torch.logaddexp(total, one.log_softmax(1))
    return total - math.log(count)


def _low_logits(
    model: SegmentationModel, images: torch.Tensor, tile: int, precision: str
) -> torch.Tensor:
    """The network's output, stitched from tiles where the images are larger than one.

    Away from the images' borders it is that of a single pass, as far as the network sees no
    farther than a tile's margin, an eighth of the tile.
    """
    stride, grid = model.network.stride, model.network.grid
    spans = [list(_spans(length, tile, stride, grid)) for length in images.shape[-2:]]
    if all(len(along) == 1 for along in spans):
        return low_logits(model, images, precision)
    rows = []
    for top, bottom, first, last in spans[0]:
        row = [
            low_logits(model, images[..., top:bottom, left:right], precision)[
                ..., first:last, begin:end
            ]
            for left, right, begin, end in spans[1]
        ]
        rows.append(torch.cat(row, -1))
    return torch.cat(rows, -2)


def _spans(
    length: int, tile: int, stride: int, grid: int
) -> Iterator[tuple[int, int, int | None, int | None]]:
    """Tiles along one side: first pixel, end, and the slice of each one's logits to keep.

    All start on the network's grid and are, modulo the grid, as long as the side: padding that
    depends on a size's remainder (TensorFlow's SAME) then falls alike in the tiles and in the
    whole.
    """
    if length <= tile:
        yield 0, length, None, None
        return
    margin, each = max(1, tile // 8 // grid), grid // stride
    size = max(2 * margin + 1, tile // grid) * grid + length % grid
    step = size // grid - 2 * margin
    start = 0
    while start * grid + size < length:
        first = each * margin if start else 0
        yield start * grid, start * grid + size, first, each * (margin + step)
        start += step
    yield start * grid, length, each * margin if start else 0, None


def _upsample_rows(
    logits: torch.Tensor, size: tuple[int, int], start: int, end: int
) -> torch.Tensor:
    """Rows start .. end - 1 of `upsample(logits, size)`."""
    if (start, end) == (0, size[0]):
        return upsample(logits, size)
    height, width = size
    places = torch.arange(start, end, device=logits.device, dtype=torch.float32)
    places *= (logits.shape[-2] - 1) / max(1, height - 1)
    above = places.floor().long().clamp(max=logits.shape[-2] - 1)
    below = (above + 1).clamp(max=logits.shape[-2] - 1)
    share = (places - above)[:, None]
    rows = logits[..., above, :] * (1 - share) + logits[..., below, :] * share
    return F.interpolate(rows, (end - start, width), mode="bilinear", align_corners=True)
