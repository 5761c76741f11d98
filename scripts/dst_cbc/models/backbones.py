"""Backbones: timm's by name and a small one, with their normalisation and their stages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..runtime.errors import DataError
from ..settings.network import NetworkSettings
from .heads import FeatureMap
from .weights import Weights, load_weights, read_weights

CAFFE = "resnet101_caffe"
"""timm's resnet101 with Caffe's strides and dilations, as for the paper's COCO weights."""


@dataclass(frozen=True)
class Backbone:
    """A network that computes features, and what its users must know about it.

    network: maps normalised images, float (N, 3, H, W), to a list of feature maps, finest first.
    maps: channels and stride of each feature map; features lie every `stride` pixels, the first
    at the first pixel. ends: the name of the last module of each stage, from the input on. mean,
    std: normalisation of RGB in 0..1 in the training of the weights. weights: the loaded file,
    which may also hold a head; None: random weights.
    """

    network: nn.Module
    maps: Sequence[FeatureMap]
    ends: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: Weights | None = None


class SmallBackbone(nn.Sequential):
    """Four convolutions with a total stride of 4, small enough to train from scratch on a CPU.

    Its receptive field of 23 pixels covers a pen stroke, not a scene: with a dozen labeled
    images, a network with a larger receptive field would overfit.
    """

    maps = (FeatureMap(24, 2), FeatureMap(48, 4), FeatureMap(48, 4), FeatureMap(96, 4))

    def __init__(self, outputs: Sequence[int] = (3,)):
        """outputs: indexes, 0 to 3, of the feature maps that `forward` returns."""
        super().__init__(_conv(3, 24, 2), _conv(24, 48, 2), _conv(48, 48), _conv(48, 96))
        self.outputs = outputs

    def forward(self, images):
        features = []
        for part in self:
            images = part(images)
            features.append(images)
        return [features[place] for place in self.outputs]


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


Choice = Callable[[Sequence[FeatureMap]], Sequence[int]]
"""All maps of a backbone, finest first -> the indexes of the maps that a head needs, ascending."""


def build_backbone(
    settings: NetworkSettings, root: Path = Path(), choose: Choice | None = None
) -> Backbone:
    """Build the backbone with the weights that `settings` names, or random ones by torch's seed.

    root: the folder of a relative path in `weights`. choose: selects the feature maps; None: only
    the last one. Raises DataError if timm does not list the name, if the backbone cannot have this
    output stride or number of stages, or if the weights are missing or do not fit.
    """
    if settings.backbone == "small":
        ends = tuple(str(number) for number in range(4))
        places = choose(SmallBackbone.maps) if choose else (3,)
        maps = [SmallBackbone.maps[place] for place in places]
        return Backbone(SmallBackbone(places), maps, ends, (0.5,) * 3, (0.25,) * 3)
    # This import is half of a command's start-up time, and the small backbone does not need it.
    import timm

    name = "resnet101" if settings.backbone == CAFFE else settings.backbone
    if name not in timm.list_models():
        raise DataError(f"network.backbone: {settings.backbone!r} is not in timm.list_models()")
    try:
        network = _timm_features(name, settings, [(settings.stages or 0) - 1])
        if choose:
            available = [_map(info) for info in network.feature_info.info[: settings.stages]]
            network = _timm_features(name, settings, list(choose(available)))
    except (AssertionError, IndexError, NotImplementedError, RuntimeError, TypeError) as error:
        raise DataError(
            f"network: {settings.backbone!r} cannot be built with output_stride "
            f"{settings.output_stride} and stages {settings.stages} ({error})"
        ) from error
    last = network.feature_info.get_dicts()[-1]
    if "stage" in last and hasattr(network, "blocks"):
        # timm prunes unused parts of most backbones by itself, but not of EfficientNets.
        del network.blocks[last["stage"] :]
    if settings.backbone == CAFFE:
        _caffe_geometry(network)
    made_for: Any = timm.get_pretrained_cfg(name)
    mean, std, weights = made_for.mean, made_for.std, None
    if settings.weights:
        weights = read_weights(settings.weights, root)
        load_weights(network, settings.backbone, weights)
        mean, std = weights.mean or mean, weights.std or std
    present = dict(network.named_modules())
    names = (_own_name(info["module"], present) for info in network.feature_info.info)
    ends = tuple(name for name in names if name in present)
    maps = [_map(info) for info in network.feature_info.get_dicts()]
    return Backbone(network, maps, ends, mean, std, weights)


def _map(info: dict) -> FeatureMap:
    """Convert an entry of timm's `feature_info`."""
    return FeatureMap(info["num_chs"], info["reduction"])


def _caffe_geometry(network: Any) -> None:
    """Change timm's bottleneck ResNet into Caffe's; all names stay the same.

    In Caffe's ResNet, the first 1x1 convolution of a layer has the layer's stride, the first block
    is dilated like the others, and max pooling rounds sizes up.
    """
    for name, module in network.named_children():
        if name == "maxpool":
            module.ceil_mode = True
        elif name.startswith("layer"):
            first, second = module[:2]
            first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride
            first.conv2.dilation = first.conv2.padding = second.conv2.dilation


def _timm_features(name: str, settings: NetworkSettings, places: list[int]) -> Any:
    import timm

    wanted = {"features_only": True, "out_indices": tuple(places)}
    try:
        return timm.create_model(
            name, pretrained=False, output_stride=settings.output_stride, **wanted
        )
    except TypeError as error:
        # A transformer: its stride is its patch size, and these options make it take any size.
        network: Any = timm.create_model(
            name, pretrained=False, dynamic_img_size=True, dynamic_img_pad=True, **wanted
        )
        stride = network.feature_info.reduction()[-1]
        if stride != settings.output_stride:
            raise AssertionError(f"its output stride is {stride}") from error
        return network


def _own_name(module: str, present: dict[str, nn.Module]) -> str:
    """The name that a module of timm has inside timm's wrapper for feature extraction."""
    names = (module, f"model.{module}", module.replace(".", "_"))
    return next((name for name in names if name in present), module)
