from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import trainings
from dst_cbc.models.segmentation import build
from dst_cbc.runtime.errors import DataError
from dst_cbc.settings.network import NetworkSettings
from dst_cbc.training.objective import trained
from dst_cbc.training.optimization import (
    SGD,
    class_weights,
    learning_rate,
    optimizer,
    set_rate,
)
from dst_cbc.training.steps import set_modes

CLASSES = {"sky": "#0000ff", "road": "#808080", "car": "#ff0000"}
NAMES = list(CLASSES)
SMALL = {"backbone": "small", "output_stride": 4}


make_stage = partial(
    trainings.make_stage,
    batch=2,
    crop=(32, 32),
    learning_rate=0.2,
    weight_decay=0.0,
    momentum=0.0,
    steps=10,
    validate_at=(10,),
)


def make_network(**settings):
    torch.manual_seed(0)
    settings = NetworkSettings(**{"backbone": "small", "output_stride": 4, **settings})
    return build(settings, CLASSES).network


def step(network, stage, rate=0.1):
    """Take one step; return name -> maximum change of each parameter or buffer that changes."""
    before = {key: value.clone() for key, value in network.state_dict().items()}
    one = trained(network, stage)
    set_rate(one.optimizer, rate)
    set_modes({"network": one})
    generator = torch.Generator().manual_seed(0)
    loss = network(torch.randn(2, 3, 32, 32, generator=generator)).square().mean()
    loss.backward()
    one.optimizer.step()
    after = network.state_dict()
    return {
        key: (after[key] - before[key]).abs().max().item()
        for key in before
        if not torch.equal(before[key], after[key]) and not key.endswith("num_batches_tracked")
    }


def test_the_learning_rate_falls_by_a_power_of_what_is_left():
    stage = make_stage(learning_rate=0.2, power=0.9, steps=10, validate_at=(10,))
    assert learning_rate(stage, 0) == 0.2
    assert learning_rate(stage, 5) == pytest.approx(0.2 * 0.5**0.9)
    assert learning_rate(stage, 9) == pytest.approx(0.2 * 0.1**0.9)
    constant = stage.model_copy(update={"power": 0.0})
    assert {learning_rate(constant, step) for step in range(10)} == {0.2}


def test_warm_up_rises_along_a_line_to_the_poly_schedule():
    plain, warm = (make_stage(steps=100, warmup=n) for n in (0, 4))
    for number, share in enumerate((0.25, 0.5, 0.75, 1, 1, 1)):
        assert learning_rate(warm, number) == pytest.approx(share * learning_rate(plain, number))


def test_nothing_is_frozen_by_default():
    network = make_network()
    learned = {name for name, _ in network.named_parameters()}
    statistics = {key for key in network.state_dict() if "running" in key}
    assert set(step(network, make_stage())) == learned | statistics


def test_frozen_normalisation_keeps_weights_and_statistics_and_is_used_as_in_evaluation():
    network = make_network()
    norms = {
        f"{name}.{key}"
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for key in module.state_dict()
    }
    changed = set(step(network, make_stage(freeze_norm=True)))
    assert changed == set(network.state_dict()) - norms
    frozen = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(frozen) == 4 and not any(norm.training for norm in frozen)


@pytest.mark.parametrize(
    "settings, stages, frozen",
    [
        (SMALL, 1, ("0.",)),
        (SMALL, 4, ("0.", "1.", "2.", "3.")),
        ({"backbone": "resnet18", "output_stride": 32}, 1, ("conv1.", "bn1.")),
        ({"backbone": "resnet18", "output_stride": 32}, 2, ("conv1.", "bn1.", "layer1.")),
        (
            {"backbone": "tf_efficientnet_lite0", "output_stride": 16, "stages": 4},
            2,
            ("conv_stem.", "bn1.", "blocks.0.", "blocks.1."),
        ),
        ({"backbone": "convnext_atto", "output_stride": 32}, 1, ("stem_", "stages_0.")),
    ],
)
def test_frozen_stages_and_all_before_them_keep_weights_and_statistics(settings, stages, frozen):
    network = make_network(**settings)
    prefixes = tuple(f"backbone.{name}" for name in frozen)
    changed = set(step(network, make_stage(freeze_stages=stages)))
    statistics = {key for key in network.state_dict() if key.endswith("num_batches_tracked")}
    held = {key for key in network.state_dict() if key.startswith(prefixes)} - statistics
    assert held and changed.isdisjoint(held)
    learning = {key for key, p in network.named_parameters() if p.requires_grad}
    assert learning | held >= dict(network.named_parameters()).keys()
    assert learning & changed and learning.isdisjoint(held)


def test_frozen_stages_of_a_transformer_hold_its_positions_too():
    network = make_network(backbone="vit_tiny_patch16_224", output_stride=16)
    optimizer(network, make_stage(freeze_stages=3))
    frozen = {key for key, p in network.named_parameters() if not p.requires_grad}
    assert {"backbone.model.pos_embed", "backbone.model.patch_embed.proj.weight"} <= frozen
    assert {key.split(".")[3] for key in frozen if "blocks" in key} == {"0", "1", "2"}


def test_more_frozen_stages_than_there_are_are_refused():
    with pytest.raises(DataError, match=r"freeze_stages: found 5, but the backbone has 4 stages"):
        optimizer(make_network(), make_stage(freeze_stages=5))


def test_the_backbone_learns_at_its_own_rate():
    slow, fast = (step(make_network(), make_stage(backbone_rate=rate), 10) for rate in (0.1, 1.0))
    for name in slow:
        if "running" not in name:
            share = 0.1 if name.startswith("backbone") else 1
            assert slow[name] == pytest.approx(share * fast[name], rel=1e-2)


def test_without_class_weights_there_are_none():
    assert class_weights(make_stage(), NAMES, []) is None


def test_balanced_classes_weigh_the_same_in_all_and_a_pixel_one_on_average():
    masks = [np.array([[0, 0, 0], [0, 1, 255]], np.uint8), np.array([[0, 0, 1]], np.uint8)]
    weights = class_weights(make_stage(class_weights="balanced"), NAMES, masks)
    # Six pixels of sky, two of road, none of car: 8 / (2 x 6), 8 / (2 x 2), 1.
    torch.testing.assert_close(weights, torch.tensor([8 / 12, 2.0, 1.0]))


def test_balanced_masks_without_a_labeled_pixel_weigh_one():
    empty = [np.full((2, 2), 255, np.uint8)]
    weights = class_weights(make_stage(class_weights="balanced"), NAMES, empty)
    torch.testing.assert_close(weights, torch.ones(3))


def test_weights_by_name_leave_the_others_at_one():
    weights = class_weights(make_stage(class_weights={"car": 3, "sky": 0}), NAMES, [])
    torch.testing.assert_close(weights, torch.tensor([0.0, 1.0, 3.0]))


def test_sgd_changes_weights_and_keeps_its_state_as_torch_s_own_does():
    def descended(cls):
        torch.manual_seed(0)
        layer = nn.Linear(5, 3)
        one = cls(layer.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
        for number in range(4):
            one.zero_grad()
            layer(torch.ones(2, 5)).square().sum().backward()
            one.step()
            if number == 1:
                one.load_state_dict(one.state_dict())
        kept = [entry["momentum_buffer"] for entry in one.state_dict()["state"].values()]
        return [*layer.parameters(), *kept]

    ours, torchs = descended(SGD), descended(torch.optim.SGD)
    assert len(ours) == 4
    assert all(torch.equal(*pair) for pair in zip(ours, torchs, strict=True))
