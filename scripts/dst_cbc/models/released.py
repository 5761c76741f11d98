"""Checkpoints of the authors' released code, as weights and as model files of this workflow."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ..data.layouts import LAYOUTS
from ..runtime.errors import DataError
from ..settings.network import NetworkSettings
from .model_file import difference
from .segmentation import SegmentationModel, without_memory, write_model
from .weights import COCO_MEAN, COCO_STD, Weights, for_rgb, our_name

BACKBONE = "resnet101"
"""timm's backbone with the geometry of the released network."""
RATES = (6, 12, 18, 24)
"""Dilation rates of the four convolutions in a checkpoint's head."""
SUMMED = 2
"""How many of them the released network sums; the others keep their initial weights."""
STARTS = {
    "coco": (tuple(value / 255 for value in COCO_MEAN), COCO_STD),
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
}
"""The weights that a training of the released code may start from: mean and std of RGB in 0..1."""


def is_released(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether the names of these weights begin as those of the released network."""
    return any(key.startswith(("backbone.", "classifier.")) for key in state)


def from_released(
    path: Path, state: Mapping[str, torch.Tensor], start: str = "coco", branches: int = SUMMED
) -> Weights:
    """Convert the weights of the released network, `state`, which were read from `path`.

    start: a key of STARTS. Networks that started from COCO take BGR; their first convolution is
    reversed, so that the converted one takes RGB. branches: how many convolutions of the head are
    kept, the first ones. Raises DataError unless names, shapes and dtypes are exactly those of the
    released network, with any number of classes.
    """
    biases = (state.get(f"classifier.0.convs.{place}.bias") for place in range(len(RATES)))
    classes = next((bias.numel() for bias in biases if bias is not None), 0)
    network = without_memory(settings_of(len(RATES)), classes)
    wanted = {
        re.sub(r"^head\.", "classifier.0.convs.", key): value
        for key, value in network.state_dict().items()
    }
    if fault := difference(state, wanted):
        raise DataError(
            f"{path}: not a checkpoint of the released network: {fault}; give a file that the "
            "authors' code saved: DeepLabV2 with four convolutions in its head"
        )
    ours = {our_name(key).removeprefix("backbone."): value for key, value in state.items()}
    ours = {
        key: value
        for key, value in ours.items()
        if not key.startswith("head.") or int(key.split(".")[1]) < branches
    }
    if start == "coco":
        ours["conv1.weight"] = for_rgb(ours["conv1.weight"])
    mean, std = STARTS[start]
    return Weights(path, ours, mean, std, BACKBONE)


def settings_of(branches: int) -> NetworkSettings:
    """Settings of the released network with this many convolutions in its head."""
    return NetworkSettings(backbone=BACKBONE, output_stride=8, aspp_rates=RATES[:branches])


def write_released(path: Path, weights: Weights) -> str:
    """Write a model file with weights of `from_released`; returns the format of its classes.

    The number of classes tells PASCAL VOC from Cityscapes. Raises DataError for another number.
    """
    biases = [value for key, value in weights.state.items() if re.match(r"head\.\d+\.bias", key)]
    formats = {len(LAYOUTS[name].classes or ()): name for name in ("voc", "cityscapes")}
    format = formats.get(len(biases[0]))
    if format is None:
        raise DataError(
            f"{weights.path}: found {len(biases[0])} classes; expected 21 (PASCAL VOC) or 19 "
            "(Cityscapes), because a model file names its classes; to write the weights alone, "
            "give --out a name that ends in .safetensors"
        )
    classes, settings = dict(LAYOUTS[format].classes or {}), settings_of(len(biases))
    network = without_memory(settings, len(classes))
    state = {key: weights.state[key.removeprefix("backbone.")] for key in network.state_dict()}
    assert weights.mean and weights.std
    model = SegmentationModel(network, settings, classes, weights.mean, weights.std)
    write_model(path, model, state, record=None)
    return format
