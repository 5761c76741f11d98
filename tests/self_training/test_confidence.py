import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dst_cbc.inference.winners import winners
from dst_cbc.runtime.errors import Unusable
from dst_cbc.self_training import confidence
from dst_cbc.self_training.confidence import (
    BINS,
    HIGHEST,
    LOWEST,
    level_from,
    lower_edge,
    probability,
    quantise,
)

finite = st.floats(-1e4, 1e4, width=32)


def log_odds(logits):
    """The winner's log(p / (1 - p)) in float64; logits (pixels, classes)."""
    ordered = np.sort(np.asarray(logits, np.float64), axis=-1)
    best, others = ordered[..., -1], ordered[..., :-1]
    top = others.max(-1)
    return best - top - np.log(np.exp(others - top[..., None]).sum(-1))


def quantised(logits):
    """Class and level of pixels given as a table (pixels, classes)."""
    tensor = torch.tensor(np.asarray(logits, np.float32)).T[None, :, None, :]
    classes, levels = quantise(tensor)
    return classes.numpy().ravel(), levels.numpy().ravel()


@pytest.mark.parametrize("scale", [0.01, 1, 10, 100, 1000, 10000])
@pytest.mark.parametrize("classes", [2, 3, 21])
def test_a_level_is_the_float64_log_odds_to_within_one_step(scale, classes):
    logits = np.random.default_rng(0).normal(size=(4000, classes)).astype(np.float32) * scale
    logits = logits.astype(np.float32)
    winner, levels = quantised(logits)
    np.testing.assert_array_equal(winner, logits.argmax(1))
    exact = np.clip(log_odds(logits), LOWEST, HIGHEST)
    position = (np.arcsinh(exact) - np.arcsinh(LOWEST)) / (
        (np.arcsinh(HIGHEST) - np.arcsinh(LOWEST)) / (BINS - 1)
    )
    rounding = np.abs(logits).max(1) * 2**-22 * 4200
    assert (np.abs(levels - position) <= 0.5 + 0.01 + rounding).all()


def test_confidences_still_rank_where_float32_probabilities_are_all_one():
    logits = np.array([[50.0, 0], [60, 0], [70, 0], [5000, 0], [5010, 0]])
    assert (torch.tensor(logits, dtype=torch.float32).softmax(1).max(1).values == 1).all()
    _, levels = quantised(logits)
    assert (np.diff(levels) > 0).all()


@given(st.lists(st.tuples(finite, finite, finite), min_size=2, max_size=30))
def test_a_higher_log_odds_never_has_a_lower_level(rows):
    logits = np.array(rows, np.float32)
    _, levels = quantised(logits)
    exact = log_odds(logits)
    for i in range(len(rows)):
        clearly_lower = exact < exact[i] - 1e-6 * np.abs(logits).max() - 1e-5
        assert (levels[clearly_lower] <= levels[i]).all()


def test_levels_and_classes_have_the_documented_types_and_range():
    classes, levels = quantise(torch.randn(2, 5, 3, 4) * 1e30)
    assert classes.dtype == torch.uint8 and classes.shape == (2, 3, 4)
    assert levels.dtype == torch.int32 and levels.shape == (2, 3, 4)
    assert levels.min() >= 0 and levels.max() <= BINS - 1


def test_log_odds_beyond_the_range_get_its_last_level():
    _, levels = quantised([[HIGHEST, 0.0], [1e6, 0.0], [3e38, -3e38]])
    assert levels.tolist() == [BINS - 1] * 3


def test_a_tie_has_the_log_odds_of_its_share():
    winner, levels = quantised([[1.0, 1.0], [-3.0, -3.0]])
    assert set(winner) <= {0, 1}
    assert levels[0] == levels[1]
    assert lower_edge(levels[0]) <= 0 < lower_edge(levels[0] + 1)
    _, (thirds,) = quantised([[2.0, 2.0, 2.0]])
    assert lower_edge(thirds) <= -math.log(2) < lower_edge(thirds + 1)


@pytest.mark.parametrize("classes", [2, 21, 255])
def test_of_classes_as_likely_the_first_wins_however_the_logits_lie(classes):
    logits = torch.randint(
        3, (2, classes, 9, 7), generator=torch.Generator().manual_seed(0)
    ).float()
    logits[0, -1, 0, 0] = 3
    winner, levels = quantise(logits)
    np.testing.assert_array_equal(winner, logits.numpy().argmax(1))
    assert winner[0, 0, 0] == classes - 1
    assert torch.equal(winners(logits), winner)
    other = quantise(logits.to(memory_format=torch.channels_last))
    assert torch.equal(winner, other[0]) and torch.equal(levels, other[1])


def test_pieces_are_put_together_as_they_lay(monkeypatch):
    logits = torch.randn(3, 4, 10, 6, generator=torch.Generator().manual_seed(0))
    whole = *quantise(logits), winners(logits)
    for rows in (1, 3, 10):
        monkeypatch.setattr("dst_cbc.inference.winners._STRIPE", rows * 4 * 6 + 5)
        cut = *quantise(logits), winners(logits)
        assert all(map(torch.equal, whole, cut))


def test_two_classes_have_the_difference_of_their_logits():
    winner, levels = quantised([[0.25, 3.25], [7.0, 2.0]])
    assert winner.tolist() == [1, 0]
    for level, difference in zip(levels, (3, 5), strict=True):
        assert lower_edge(level) <= difference < lower_edge(level + 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_is_unusable(bad):
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 2, 1, 1] = bad
    with pytest.raises(Unusable, match="not finite"):
        quantise(logits)


def test_half_precision_logits_are_read_in_float32():
    half = torch.tensor([20.0, 1.0, -3.0], dtype=torch.float16).view(1, 3, 1, 1)
    assert quantise(half)[1].item() == quantise(half.float())[1].item()


def test_edge_and_level_are_inverse_for_every_level():
    assert [level_from(lower_edge(level)) for level in range(BINS + 1)] == list(range(BINS + 1))


def test_edges_rise_from_minus_to_plus_infinity():
    edges = [lower_edge(level) for level in range(BINS + 1)]
    assert edges[0] == -math.inf and edges[-1] == math.inf
    assert all(a < b for a, b in pairwise(edges))


@given(st.floats(-20, 2e5))
def test_every_kept_level_reaches_the_asked_log_odds_and_the_one_below_does_not(log_odds):
    level = level_from(log_odds)
    tolerance = 1e-9 * max(1, abs(log_odds))
    if level < BINS:
        assert level == 0 or lower_edge(level) >= log_odds - tolerance
    if level > 0:
        assert lower_edge(level - 1) < log_odds


def test_steps_are_as_small_as_the_documentation_says():
    middle = level_from(0.0)
    assert lower_edge(middle + 1) - lower_edge(middle) == pytest.approx(0.00024, rel=0.05)
    far = level_from(50000.0)
    assert lower_edge(far + 1) / lower_edge(far) - 1 == pytest.approx(0.00024, rel=0.05)


def test_probability_is_the_logistic_function_without_overflow():
    assert probability(0) == 0.5
    assert probability(math.log(9)) == pytest.approx(0.9)
    assert probability(-math.log(9)) == pytest.approx(0.1)
    assert probability(-math.inf) == probability(-1e5) == 0
    assert probability(math.inf) == probability(1e5) == 1


def test_the_first_line_of_the_documentation_names_the_scale():
    assert "16 bits" in confidence.__doc__.splitlines()[0]
