import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dst_cbc.inference.tiling import _upsample_rows, full_logits
from dst_cbc.models.backbones import build_backbone
from dst_cbc.models.segmentation import Network, SegmentationModel, build, upsample
from dst_cbc.models.sizes import spans
from dst_cbc.runtime.errors import Unusable
from dst_cbc.settings.network import NetworkSettings
from examples import HEAD_CODE, load

CLASSES = {"sky": "#0000ff", "road": "#808080", "car": "#ff0000"}


def make(**settings):
    torch.manual_seed(0)
    settings = {"backbone": "small", "output_stride": 4, "aspp_rates": (1,), **settings}
    model = build(NetworkSettings(**settings), CLASSES)
    for branch in model.network.head:
        nn.init.normal_(branch.weight, std=0.1)
    model.network.eval()
    return model


def logits(model, images, tile):
    with torch.inference_mode():
        return torch.cat(list(full_logits(model, images, tile)), -2)


def picture(height, width):
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)


# With its head, the small network sees 15 pixels to each side; a margin is an eighth of a tile.
@pytest.mark.parametrize("size", [(300, 130), (301, 403), (129, 131), (128, 259)])
def test_a_small_receptive_field_sees_no_tile(size):
    model, images = make(), picture(*size)
    torch.testing.assert_close(
        logits(model, images, 128), logits(model, images, 2048), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"backbone": "resnet18", "output_stride": 16, "stages": 3},
        {"backbone": "tf_efficientnet_lite0", "output_stride": 8, "stages": 3},
    ],
    ids=["symmetric padding", "TensorFlow's padding"],
)
@pytest.mark.parametrize("size", [(577, 705), (700, 331), (642, 299)])
def test_away_from_the_borders_tiles_are_the_untiled_pass(settings, size):
    """The margin covers the receptive field; TensorFlow's padding depends on a size's remainder."""
    model, images = make(**settings), picture(*size)[:1]
    tiled, whole = logits(model, images, 512), logits(model, images, 2048)
    assert tiled.shape == whole.shape == (1, 3, *size)
    inside = (..., slice(64, -64), slice(64, -64))
    torch.testing.assert_close(tiled[inside], whole[inside], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [(576, 704), (640, 304)])
def test_tiles_of_a_head_over_a_finer_level_start_on_the_grid_of_the_whole_network(size):
    """Logits every 4 pixels, features every 16: a tile that starts between gets other features."""
    torch.manual_seed(0)
    settings = NetworkSettings(backbone="resnet18", output_stride=16, stages=4)
    backbone = build_backbone(settings, choose=lambda maps: [1, len(maps) - 1])
    two_maps = load("dst_cbc.models.heads.two_maps", HEAD_CODE)
    network = Network(backbone, two_maps.Head(backbone.maps, 3, None))
    assert (network.stride, network.grid) == (4, 16)
    model = SegmentationModel(network.eval(), settings, CLASSES, backbone.mean, backbone.std)
    images = picture(*size)[:1]
    tiled, whole = logits(model, images, 500), logits(model, images, 2048)
    assert tiled.shape == whole.shape == (1, 3, *size)
    inside = (..., slice(96, -96), slice(96, -96))
    torch.testing.assert_close(tiled[inside], whole[inside], rtol=1e-3, atol=1e-3)


def test_images_that_fit_are_one_stripe_and_one_pass():
    model, images = make(), picture(60, 64)
    passes = []
    model.network.register_forward_hook(lambda *_: passes.append(1))
    assert len(list(full_logits(model, images, 64))) == 1 and len(passes) == 1
    stripes = list(full_logits(model, picture(60, 200), 64))
    assert len(passes) > 2 and [one.shape[-2] for one in stripes] == [20, 20, 20]


@given(
    st.integers(1, 3000),
    st.integers(64, 700),
    st.sampled_from([4, 8, 14, 16, 32]),
    st.sampled_from([1, 2, 4]),
)
def test_tiles_keep_every_feature_once_and_none_is_longer_than_it_may(length, tile, stride, finer):
    """finer: the grid of the network divided by the stride of its logits."""
    kept, grid = [], stride * finer
    for start, end, first, last in spans(length, tile, stride, grid):
        assert start % grid == 0 and 0 <= start < end <= length
        assert (end - start) % grid == length % grid and end - start < max(
            tile, 2 * grid * 2
        ) + grid
        features = range(start // stride, start // stride - (start - end) // stride)
        kept += list(features)[first:last]
    assert kept == list(range(-(-length // stride)))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40))
def test_stripes_of_rows_are_the_upsampled_whole(low_height, low_width, height, width):
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(1, 2, low_height, low_width, generator=generator)
    cuts = sorted({0, height // 3, height // 2, height})
    stripes = [_upsample_rows(low, (height, width), *cut) for cut in itertools.pairwise(cuts)]
    torch.testing.assert_close(
        torch.cat(stripes, -2), upsample(low, (height, width)), rtol=1e-4, atol=1e-5
    )


def test_the_input_scale_decides_what_is_large():
    images = picture(100, 180)
    for scale in (0.5, 2.0):
        model = make(input_scale=scale)
        torch.testing.assert_close(
            logits(model, images, 128), logits(model, images, 2048), rtol=1e-4, atol=1e-4
        )


def test_an_output_that_is_not_finite_is_refused():
    model = make()
    nn.init.constant_(model.network.head[0].bias, torch.inf)
    with pytest.raises(Unusable, match="not finite"):
        list(full_logits(model, picture(20, 20), 64))
