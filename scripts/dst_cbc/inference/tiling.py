"""Logits of whole images of any size; large images pass the network in overlapping tiles."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..models.segmentation import SegmentationModel, low_logits, resize, upsample
from ..models.sizes import spans
from ..runtime.errors import Unusable


@dataclass(frozen=True)
class View:
    """A variant of an image for one pass: resized by `scale`; `flip`: mirrored left to right."""

    scale: float = 1
    flip: bool = False


AS_IT_IS = View()


def full_logits(
    model: SegmentationModel,
    images: torch.Tensor,
    tile: int,
    precision: str = "float32",
    views: Sequence[View] = (AS_IT_IS,),
    size: Sequence[int] | None = None,
) -> Iterator[torch.Tensor]:
    """Yield the logits of images, in stripes of rows from top to bottom.

    images: uint8 or float32 (N, 3, H, W) in 0..255 on the network's device. tile: longest side, in
    pixels that the network sees, that passes the network in one piece. views: for several views,
    the result is the logarithm of their mean probabilities, which can be used as logits. size:
    (H, W) of the logits; None: that of the images. Yields float32 (N, classes, rows, W), upsampled
    bilinearly with align_corners=True; logits of up to tile x tile pixels are one stripe. Raises
    Unusable if the output is not finite.
    """
    height, width = size or images.shape[-2:]
    lows = [_seen(model, images, view, tile, precision) for view in views]
    rows = height if height * width <= tile * tile else max(1, tile * tile // width)
    for start in range(0, height, rows):
        end = min(start + rows, height)
        stripes = (_upsample_rows(low, (height, width), start, end) for low in lows)
        yield next(stripes) if len(lows) == 1 else _log_mean(stripes, len(lows))


def _seen(model: SegmentationModel, images: torch.Tensor, view: View, tile: int, precision: str):
    """Logits of one view at the network's resolution, mirrored back if the view is mirrored."""
    images = resize(model, images.flip(-1) if view.flip else images, view.scale)
    low = _low_logits(model, images, tile, precision)
    if not torch.isfinite(low).all():
        raise Unusable("the network's output is not finite; its weights are unusable")
    # Contiguous in memory, class by class: later steps then take half of the time, whatever memory
    # format the network has.
    return (low.flip(-1) if view.flip else low).contiguous()


def _log_mean(logits: Iterator[torch.Tensor], count: int) -> torch.Tensor:
    """Logarithm of the mean probabilities; adds one view at a time, because stripes are large."""
    total = next(logits).log_softmax(1)
    for one in logits:
        total = torch.logaddexp(total, one.log_softmax(1))
    return total - math.log(count)


def _low_logits(
    model: SegmentationModel, images: torch.Tensor, tile: int, precision: str
) -> torch.Tensor:
    """The network's output, stitched together from tiles if the images are larger than a tile.

    Away from the images' borders, the result equals a single pass if the network's receptive field
    does not reach beyond the margin of a tile, an eighth of the tile.
    """
    stride, grid = model.network.stride, model.network.grid
    sides = [list(spans(length, tile, stride, grid)) for length in images.shape[-2:]]
    if all(len(along) == 1 for along in sides):
        return low_logits(model, images, precision)
    rows = []
    for top, bottom, first, last in sides[0]:
        row = [
            low_logits(model, images[..., top:bottom, left:right], precision)[
                ..., first:last, begin:end
            ]
            for left, right, begin, end in sides[1]
        ]
        rows.append(torch.cat(row, -1))
    return torch.cat(rows, -2)


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
