"""Our network equals the released one; with Caffe's geometry, the network of the COCO weights.

Checkpoints of the released code become weights and models with the same results.

released_network.json and released_logits.npz were recorded from the released network, with the
weights and inputs that `weight` and `images_of` compute here.
"""

import copy
import functools
import io
import json
import math
import runpy
from collections import OrderedDict
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dst_cbc.data.layouts import LAYOUTS
from dst_cbc.models.released import from_released, write_released
from dst_cbc.models.segmentation import build, low_logits, read_model
from dst_cbc.models.weights import our_name, read_state
from dst_cbc.runtime.errors import DataError
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


def convert(source, out, *options):
    """Run convert_weights.py; returns what it prints."""
    command = [str(CONVERT), "--weights", str(source), "--out", str(out), *options]
    with patch("sys.argv", command), redirect_stdout(io.StringIO()) as said:
        runpy.run_path(str(CONVERT))["run"]()
    return said.getvalue()


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
    said = convert(folder / "coco.pth", folder / "coco.safetensors")
    (folder / "coco.pth").unlink()
    yield folder, said.replace(f"{folder}/", "").splitlines()
    (folder / "coco.safetensors").unlink()


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


# --------------------------------------------------------------------------- checkpoints


def checkpoint_of(state):
    """What the released code saves, with the states of its optimizer and of mixed precision."""
    optimizer = {
        "state": {7: {"momentum_buffer": torch.ones(2)}},
        "param_groups": [{"lr": 0.002, "params": [7]}],
    }
    amp = OrderedDict(loss_scaler0={"loss_scale": 65536.0, "unskipped": 3})
    return {"model": state, "optimizer": optimizer, "lr_scheduler": None, "amp": amp}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file as PyTorch 1.2 wrote it on a GPU, with the weights behind LOGITS."""
    state = filled(RATES).state_dict()
    theirs = OrderedDict((key, state[our_name(key)]) for key in RELEASED["state"])
    path = tmp_path_factory.mktemp("checkpoint") / "theirs.pt"
    with patch("torch.serialization.location_tag", return_value="cuda:0"):
        torch.save(checkpoint_of(theirs), path, _use_new_zipfile_serialization=False)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def model(checkpoint):
    """The model that a checkpoint becomes."""
    path = checkpoint.with_name("model.pt")
    assert convert(checkpoint, path) == (
        f"head: 2 of 4 convolutions kept\n{path}: written, a model with the classes of format voc\n"
    )
    yield read_model(path)
    path.unlink()


def bare(classes=21, **changed):
    """Weights of the released network without numbers; `changed` replaces some, None removes."""
    state = {
        key: torch.empty(
            [classes if key.startswith("classifier.") and place == 0 else side
             for place, side in enumerate(shape)],
            dtype=torch.long if key.endswith("num_batches_tracked") else torch.float32,
            device="meta",
        )
        for key, shape in RELEASED["state"].items()
    }  # fmt: skip
    state |= {key.replace("__", "."): value for key, value in changed.items()}
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize("name", ["logits_eval_2x3x65x65", "logits_eval_1x3x64x96"])
def test_a_converted_checkpoint_on_rgb_gives_the_logits_of_the_released_network_on_bgr(model, name):
    expected = LOGITS[name]
    found = logits(model.network.eval(), images_of(name).flip(1))
    assert np.abs(found - expected).max() < 1e-3 * max(1, expected.std() / 242)


def test_a_converted_checkpoint_normalises_images_as_the_released_code_with_coco(model):
    rgb = torch.randint(0, 256, (1, 3, 65, 65), dtype=torch.uint8)
    mean = torch.tensor([104.008, 116.669, 122.675]).view(3, 1, 1)
    expected = logits(filled((6, 12)), rgb.flip(1).float() - mean)
    model.network.eval()
    with torch.inference_mode():
        found = low_logits(model, rgb).numpy()
    assert np.abs(found - expected).max() < 1e-5 * expected.std()


def test_a_converted_checkpoint_is_a_whole_model_of_the_released_settings(model):
    network = {"backbone": "resnet101", "output_stride": 8, "aspp_rates": (6, 12)}
    assert model.settings == NetworkSettings(**network)
    assert model.classes == LAYOUTS["voc"].classes and list(model.classes)[15] == "person"
    assert model.record == {} and model.window is None


def test_a_checkpoint_becomes_weights_of_which_the_released_branches_are_kept(
    model, checkpoint, capsys
):
    path = checkpoint.with_name("theirs.safetensors")
    said = convert(checkpoint, path)
    assert "2 of 4 convolutions kept" in said and "written, for network.backbone resnet101" in said
    started = make("resnet101", (6, 12), root=path.parent, weights=path.name)
    assert "its head is loaded, 2 branches of 21x2048x3x3" in capsys.readouterr().out
    expected = model.network.state_dict()
    for key, value in started.network.state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert (started.mean, started.std) == (model.mean, model.std)
    path.unlink()


def test_the_other_branches_are_kept_on_request():
    keys = from_released(Path("w.pt"), bare(), branches=4).state
    assert sorted(key for key in keys if key.endswith(".bias") and key.startswith("head.")) == [
        f"head.{branch}.bias" for branch in range(4)
    ]


def test_a_training_that_started_from_imagenet_takes_rgb():
    kernel = torch.arange(64 * 3 * 7 * 7.0).view(64, 3, 7, 7)
    state = bare(backbone__conv1__weight=kernel)
    weights = from_released(Path("w.pt"), state, start="imagenet")
    assert torch.equal(weights.state["conv1.weight"], kernel)
    assert (weights.mean, weights.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    reversed_kernel = from_released(Path("w.pt"), state).state["conv1.weight"]
    assert torch.equal(reversed_kernel, kernel[:, [2, 1, 0]])


NONE = torch.empty(())


@pytest.mark.parametrize(
    "changed, fault",
    [
        (
            {"backbone__layer4__2__bn3__running_var": None},
            r"'backbone\.layer4\.2\.bn3\.running_var': found none, expected float32 \[2048\]",
        ),
        (
            {"aux_classifier__weight": NONE},
            "'aux_classifier.weight': found float32 .*expected n",
        ),
        (
            {"classifier__0__convs__0__bias": None},
            r"'classifier\.0\.convs\.0\.bias': found none, expected float32 \[21\]",
        ),
        (
            {"classifier__0__convs__3__bias": torch.empty(19)},
            r"'classifier\.0\.convs\.3\.bias': found float32 \[19\], expected float32 \[21\]",
        ),
        (
            {"classifier__0__convs__0__bias": torch.empty(10**9, device="meta")},
            r"'classifier\.0\.convs\.0\.weight': .* expected float32 \[1000000000, 2048, 3, 3\]",
        ),
        ({"backbone__bn1__weight": torch.empty(64, dtype=torch.half)}, "found float16 .* float32"),
    ],
    ids=["missing", "unknown", "no bias", "two numbers", "many classes", "dtype"],
)
def test_a_checkpoint_of_another_network_is_refused_by_name(changed, fault):
    with pytest.raises(DataError, match=rf"^w\.pt: not a checkpoint of the released .*{fault}"):
        from_released(Path("w.pt"), bare(**changed))


def test_nineteen_classes_are_those_of_cityscapes_and_other_numbers_are_refused(tmp_path):
    with patch("dst_cbc.models.released.write_model") as write:
        assert write_released(tmp_path, from_released(Path("w.pt"), bare(19))) == "cityscapes"
    assert write.call_args.args[1].classes == LAYOUTS["cityscapes"].classes
    other = from_released(Path("w.pt"), bare(11))
    with pytest.raises(DataError, match=r"^w\.pt: found 11 classes; expected 21 .* or 19"):
        write_released(tmp_path / "model.pt", other)
    assert not (tmp_path / "model.pt").exists()


class WithGet(OrderedDict):
    """A dictionary whose attribute `get` is no function, as a file can make one."""

    def __reduce__(self):
        return OrderedDict, (), {"get": 3}, None, iter(self.items())


@pytest.mark.parametrize("wrap", [checkpoint_of, dict, WithGet])
def test_weights_are_found_alone_or_below_model(wrap, tmp_path):
    state = {"backbone.conv1.weight": torch.arange(3.0)}
    torch.save(wrap(state), tmp_path / "w.pt")
    found = read_state(tmp_path / "w.pt", "model")
    assert found.keys() == state.keys() and torch.equal(*found.values(), *state.values())


@pytest.mark.parametrize(
    "content, said",
    [
        (
            {"optimizer": {}, "epoch": 3},
            "a dictionary of named tensors, alone or as the entry",
        ),
        (
            {"model": [1, 2]},
            "a dictionary of named tensors, alone or as the entry 'model'",
        ),
        (
            {"model": {}},
            "the file resnet101COCO-41f33a49.pth, or a checkpoint of the authors'",
        ),
        ({"model": {"fc.weight": NONE.new_zeros(3)}}, "or a checkpoint of the authors' code"),
        (Path("code"), "holds code, pathlib"),
        (None, "no such file"),
    ],
    ids=["no model", "a list", "empty", "another network", "code", "missing"],
)
def test_a_file_that_is_neither_is_refused_and_both_kinds_are_named(content, said, tmp_path):
    if content is not None:
        torch.save(content, tmp_path / "w.pt")
    with pytest.raises(DataError) as refusal:
        convert(tmp_path / "w.pt", tmp_path / "out.safetensors")
    assert str(refusal.value).startswith(f"{tmp_path}/w.pt: ") and said in str(refusal.value)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    "name, out, options, said",
    [
        (
            "backbone.conv1.weight",
            "m.safetensors",
            ["--backbone", "resnet101_caffe"],
            "only resnet",
        ),
        ("conv1.weight", "m.safetensors", ["--start", "imagenet"], "no checkpoint of the authors'"),
        ("conv1.weight", "m.pt", [], "no checkpoint of the authors'"),
        ("conv1.weight", "m.onnx", [], "must end in .safetensors or .pt"),
    ],
)
def test_options_that_do_not_fit_the_file_are_refused(name, out, options, said, tmp_path, capsys):
    torch.save({name: torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(SystemExit) as refusal:
        convert(tmp_path / "w.pt", tmp_path / out, *options)
    assert refusal.value.code == 2 and said in capsys.readouterr().err
