"""The winning class of every pixel, computed in stripes that stay in cache."""

from collections.abc import Callable

import torch

_STRIPE = 1 << 21  # logits, of 4 bytes


def in_stripes(
    function: Callable[[torch.Tensor], tuple[torch.Tensor, ...]], logits: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """What `function` makes of stripes (C, rows, W), tensors (rows, W) each, as tensors (N, H, W).

    What a stripe needs on the way stays in cache, and its memory is used again by the next one; of
    large pieces the system clears it each time.
    """
    images, classes, height, width = logits.shape
    rows = max(1, _STRIPE // (classes * width))
    stripes = (stripe for image in logits for stripe in image.split(rows, 1))
    parts = zip(*map(function, stripes), strict=True)
    return tuple(torch.cat(part).view(images, height, width) for part in parts)


def first_zero(values: torch.Tensor) -> torch.Tensor:
    """Where along (C, H, W), C <= 255, the first 0 is, uint8 (1, H, W); a tenth of max's time."""
    places = torch.arange(len(values), dtype=torch.uint8, device=values.device).view(-1, 1, 1)
    # All bits where there is none, so that the least is the first.
    return (255 * values.bool().view(torch.uint8)).bitwise_or_(places).amin(0, keepdim=True)


def winners(logits: torch.Tensor) -> torch.Tensor:
    """The class of the highest logit, the first of equal ones; in a third of the time of max.

    logits: finite (N, C, H, W), C <= 255. Returns uint8 (N, H, W).
    """
    (found,) = in_stripes(_winner, logits)
    return found


def _winner(logits: torch.Tensor) -> tuple[torch.Tensor]:
    """The same of a stripe, (C, rows, W)."""
    return (first_zero(logits - logits.amax(0, keepdim=True)).squeeze(0),)
