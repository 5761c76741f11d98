"""Our network equals the released one; with Caffe's geometry, the network of the COCO weights.

released_network.json and released_logits.npz were recorded from the released network, with the
weights and inputs that `weight` and `images_of` compute here.
"""

import copy
import functools
import io
import json
import math
import runpy
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dst_cbc.models.segmentation import build, low_logits
from dst_cbc.models.weights import our_name
from dst_cbc.settings.network import NetworkSettings
from workflow import REPOSITORY

RELEASED = json.loads((REPOSITORY / "tests/models/released_network.json").read_text())
LOGITS = np.load(REPOSITORY / "tests/models/released_logits.npz")
RATES = (6, 12, 18, 24)
CONVERT = REPOSITORY / "scripts/convert_weights.py"


def make(backbone="resnet101", rates=RATES, classes=21, root=Path(), **settings):
    settings = NetworkSettings(backbone=backbone, aspp_rates=rates, **settings)
    return build(settings, {str(number): "#000000" for number in range(classes)}, root)


def without_memory(backbone):
    with torch.device("meta"):
        return make(backbone).network


def uniform(shape, seed):
    """Numbers in 0..1, hashed from their position, so that no weights have to be shipped."""
    place = np.arange(math.prod(shape), dtype=np.uint64)
    h = (place + 0x9E3779B9 * (seed + 1)).astype(np.uint32)
    h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
    return torch.from_numpy((h ^ (h >> 16)) / 2**32).reshape(shape)


def weight(key, shape):
    """The made-up weight with the name `key` in our network."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.long)
    if len(shape) == 4:
        value = (2 * uniform(shape, 0) - 1) * math.sqrt(3 / math.prod(shape[1:]))
    elif key.endswith("running_var"):
        value = 1 + 0.2 * uniform(shape, 1)
    elif key.endswith("running_mean"):
        value = 0.1 * (2 * uniform(shape, 2) - 1)
    elif key.startswith("head."):
        value = 0.5 * (2 * uniform(shape, 3) - 1)
    elif key.endswith("bias"):
        value = 0.1 * (2 * uniform(shape, 4) - 1)
    else:
        value = 1 + 0.1 * (2 * uniform(shape, 5) - 1)
    return value.float()


@functools.cache
def filled(rates):
    network = make(rates=rates).network.eval()
    state = network.state_dict()
    network.load_state_dict({key: weight(key, value.shape) for key, value in state.items()})
    return network


def images_of(name):
    """The input images for an entry of LOGITS; the name ends with their shape."""
    shape = tuple(map(int, name.rpartition("_")[2].split("x")))
    return (2 * (2 * uniform(shape, 6) - 1)).float()


def logits(network, images):
    with torch.inference_mode():
        return network(images).numpy()


def test_the_rule_gives_its_first_values():
    expected = [0.5733975801, 0.5883937727, 0.7041337329, 0.9277629151]
    assert uniform((4,), 0).tolist() == pytest.approx(expected, abs=1e-10)


def test_names_and_shapes_are_those_of_the_released_network_one_to_one_in_order():
    ours = {k: list(v.shape) for k, v in without_memory("resnet101").state_dict().items()}
    theirs = {our_name(key): shape for key, shape in RELEASED["state"].items()}
    assert list(ours.items()) == list(theirs.items())
    assert len(ours) == len(RELEASED["state"])


@pytest.mark.parametrize("backbone", ["resnet101", "resnet101_caffe"])
def test_the_network_has_the_parameters_of_the_released_one(backbone):
    parameters = without_memory(backbone).parameters()
    assert sum(p.numel() for p in parameters) == RELEASED["parameters"] == 44_048_532


def test_each_convolution_strides_dilates_and_pads_as_in_the_released_network():
    def described(conv):
        pairs = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
        assert all(high == wide for high, wide in pairs) and conv.groups == 1
        sides = [high for high, _ in pairs]
        return [conv.in_channels, conv.out_channels, *sides, conv.bias is not None]

    modules = dict(without_memory("resnet101").named_modules())
    ours = {name: described(m) for name, m in modules.items() if isinstance(m, nn.Conv2d)}
    theirs = {our_name(f"{k}.")[:-1]: v for k, v in RELEASED["convolutions"].items()}
    assert list(ours.items()) == list(theirs.items())
    pool, norm = (RELEASED["others"][f"backbone.{name}"] for name in ("maxpool", "bn1"))
    (found,) = (m for m in modules.values() if isinstance(m, nn.MaxPool2d))
    sides = {"pool": found.kernel_size, "stride": found.stride, "pad": found.padding}
    assert {**sides, "ceil_mode": found.ceil_mode} == pool
    for found in (m for m in modules.values() if isinstance(m, nn.BatchNorm2d)):
        assert {key: getattr(found, key) for key in norm} == norm


@pytest.mark.parametrize("backbone", ["resnet101", "resnet101_caffe"])
@pytest.mark.parametrize(
    "size, expected", [((321, 321), (41, 41)), ((505, 505), (64, 64)), ((257, 513), (33, 65))]
)
def test_output_stride_8_gives_the_sizes_of_the_released_network(backbone, size, expected):
    images = torch.zeros(1, 3, *size, device="meta")
    assert without_memory(backbone)(images).shape == (1, 21, *expected)


# Float32 agrees with float64 to 5e-4 if the logits' standard deviation is 242. Twice that is
# allowed, and proportionally more for larger logits.
@pytest.mark.parametrize(
    "name, rates",
    [
        ("logits_eval_2x3x65x65", (6, 12)),
        ("logits_eval_1x3x97x129", (6, 12)),
        ("logits_eval_1x3x64x96", (6, 12)),
        ("logits_all4branches_eval_2x3x65x65", RATES),
    ],
)
def test_logits_are_those_of_the_released_network(name, rates):
    expected = LOGITS[name]
    allowed = 1e-3 * max(1, expected.std() / 242)
    assert np.abs(logits(filled(rates), images_of(name)) - expected).max() < allowed


def test_in_float64_logits_are_those_of_the_released_network_to_its_last_digits():
    name = "logits64_eval_2x3x65x65"
    network = copy.deepcopy(filled((6, 12))).double()
    found = logits(network, images_of(name).double())
    assert np.abs(found - LOGITS[name]).max() < 1e-9


def test_in_training_logits_are_those_of_the_released_network():
    name = "logits_train_2x3x65x65"
    network = copy.deepcopy(filled((6, 12))).train()
    assert np.abs(logits(network, images_of(name)) - LOGITS[name]).max() < 1e-3


# --------------------------------------------------------------------------- the COCO weights


def caffe_logits(state, images):
    """Logits of the network of the COCO weights: Caffe's ResNet-101 and the sum of branches."""

    def conv(x, name, stride=1, dilation=1):
        kernel = state[f"{name}.weight"]
        return F.conv2d(x, kernel, None, stride, dilation * (kernel.shape[-1] // 2), dilation)

    def norm(x, name):
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{name}.{part}"] for part in parts), eps=1e-5)

    x = F.relu(norm(conv(images, "conv1", stride=2), "bn1"))
    x = F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)
    stages = [(1, 3, 1, 1), (2, 4, 2, 1), (3, 23, 1, 2), (4, 3, 1, 4)]
    for number, blocks, stage_stride, dilation in stages:
        for place in range(blocks):
            name = f"layer{number}.{place}"
            stride = stage_stride if place == 0 else 1
            y = F.relu(norm(conv(x, f"{name}.conv1", stride=stride), f"{name}.bn1"))
            y = F.relu(norm(conv(y, f"{name}.conv2", dilation=dilation), f"{name}.bn2"))
            y = norm(conv(y, f"{name}.conv3"), f"{name}.bn3")
            if place == 0:
                x = norm(conv(x, f"{name}.downsample.0", stride=stride), f"{name}.downsample.1")
            x = F.relu(x + y)
    head = [f"layer5.conv2d_list.{branch}" for branch in range(4)]
    return sum(
        conv(x, name, dilation=rate) + state[f"{name}.bias"].view(-1, 1, 1)
        for name, rate in zip(head, RATES, strict=True)
    )


@pytest.fixture(scope="module")
def coco():
    """Made-up weights under the names, and with the shapes, of the COCO file."""
    state = {}
    for key, shape in RELEASED["state"].items():
        if not key.endswith("num_batches_tracked"):
            name = key.removeprefix("backbone.").replace("classifier.0.convs", "layer5.conv2d_list")
            state[name] = weight(our_name(key), tuple(shape))
    return state


@pytest.fixture(scope="module")
def converted(coco, tmp_path_factory):
    """Folder of coco.safetensors, converted from `coco` by the command, and the printed lines."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save({**coco, "fc.weight": torch.zeros(3)}, folder / "coco.pth")
    paths = {"--weights": folder / "coco.pth", "--out": folder / "coco.safetensors"}
    command = [str(CONVERT), *(str(part) for option in paths.items() for part in option)]
    with patch("sys.argv", command), redirect_stdout(io.StringIO()) as said:
        runpy.run_path(str(CONVERT), run_name="__main__")
    paths["--weights"].unlink()
    yield folder, said.getvalue().replace(f"{folder}/", "").splitlines()
    paths["--out"].unlink()


# Even sides are tested, too: max pooling that rounds up then gives one feature more.
@pytest.mark.parametrize("size", [(65, 97), (64, 80)])
def test_the_caffe_backbone_is_the_network_of_the_coco_weights(coco, size):
    network = make("resnet101_caffe").network.eval()
    missing, unexpected = network.load_state_dict(
        {k if k.startswith("head.") else f"backbone.{k}": v for k, v in renamed(coco)}, strict=False
    )
    assert unexpected == [] and all("num_batches_tracked" in key for key in missing)
    images = 2 * (2 * uniform((1, 3, *size), 6).float() - 1)
    expected = caffe_logits(coco, images)
    assert np.abs(logits(network, images) - expected.numpy()).max() < 1e-5 * expected.std()


def renamed(coco):
    return ((our_name(key), value) for key, value in coco.items())


def test_converted_weights_on_rgb_are_the_coco_weights_on_bgr(coco, converted, capsys):
    model = make("resnet101_caffe", root=converted[0], weights="coco.safetensors")
    assert (
        "coco.safetensors: its head is loaded, 4 branches of 21x2048x3x3" in capsys.readouterr().out
    )
    model.network.eval()
    rgb = torch.randint(0, 256, (1, 3, 64, 97), dtype=torch.uint8)
    mean = torch.tensor([104.008, 116.669, 122.675]).view(3, 1, 1)
    with torch.inference_mode():
        expected = caffe_logits(coco, rgb.flip(1).float() - mean)
        difference = low_logits(model, rgb) - expected
    assert difference.abs().max() < 1e-5 * expected.std()


def test_for_other_classes_the_head_starts_afresh_on_the_converted_backbone(
    coco, converted, capsys
):
    model = make("resnet101_caffe", classes=19, root=converted[0], weights="coco.safetensors")
    assert "its head is not loaded, 4 branches of 21x2048x3x3" in capsys.readouterr().out
    for branch in model.network.head:
        assert branch.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert not branch.bias.any()
    for name in ("layer1.0.conv1", "layer4.2.conv3"):
        found = model.network.backbone.get_submodule(name).weight
        assert torch.equal(found, coco[f"{name}.weight"])


def test_the_command_says_what_matched_was_left_and_is_missing(converted):
    assert converted[1] == [
        "bn1: 4 matched, 0 left out, 1 missing",
        "conv1: 1 matched, 0 left out, 0 missing",
        "fc: 0 matched, 1 left out, 0 missing",
        "head: 8 matched, 0 left out, 0 missing",
        "layer1: 50 matched, 0 left out, 10 missing",
        "layer2: 65 matched, 0 left out, 13 missing",
        "layer3: 350 matched, 0 left out, 70 missing",
        "layer4: 50 matched, 0 left out, 10 missing",
        "coco.safetensors: written, for network.backbone resnet101_caffe",
    ]
