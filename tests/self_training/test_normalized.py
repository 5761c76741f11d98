"""The rule of CBST, argmax over c of p_c / t_c where this ratio is at least 1, by brute force."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from dst_cbc.self_training import confidence
from dst_cbc.self_training.predict import normalized
from dst_cbc.self_training.thresholds import thresholds
from dst_cbc.settings.stages import ThresholdStage
from reference import histogram

CPU = torch.device("cpu")
NAMES = ["sky", "road", "car", "tree"]
SCALES = [1, 16, 30, 100, 1000]


@cache
def network_output(scale):
    """Random logits times `scale`, float32 (4, 320, 300)."""
    rng = np.random.default_rng(7)
    logits = rng.normal(size=(len(NAMES), 320, 300)) + np.array([0.6, 0, -0.2, 0.1])[:, None, None]
    return (logits * scale).astype(np.float32)


def log_odds(logits):
    """log(p / (1 - p)) of every class: its logit minus the logsumexp of the others, in float64."""
    exact = logits.astype(np.float64)
    found = []
    for own in range(len(exact)):
        others = np.delete(exact, own, 0)
        most = others.max(0)
        found.append(exact[own] - most - np.log(np.exp(others - most).sum(0)))
    return np.stack(found)


def log_probability(log_odds):
    # Written so that exp never overflows; its underflow only takes it to log 1.
    return np.minimum(log_odds, 0) - np.log1p(np.exp(-np.abs(log_odds)))


def brute_force(logits, alpha, balance):
    """Labels by ranking the pixels themselves, without levels, and without saturation."""
    odds = log_odds(logits)
    winner = odds.argmax(0)
    confident = odds.max(0)
    edges = []
    for number in range(len(logits)):
        ranked = np.sort(confident[winner == number] if balance == "class" else confident.ravel())
        kept = math.floor(alpha * len(ranked) + 1e-9)
        edges.append(-np.inf if alpha == 1 else ranked[-kept])
    edges = np.array(edges)[:, None, None]
    if alpha == 1:
        return winner
    best = (log_probability(odds) - log_probability(edges)).argmax(0)
    reached = np.take_along_axis(odds - edges, best[None], 0)[0] >= 0
    return np.where(reached, best, 255)


def labels_of(logits, alpha, balance):
    """Labels by way of the histogram and the thresholds, as the stages make them."""
    tensor = torch.from_numpy(logits)[None]
    classes, levels = confidence.quantise(tensor)
    counts = histogram(classes.numpy(), levels.numpy(), len(logits))
    stage = ThresholdStage(alpha=alpha, balance=balance)
    rows = thresholds(counts, NAMES, stage.alpha, stage.balance)
    (labels,) = normalized([row.threshold for row in rows], CPU)(tensor)
    return rows, labels[0].numpy()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("alpha", [0.2, 0.4, 0.6, 0.8, 1.0])
@pytest.mark.parametrize("balance", ["class", "global"])
def test_labels_are_those_of_a_ranking_of_the_pixels_however_large_the_logits(
    scale, alpha, balance
):
    logits = network_output(scale)
    expected = brute_force(logits, alpha, balance)
    _, labels = labels_of(logits, alpha, balance)
    # The pixels of one level stay together, so a few at the edge may differ.
    assert (labels != expected).mean() <= 0.001
    for number in range(len(logits)):
        assert abs((labels == number).mean() - (expected == number).mean()) <= 0.001


@pytest.mark.parametrize("scale", SCALES[1:])
@pytest.mark.parametrize("alpha", [0.2, 0.4, 0.6, 0.8, 1.0])
def test_where_all_probabilities_are_one_each_class_keeps_alpha_of_its_pixels(scale, alpha):
    logits = network_output(scale)
    rows, labels = labels_of(logits, alpha, "class")
    for number, row in enumerate(rows):
        n = (logits.argmax(0) == number).sum()
        # Below probability 1/2 a pixel may also be labeled as a class that is not its winner.
        assert abs((labels == number).sum() / n - alpha) <= (0.001 if scale > 16 else 0.02)
        assert abs(row.kept_fraction - alpha) <= 0.001


finite = st.floats(-1e6, 1e6, width=32)


@given(
    st.lists(st.lists(finite, min_size=3, max_size=3), min_size=1, max_size=8),
    st.integers(0, confidence.BINS),
)
@example([[0, 1e-9, -3]], confidence.level_from(-0.1))
def test_with_one_threshold_for_all_classes_it_is_the_rule_threshold(pixels, level):
    logits = torch.tensor(pixels).T[None, :, None, :]
    classes, levels = confidence.quantise(logits)
    (labels,) = normalized([confidence.lower_edge(level)] * 3, CPU)(logits)
    assert torch.equal(labels, classes.masked_fill(levels < level, 255))


@given(
    st.lists(st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=3), min_size=1),
    st.lists(st.floats(-5, 30), min_size=3, max_size=3),
)
def test_a_label_is_the_largest_ratio_and_reaches_its_threshold_up_to_one_level(pixels, edges):
    logits = np.array(pixels, np.float32).T[:, None, :]
    (labels,) = normalized(edges, CPU)(torch.from_numpy(logits)[None])
    odds = log_odds(logits)[:, 0]
    ratios = log_probability(odds) - log_probability(np.array(edges))[:, None]
    for label, ratio, odd in zip(labels[0, 0].tolist(), ratios.T, odds.T, strict=True):
        step = 1e-3 * (1 + np.abs(odd).max())
        if label != 255:
            assert ratio[label] >= ratio.max() - 1e-4 and odd[label] >= edges[label] - step
        else:
            assert odd[ratio.argmax()] < edges[ratio.argmax()] + step or (
                np.sort(ratio)[-1] - np.sort(ratio)[-2] < 1e-4
            )


def test_a_class_without_limit_precedes_the_others_however_far_behind_its_logit_is():
    logits = torch.tensor([[0.0, 3e6], [0.0, -3e38]]).T[None, :, None, :]
    (labels,) = normalized([-math.inf, 1.0], CPU)(logits)
    assert labels.flatten().tolist() == [0, 0]
    (labels,) = normalized([1.0, -math.inf], CPU)(logits)
    assert labels.flatten().tolist() == [1, 1]


def test_no_pixel_gets_a_class_that_keeps_none():
    logits = torch.tensor([[5.0, 1.0], [1.0, 5.0]]).T[None, :, None, :]
    (labels,) = normalized([math.inf, math.inf], CPU)(logits)
    assert labels.flatten().tolist() == [255, 255]
    (labels,) = normalized([math.inf, -3.0], CPU)(logits)
    assert labels.flatten().tolist() == [255, 1]
