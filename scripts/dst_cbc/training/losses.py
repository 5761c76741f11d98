"""The dynamic loss of the paper, equations (1) and (2)."""

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from ..settings.data import IGNORED


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy of every pixel, (N, H, W); 0 and without a gradient where ignored.

    torch's keeps log-probabilities and makes a gradient of their size beside them; here they
    become it. Of one forward pass there is one backward pass; torch raises RuntimeError at another.
    """

    @staticmethod
    def forward(ctx, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        ignored = labels == IGNORED
        target = labels.masked_fill(ignored, 0).unsqueeze(1)
        log_p = logits.log_softmax(1)
        ctx.save_for_backward(log_p, target, ignored)
        return -log_p.gather(1, target).squeeze(1).masked_fill_(ignored, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx, weights: torch.Tensor) -> tuple[torch.Tensor, None]:
        log_p, target, ignored = ctx.saved_tensors
        weights = weights.masked_fill(ignored, 0).unsqueeze(1)
        return log_p.exp_().mul_(weights).scatter_add_(1, target, -weights), None


def dynamic_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    pseudo: int,
    gamma: float,
    class_weights: torch.Tensor | None = None,
    confidence: torch.Tensor | None = None,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy, weighted on the pseudo-labeled images by the current confidence.

    sum over labeled pixels of CE + sum over pseudo-labeled pixels of w CE, divided by the number
    of pixels of both kinds that are not ignored; w = p(pseudo label)^gamma (equation 2), no
    gradient through w. Equation (1) prints the cross-entropy without its minus sign.

    logits: float (N, C, H, W); labels: int64 (N, H, W) in 0..C-1 or 255; the last `pseudo` of
    the N images are pseudo-labeled. class_weights: float (C,), times the labeled pixels' CE, no
    part of the paper. confidence: float (pseudo, H, W) in 0..1, replaces p in w: of the model that
    labeled ("OW", Table 5a). valid: the number to divide by, where these images are a share of a
    batch: of all of its pixels that are not ignored. Returns a scalar, float32 unless the logits
    are float64; 0 where every pixel is ignored.
    """
    # Float32 at least; float64 stays.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    valid = (valid_pixels(labels) if valid is None else valid).clamp(min=1)
    plain = not (pseudo and gamma) and class_weights is None
    # On CUDA torch's is not among its deterministic algorithms.
    if plain and not torch.are_deterministic_algorithms_enabled():
        # Summed by torch: plain cross-entropy to the last bit.
        return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum") / valid
    loss = _CrossEntropy.apply(logits, labels)
    labeled, self_trained = loss.split((len(loss) - pseudo, pseudo))
    if class_weights is not None:
        # An ignored pixel's loss is 0, whatever its weight.
        labeled = labeled * class_weights[labels[: len(labeled)] % IGNORED]
    if confidence is None:
        # CE = -log p, so p^gamma = exp(-gamma CE): no second softmax.
        weight = torch.exp(-gamma * self_trained.detach())
    else:
        weight = confidence**gamma
    return (labeled.sum() + (weight * self_trained).sum()) / valid


def valid_pixels(labels: torch.Tensor) -> torch.Tensor:
    """How many labels, int64 (N, H, W), are not ignored: int64 scalar."""
    return (labels != IGNORED).sum()


def online_labels(logits: torch.Tensor, labels: torch.Tensor, threshold: float) -> torch.Tensor:
    """Labels by the model in training ("OST", Table 5b): its winner where p > threshold.

    logits: float (N, C, H, W), no gradient flows through; labels: int64 (N, H, W), 255 outside the
    image. Returns int64 (N, H, W), 255 where a pixel stays without a label.
    """
    confidence, winner = logits.detach().float().softmax(1).max(1)
    unsure = (confidence <= threshold) | (labels == IGNORED)
    return winner.masked_fill(unsure, IGNORED)
