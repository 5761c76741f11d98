import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dst_cbc.training.losses import dynamic_loss

IGNORE = 255


def probabilities(*pixels):
    """Logits (1, classes, 1, pixels) whose softmax gives these probabilities per pixel."""
    return torch.tensor(pixels, dtype=torch.float32).log().T[None, :, None, :]


def random_batch(seed=0, images=4, classes=5, size=6, ignored=0.3):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, classes, size, size, generator=generator)
    labels = torch.randint(0, classes, (images, size, size), generator=generator)
    labels[torch.rand(images, size, size, generator=generator) < ignored] = IGNORE
    return logits, labels


def formula(logits, labels, pseudo, gamma, weights=None):
    """Equations (1) and (2) in float64, pixel by pixel."""
    log_p = logits.double().log_softmax(1)
    total, valid = 0.0, 0
    for n, y, x in np.ndindex(*labels.shape):
        label = int(labels[n, y, x])
        if label == IGNORE:
            continue
        valid += 1
        p = log_p[n, label, y, x].exp().detach()
        is_pseudo = n >= len(labels) - pseudo
        labeled = 1 if weights is None else weights[label].double()
        total = total - log_p[n, label, y, x] * (p**gamma if is_pseudo else labeled)
    return total / valid


def test_two_pixels_by_hand():
    logits = torch.cat([probabilities((0.5, 0.5), (0.9, 0.1)), probabilities((0.8, 0.2), (1, 1))])
    labels = torch.tensor([[[0, 1]], [[0, IGNORE]]])
    gamma = 3
    expected = (math.log(2) - math.log(0.1) - 0.8**gamma * math.log(0.8)) / 3
    loss = dynamic_loss(logits, labels, pseudo=1, gamma=gamma)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@given(st.integers(0, 4), st.sampled_from([0.0, 0.5, 1.0, 4.0, 9.0]), st.integers(0, 50))
def test_the_loss_is_the_formula_in_float64(pseudo, gamma, seed):
    logits, labels = random_batch(seed, size=3)
    loss = dynamic_loss(logits, labels, pseudo, gamma)
    assert loss.dtype == torch.float32 and loss.shape == ()
    assert loss.item() == pytest.approx(formula(logits, labels, pseudo, gamma).item(), rel=1e-5)


@pytest.mark.parametrize("pseudo", [0, 1, 2, 4])
def test_gamma_zero_is_plain_cross_entropy_to_the_last_bit(pseudo):
    for seed in range(20):
        logits, labels = random_batch(seed, size=33)
        logits.requires_grad_()
        ours = dynamic_loss(logits, labels, pseudo, 0.0)
        (gradient,) = torch.autograd.grad(ours, logits)
        plain = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
        plain = plain / (labels != IGNORE).sum()
        (expected,) = torch.autograd.grad(plain, logits)
        mean = F.cross_entropy(logits, labels, ignore_index=IGNORE)
        assert ours.item() == plain.item() == mean.item()
        assert torch.equal(gradient, expected)


@pytest.mark.parametrize("pseudo, gamma", [(0, 9.0), (2, 0.0), (2, 9.0)])
def test_among_deterministic_algorithms_torch_has_no_cross_entropy(pseudo, gamma, monkeypatch):
    """torch's nll_loss2d raises there on CUDA; our loss is equal up to rounding."""
    logits, labels = random_batch()
    expected = dynamic_loss(logits, labels, pseudo, gamma)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    monkeypatch.setattr(F, "cross_entropy", None)
    torch.testing.assert_close(dynamic_loss(logits, labels, pseudo, gamma), expected)


def test_without_pseudo_labels_gamma_changes_nothing():
    logits, labels = random_batch()
    assert torch.equal(dynamic_loss(logits, labels, 0, 9.0), dynamic_loss(logits, labels, 0, 0.0))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 9.0])
def test_no_gradient_flows_through_the_weight(gamma):
    logits, labels = random_batch(size=3)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(dynamic_loss(logits, labels, 2, gamma), logits)
    exact = logits.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(formula(exact, labels, 2, gamma), exact)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-8)


def test_the_gradient_is_the_softmax_error_times_the_frozen_weight():
    logits, labels = random_batch(3, images=2, size=4, ignored=0.0)
    logits.requires_grad_()
    gamma = 4.0
    (gradient,) = torch.autograd.grad(dynamic_loss(logits, labels, 1, gamma), logits)
    p = logits.detach().double().softmax(1)
    error = p - F.one_hot(labels, 5).permute(0, 3, 1, 2)
    weight = p.gather(1, labels[:, None]) ** gamma
    weight[0] = 1
    torch.testing.assert_close(gradient.double(), weight * error / 32, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("gamma", [0.0, 9.0])
@pytest.mark.parametrize("pseudo", [0, 2, 4])
def test_a_batch_that_is_all_ignored_costs_nothing_and_keeps_gradients_finite(gamma, pseudo):
    logits, labels = random_batch(ignored=1.1)
    logits.requires_grad_()
    loss = dynamic_loss(logits, labels, pseudo, gamma)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_the_divisor_counts_valid_pixels_of_both_kinds():
    logits, labels = random_batch(size=2, images=2, ignored=0.0)
    alone = dynamic_loss(logits[:1], labels[:1], 0, 9.0)
    wrong = logits.clone()
    wrong[1].zero_()
    wrong[1].scatter_(0, labels[1][None], -1e4)
    assert dynamic_loss(wrong, labels, 1, 9.0).item() == pytest.approx(alone.item() / 2, rel=1e-6)
    labels[1, 0] = IGNORE
    assert dynamic_loss(wrong, labels, 1, 9.0).item() == pytest.approx(
        alone.item() * 4 / 6, rel=1e-6
    )


def test_only_the_last_images_are_weighted():
    logits, labels = random_batch(ignored=0.0)
    weighted = dynamic_loss(logits, labels, 1, 9.0)
    assert weighted.item() == pytest.approx(formula(logits, labels, 1, 9.0).item(), rel=1e-5)
    swapped = dynamic_loss(logits.flip(0), labels.flip(0), 1, 9.0)
    assert swapped.item() != pytest.approx(weighted.item(), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_give_a_float32_loss(dtype):
    logits, labels = random_batch()
    low = logits.to(dtype)
    loss = dynamic_loss(low, labels, 2, 9.0)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, dynamic_loss(low.float(), labels, 2, 9.0))


def test_hopeless_pseudo_labels_stay_finite():
    logits = torch.zeros(2, 3, 1, 1)
    logits[:, 0] = 1e6
    labels = torch.full((2, 1, 1), 1)
    assert math.isfinite(dynamic_loss(logits, labels, 1, 9.0).item())


@pytest.mark.parametrize("pseudo", [0, 1, 4])
@pytest.mark.parametrize("gamma", [0.0, 4.0])
def test_class_weights_count_on_labeled_pixels_alone(pseudo, gamma):
    logits, labels = random_batch(3, size=3)
    weights = torch.tensor([0.0, 0.5, 1.0, 2.0, 7.0])
    loss = dynamic_loss(logits, labels, pseudo, gamma, weights)
    expected = formula(logits, labels, pseudo, gamma, weights).item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(
        dynamic_loss(logits, labels, pseudo, gamma, torch.ones(5)),
        dynamic_loss(logits, labels, pseudo, gamma),
    )


@pytest.mark.parametrize("gamma", [0.0, 2.0, 5.0, 9.0])
@pytest.mark.parametrize("pseudo, ignored", [(2, 0.0), (2, 0.3), (0, 0.3), (4, 0.3), (2, 1.1)])
def test_in_float64_value_and_gradient_are_those_of_the_formula(gamma, pseudo, ignored):
    """The cases include batches that are all labeled, all pseudo-labeled, and all ignored."""
    logits, labels = random_batch(7, ignored=ignored)
    logits = logits.double().requires_grad_()
    loss = dynamic_loss(logits, labels, pseudo, gamma)
    assert loss.dtype == torch.float64
    (gradient,) = torch.autograd.grad(loss, logits)
    if ignored > 1:
        assert loss.item() == 0 and not gradient.any()
        return
    exact = formula(logits, labels, pseudo, gamma)
    (expected,) = torch.autograd.grad(exact, logits)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-12)
    assert (gradient - expected).abs().max() < 1e-10 * expected.abs().max()
    in_float32 = dynamic_loss(logits.float(), labels, pseudo, gamma)
    assert in_float32.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize(
    "gamma, weights", [(9.0, None), (0.0, torch.ones(5)), (3.0, torch.ones(5))]
)
def test_one_tensor_of_the_logits_size_is_kept_and_becomes_the_gradient(gamma, weights):
    logits, labels = random_batch(size=16)
    logits.requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda x: x):
        loss = dynamic_loss(logits, labels, 2, gamma, weights)
    (kept,) = {one.data_ptr() for one in kept if one.numel() >= logits.numel()}
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.data_ptr() == kept != logits.data_ptr()


def test_a_second_gradient_of_the_same_loss_is_refused():
    logits, labels = random_batch()
    loss = dynamic_loss(logits.requires_grad_(), labels, 2, 9.0)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradient_by_differences_and_by_stock_operators(memory_format):
    logits, labels = random_batch(5, size=4)
    logits = logits.double().to(memory_format=memory_format).requires_grad_()
    before = logits.detach().clone()
    weights = torch.tensor([0.0, 0.5, 1.0, 2.0, 7.0], dtype=torch.float64)
    (ours,) = torch.autograd.grad(dynamic_loss(logits, labels, 0, 0, weights), logits)
    assert torch.equal(logits, before)
    moves = 1e-6 * torch.eye(logits.numel(), dtype=logits.dtype).view(-1, *logits.shape)
    above, below = (
        torch.stack([dynamic_loss(before + move, labels, 0, 0, weights) for move in signed])
        for signed in (moves, -moves)
    )
    torch.testing.assert_close(((above - below) / 2e-6).view_as(ours), ours, rtol=1e-6, atol=1e-8)
    stock = F.cross_entropy(logits, labels, weights, ignore_index=IGNORE, reduction="sum")
    (expected,) = torch.autograd.grad(stock / (labels != IGNORE).sum(), logits)
    torch.testing.assert_close(ours, expected, rtol=1e-13, atol=1e-16)
