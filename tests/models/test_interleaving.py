import copy
import pickle

import pytest
import torch
from timm.layers import Conv2dSame, StdConv2d
from torch import nn

from dst_cbc.models.interleaving import interleave, put_together, take_apart
from dst_cbc.models.segmentation import build
from dst_cbc.settings.network import NetworkSettings

CLASSES = {"sky": "#0000ff", "road": "#808080", "car": "#ff0000"}
# For EfficientNet-Lite0, by output stride: first block, last block and dilation of each group of
# blocks that runs on interleaved images.
RUNS = {8: [("3.1", "5.0", 2), ("5.1", "6.0", 4)], 16: [("5.1", "6.0", 2)], 32: []}
FORMATS = [torch.contiguous_format, torch.channels_last]


def make(stride=8, backbone="tf_efficientnet_lite0", **settings):
    torch.manual_seed(0)
    settings = NetworkSettings(
        backbone=backbone, output_stride=stride, aspp_rates=(1, 2), **settings
    )
    return build(settings, CLASSES).network.double()


def both(**settings):
    """The same network, once plain and once interleaved."""
    plain = make(**settings)
    interleaved = copy.deepcopy(plain)
    interleave(interleaved)
    return plain, interleaved


def images(height=32, width=64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)


def depthwise(network, batch):
    """(dilation, number of input images) of each depthwise convolution in a forward pass."""
    found = []
    hooks = [
        part.register_forward_hook(
            lambda convolution, inputs, _: found.append((convolution.dilation[0], len(inputs[0])))
        )
        for part in network.modules()
        if isinstance(part, nn.Conv2d) and part.groups > 1
    ]
    network(batch)
    for hook in hooks:
        hook.remove()
    return found


def hooked(network):
    """Names of the blocks at which images are taken apart or put together."""
    parts = network.named_modules()
    found = [name for name, part in parts if part._forward_hooks or part._forward_pre_hooks]
    return {name.removeprefix("backbone.blocks.") for name in found}


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_each_image_taken_apart_holds_every_second_row_and_column(layout):
    whole = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6).contiguous(memory_format=layout)
    apart = take_apart(whole, 2)
    expected = [whole[n, :, i::2, j::2] for n in (0, 1) for i in (0, 1) for j in (0, 1)]
    assert torch.equal(apart, torch.stack(expected))
    assert torch.equal(put_together(apart, 2), whole)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize(
    "move, shape", [(take_apart, (2, 3, 4, 6)), (put_together, (8, 3, 4, 6))], ids=["apart", "back"]
)
def test_the_memory_format_stays_forwards_and_backwards(move, shape, layout):
    seen = []
    start = torch.randn(shape).to(memory_format=layout).requires_grad_()
    before = start.clone()
    before.register_hook(seen.append)
    after = move(before, 2)
    after.backward(torch.ones_like(after))
    assert after.is_contiguous(memory_format=layout)
    assert seen[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_training_computes_the_same(stride, layout):
    """Logits, gradients and running statistics are equal, up to the order of summation."""
    results = []
    for network in both(stride=stride):
        network.to(memory_format=layout).train()
        logits = network(images().to(memory_format=layout))
        logits.square().mean().backward()
        gradients = [parameter.grad for parameter in network.parameters()]
        results.append((logits, gradients, dict(network.named_buffers())))
    (logits, gradients, state), (expected, *rest) = results[1], results[0]
    assert not torch.equal(logits, expected), "nothing was interleaved"
    torch.testing.assert_close((logits, gradients, state), (expected, *rest), rtol=0, atol=1e-12)
    assert max(gradient.abs().max() for gradient in gradients) > 1


@pytest.mark.parametrize("stride", RUNS)
def test_dilated_stages_run_as_plain_convolutions_on_more_images(stride):
    before, after = (depthwise(network.train(), images()) for network in both(stride=stride))
    assert {dilation for dilation, _ in after} == {1}
    assert after == [(1, number * dilation**2) for dilation, number in before]
    assert {dilation for dilation, _ in before} == {1, *(run[-1] for run in RUNS[stride])}


@pytest.mark.parametrize("stride", RUNS)
def test_images_are_taken_apart_once_for_all_blocks_of_a_dilation(stride):
    ends = {name for *run, _ in RUNS[stride] for name in run}
    assert hooked(both(stride=stride)[1]) == ends


def test_frozen_stages_are_interleaved_while_the_others_train():
    network = both()[1].train()
    network.backbone.eval()
    assert {dilation for dilation, _ in depthwise(network, images())} == {1}


@pytest.mark.parametrize("size", [(80, 96), (64, 80), (72, 40)], ids=str)
def test_a_size_that_the_dilation_does_not_divide_takes_the_plain_path(size):
    plain, interleaved = both(stride=16)
    assert torch.equal(interleaved.train()(images(*size)), plain.train()(images(*size)))


def test_each_dilation_asks_for_itself_whether_it_divides():
    """With 6 x 6 features, a dilation of 2 divides the size, and a dilation of 4 does not."""
    network = both(stride=8)[1].train()
    assert {dilation for dilation, _ in depthwise(network, images(48, 48))} == {1, 4}


def test_evaluation_stays_to_the_last_bit():
    plain, interleaved = both()
    interleaved.train()(images())
    interleaved.load_state_dict(plain.state_dict())
    assert torch.equal(interleaved.eval()(images()), plain.eval()(images()))
    assert depthwise(interleaved, images()) == depthwise(plain, images())


def test_between_passes_the_convolutions_are_dilated():
    plain, interleaved = both()
    interleaved.train()(images())
    assert str(interleaved.train()) == str(plain.train())


@pytest.mark.parametrize("size", [(64, 96), (80, 80)], ids=["divides", "does_not"])
@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_a_pass_that_broke_off_leaves_no_trace(mode, size):
    unbroken, network = (both(stride=16)[1].train(mode) for _ in range(2))

    def fail(*_):
        raise KeyboardInterrupt

    failure = network.backbone.blocks[5][2].register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        network.train()(images())
    failure.remove()
    network.load_state_dict(unbroken.state_dict())
    assert torch.equal(network.train(mode)(images(*size)), unbroken(images(*size)))


def test_a_second_call_changes_nothing():
    plain, interleaved = both()
    interleave(interleaved)
    expected, found = (network.train()(images()) for network in (plain, interleaved))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_parameters_and_state_keep_their_names():
    plain, interleaved = both()
    assert list(interleaved.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in interleaved.named_modules()] == [n for n, _ in plain.named_modules()]


@pytest.mark.parametrize(
    "twin",
    [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))],
    ids=["copy", "file"],
)
def test_a_copy_is_interleaved_by_itself(twin):
    network = both()[1].train()
    other = twin(network)
    assert {dilation for dilation, _ in depthwise(other, images())} == {1}
    assert torch.equal(other(images()), network(images()))


def test_export_sees_a_plain_network():
    plain, interleaved = (network.eval() for network in both())
    exported = torch.export.export(interleaved, (images(),)).module()
    torch.testing.assert_close(exported(images()), plain(images()))


@pytest.mark.parametrize(
    "backbone, stride",
    [
        ("resnet50", 8),  # dense
        ("efficientnet_b0", 8),  # squeeze and excitation
        ("convnext_atto", 8),  # normalised over channels, scaled
        ("small", 4),
        ("vit_tiny_patch16_224", 16),
    ],
)
def test_a_backbone_with_other_blocks_is_left_alone(backbone, stride):
    assert hooked(both(backbone=backbone, stride=stride)[1]) == set()


def test_mobilenet_is_interleaved():
    plain, interleaved = both(backbone="mobilenetv2_050", stride=8)
    assert {dilation for dilation, _ in depthwise(plain.train(), images())} == {1, 2, 4}
    assert {dilation for dilation, _ in depthwise(interleaved.train(), images())} == {1}


@pytest.mark.parametrize(
    "name, layer",
    [
        ("se", nn.AdaptiveAvgPool2d(1)),
        ("drop_path", nn.Dropout(0.1)),
        ("bn1", nn.GroupNorm(1, 672)),
        ("conv_pw", nn.Conv2d(112, 672, 3, padding=1)),
        ("conv_pw", nn.Conv2d(112, 672, 1, stride=2)),
        ("conv_dw", nn.Conv2d(672, 672, 5, padding=4, dilation=2)),
        ("conv_dw", nn.Conv2d(672, 672, 5, padding=4, dilation=2, groups=336)),
        ("conv_dw", nn.Conv2d(672, 672, 5, padding=4, dilation=2, groups=672, stride=2)),
        ("conv_dw", nn.Conv2d(672, 672, 5, padding=2, dilation=2, groups=672)),
        ("conv_dw", nn.Conv2d(672, 672, 5, padding="same", dilation=2, groups=672)),
        ("conv_dw", nn.Conv2d(672, 672, 5, padding=4, dilation=(2, 1), groups=672)),
        (
            "conv_dw",
            nn.Conv2d(672, 672, 5, padding=4, dilation=2, groups=672, padding_mode="reflect"),
        ),
        ("conv_dw", Conv2dSame(672, 672, 5, dilation=2, groups=672)),
        ("conv_dw", StdConv2d(672, 672, 5, padding=4, dilation=2, groups=672)),
    ],
)
def test_a_block_with_a_layer_of_another_kind_parts_its_neighbours(name, layer):
    network = make(stages=4)
    setattr(network.backbone.blocks[4][1], name, layer)
    interleave(network)
    assert hooked(network) == {"3.1", "4.0", "4.2"}


def test_a_block_that_may_do_more_than_run_its_layers_parts_its_neighbours():
    network = make(stages=4)
    block = network.backbone.blocks[4][1]
    block.__class__ = type("OtherBlock", (type(block),), {})
    interleave(network)
    assert hooked(network) == {"3.1", "4.0", "4.2"}
