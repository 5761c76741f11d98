"""The dynamic loss of the paper, equations (1) and (2)."""

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from ..settings.data import IGNORED


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy of every pixel, (N, H, W); ignored pixels get 0 and no gradient.

    torch's cross-entropy keeps the log-probabilities and allocates a gradient of the same size.
    Here the gradient overwrites the log-probabilities, so a second backward pass raises
    RuntimeError.
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
    """Cross-entropy, weighted by the current confidence on the pseudo-labeled images.

    (sum of CE over labeled pixels + sum of w CE over pseudo-labeled pixels) / number of pixels of
    both kinds that are not ignored; w = p(pseudo label)^gamma (equation 2). No gradient flows
    through w. Equation (1) prints the cross-entropy without its minus sign.

    logits: float (N, C, H, W); labels: int64 (N, H, W) in 0..C-1 or 255 (ignored); the last
    `pseudo` of the N images are pseudo-labeled. class_weights: float (C,), factors of the CE of
    labeled pixels, not in the paper. confidence: float (pseudo, H, W) in 0..1, replaces p in w;
    the confidence of the model that made the pseudo labels ("OW", Table 5a). valid: int64 scalar,
    the divisor if these images are only a process's share of the batch: the number of pixels of
    the whole batch that are not ignored. Returns a scalar, float32 unless the logits are float64;
    0 if every pixel is ignored.
    """
    # At least float32: half precision is converted, float64 is kept.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    valid = (valid_pixels(labels) if valid is None else valid).clamp(min=1)
    plain = not (pseudo and gamma) and class_weights is None
    # On CUDA, torch's cross-entropy raises where deterministic algorithms are required.
    if plain and not torch.are_deterministic_algorithms_enabled():
        # torch's sum equals plain cross-entropy to the last bit.
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
    """Return how many labels are not ignored. labels: int64 (N, H, W); returns an int64 scalar."""
    return (labels != IGNORED).sum()


def online_labels(logits: torch.Tensor, labels: torch.Tensor, threshold: float) -> torch.Tensor:
    """Label by the model in training ("OST", Table 5b): its likeliest class where p > threshold.

    logits: float (N, C, H, W), no gradient flows through them; labels: int64 (N, H, W), 255
    outside the image. Returns int64 (N, H, W), 255 where a pixel gets no label.
    """
    confidence, winner = logits.detach().float().softmax(1).max(1)
    unsure = (confidence <= threshold) | (labels == IGNORED)
    return winner.masked_fill(unsure, IGNORED)
