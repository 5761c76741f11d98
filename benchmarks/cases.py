"""Networks and settings to measure: from the paper, from CamVid, and from the demo."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from dst_cbc.models import segmentation
from dst_cbc.planning.plan import load_plan
from dst_cbc.settings.network import NetworkSettings
from dst_cbc.settings.stages import Inference, TrainStage
from measure import REPOSITORY
from pictures import CLASSES

RESNET = NetworkSettings(backbone="resnet101", output_stride=8)
SMALL = NetworkSettings(backbone="small", output_stride=4, aspp_rates=(1,))
CAMVID = yaml.safe_load((REPOSITORY / "workflow/experiments/camvid.yaml").read_text())
LITE = NetworkSettings(**{**CAMVID["network"], "output_stride": 8})


def model(
    network: NetworkSettings, classes: dict[str, str] = CLASSES
) -> segmentation.SegmentationModel:
    """A model with initial weights from a fixed seed."""
    torch.manual_seed(0)
    return segmentation.build(network, classes)


def paper(**changes) -> TrainStage:
    """Training settings of the paper on VOC, but in float32; `changes` replace keys."""
    content = {
        "steps": 1_000_000,
        "validate_at": (1_000_000,),
        "seed": 0,
        "round": 1,
        "select": "val",
        "validation": Inference(batch=1, tile=2048),
        "augmentation": {"scale": (0.5, 1.5), "flip": 0.5},
    }
    return TrainStage(**{**content, **changes})


def camvid(**changes) -> TrainStage:
    """Training settings of camvid.yaml; `changes` replace keys."""
    left_out = ("epochs", "validate_every")
    content = {key: value for key, value in CAMVID["train"].items() if key not in left_out}
    return paper(**{**content, "channels_last": CAMVID["channels_last"], **changes})


CUDA = {"precision": "bfloat16", "channels_last": True}
"""Settings for a GPU."""


def demo():
    """Experiment, image records and plan of config.yaml."""
    return load_plan(REPOSITORY, [Path(REPOSITORY, "config.yaml")], {})
