"""Confidence in 16 bits: log-odds of the winning class on a scale that never saturates.

The log-odds L = log(p / (1 - p)) of the winning class are its logit minus the logsumexp of the
other logits. They are exact even where the probability itself is 1.0 in float32, so that pixels of
an easy class still have a ranking. They are stored as asinh(L), quantised linearly: steps of
0.00024 around L = 0, relative steps of 0.00024 for large L, for L in -16 .. 131072 (the winner has
p >= 1/C, so L is never lower; larger L are clipped). A linear scale of L would either clip logits
that are a thousand times larger, or have steps that hold too many pixels.

Pixels of one level are kept or ignored together. Where log-odds spread over several units, as
those of a trained network do, a level holds less than 0.0005 of the pixels of a class. Logits that
are nearly equal share few levels, and all log-odds above 131072 share one.
"""

import functools
import math

import numpy as np

from ..runtime.errors import Unusable

BINS = 1 << 16
LOWEST, HIGHEST = -16.0, 131072.0

_START = math.asinh(LOWEST)
_STEP = (math.asinh(HIGHEST) - _START) / (BINS - 1)


def quantise(logits, log_thresholds=None):
    """The winning class of each pixel and its confidence, computed in float32.

    logits: float tensor (N, C, H, W), C >= 2. log_thresholds: float32 (C, 1, 1), finite, on the
    logits' device: the class with the largest ratio of probability to threshold wins; None: the
    most probable one. Returns classes uint8 (N, H, W) and confidence int32 (N, H, W) in 0 .. 65535,
    on the logits' device. Raises Unusable if a logit is not finite.
    """
    logits = logits.float()
    # Checking minimum and maximum takes a twentieth of the time of checking every logit.
    if not all(extreme.isfinite() for extreme in logits.aminmax()):
        raise Unusable("the network's output is not finite; the model is unusable")
    from ..inference.winners import in_stripes

    return in_stripes(functools.partial(_quantise, log_thresholds=log_thresholds), logits)


def _quantise(logits, log_thresholds):
    """`quantise` for one stripe, (C, rows, W)."""
    import torch

    from ..inference.winners import first_zero

    # Differences to the highest logit stay exact where the logits are large.
    behind = logits - logits.amax(0, keepdim=True)
    if log_thresholds is None:
        winner, own = first_zero(behind), 0
    else:
        ratios = behind - log_thresholds
        winner = first_zero(ratios.sub_(ratios.amax(0, keepdim=True)))
        own = behind.gather(0, winner.long())
    behind.scatter_(0, winner.long(), -torch.inf)
    # A difference may overflow to -inf.
    second = behind.amax(0, keepdim=True).clamp_(min=torch.finfo(behind.dtype).min)
    # The largest summand is 1, so those below e^-80 do not count; exp is six times slower on them.
    others = second + behind.sub_(second).clamp_(min=-80).exp_().sum(0, keepdim=True).log_()
    scaled = (torch.asinh(own - others) - _START) / _STEP
    level = scaled.round().clamp(0, BINS - 1).to(torch.int32)
    return winner.squeeze(0), level.squeeze(0)


def lower_edge(level: int) -> float:
    """Smallest log-odds of confidence `level`; -inf for 0, inf for 65536 (above all)."""
    if level <= 0:
        return -math.inf
    if level >= BINS:
        return math.inf
    return math.sinh(_START + (level - 0.5) * _STEP)


def level_from(log_odds: float) -> int:
    """The lowest level, 0 .. 65536, whose pixels all reach `log_odds`; inverse of `lower_edge`."""
    if math.isinf(log_odds):
        return 0 if log_odds < 0 else BINS
    position = (math.asinh(log_odds) - _START) / _STEP + 0.5
    # A millionth of a step allows for the rounding of asinh and sinh.
    return min(max(math.ceil(position - 1e-6), 0), BINS)


@functools.cache
def probabilities() -> np.ndarray:
    """float32 (65536,): the probability in the middle of each level."""
    log_odds = np.sinh(_START + np.arange(BINS) * _STEP)
    return (1 / (1 + np.exp(-np.clip(log_odds, -700, 700)))).astype(np.float32)


def probability(log_odds: float) -> float:
    """The probability p, 0..1, of log-odds log(p / (1 - p)); only for display."""
    if log_odds < -700:
        return 0.0
    return 1 / (1 + math.exp(-log_odds))
