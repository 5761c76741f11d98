"""Reference page of the presets: their values, and where each value comes from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dst_cbc.report.tables import markdown_table
from dst_cbc.settings.experiment import Experiment
from dst_cbc.settings.methods import MethodSwitches
from dst_cbc.settings.training import TrainSettings
from dst_cbc.settings.yaml_files import read_yaml

from .pages import REPOSITORY, page
from .settings_pages import yaml_text

PRESETS = REPOSITORY / "workflow/presets.yaml"
NOT_SAID = "not said"


@dataclass(frozen=True)
class Fact:
    """What the paper prints for a key, and where, and what the released code does.

    note: what the values of the presets cannot say, or what a preset does not do exactly.
    """

    paper: str
    released: str
    section: str
    note: str = ""


FACTS = {
    "precision": Fact(
        "mixed precision",
        "mixed precision of apex (O1): upsampling and loss in float32",
        "4.2",
        "On a GPU; on a CPU, `float32` is faster.",
    ),
    "resampling": Fact(
        NOT_SAID,
        "each step for itself, in float32; masks are `nearest`, which rounds positions down",
        "code",
        "`warp` moves image and mask by pixel centres. The two place 2.5 % of the labels of a "
        "small crop differently.",
    ),
    "network.backbone": Fact(
        "ResNet-101, pretrained on MSCOCO",
        "torchvision's ResNet-101 with these weights",
        "4.2",
        "The weights were trained with other strides and dilations. `voc.yaml` and "
        "`cityscapes.yaml` have `resnet101_caffe`, whose geometry is that of the weights; "
        "the variants for the released code have `resnet101`.",
    ),
    "network.output_stride": Fact("as the original DeepLabV2", "8", "4.2"),
    "network.aspp_rates": Fact(
        "as the original DeepLabV2: 6, 12, 18, 24",
        "four branches are built; those of 6 and 12 are summed",
        "4.2",
    ),
    "network.aspp_init": Fact(
        "the model of its reference [15], whose new heads are normal with deviation 0.01",
        "PyTorch's default",
        "4.2",
    ),
    "network.input_scale": Fact(
        "Cityscapes: images are down-sampled by 2, to 513x1025",
        "images are resized to the sizes below",
        "4.1",
        "The sizes below are as the network sees them.",
    ),
    "switches.rule": Fact(
        "Algorithm 1, lines 13 to 18",
        "the rule of CBST",
        "3.3",
        "A row of `methods.yaml` that names its rule keeps it.",
    ),
    "switches.threshold_sampling": Fact(
        "all pixels; sampling 5 to 10 % of them is enough",
        "every 16th pixel of a flattened batch",
        "3.3",
        "Not exact in `released`: the code ranks float32 probabilities, which tie at 1.0; here "
        "they are log-odds, which tie within one of 65536 levels. A class that is not among the "
        "sampled pixels stops the code, and has no threshold here.",
    ),
    "train.batch": Fact("8", "8", "4.2"),
    "train.crop": Fact(
        "321x321; Cityscapes: 257x513", "321x321; Cityscapes: 257x513", "4.2, Table 6"
    ),
    "train.learning_rate": Fact(
        "2e-3; Cityscapes, in self-training: doubled",
        "2e-3; Cityscapes, in self-training: 4e-3",
        "4.2, 4.3",
    ),
    "train.momentum": Fact("0.9", "0.9", "4.2"),
    "train.weight_decay": Fact("5e-4", "5e-4", "4.2"),
    "train.power": Fact("the poly schedule", "0.9", "4.2"),
    "train.gamma": Fact(
        "9; 4 on VOC with more than 1000 labels", "9; 4 on VOC with more than 1000 labels", "4.3"
    ),
    "train.epochs": Fact("6 a round; Cityscapes: 12", "6 a round; Cityscapes: 12", "4.2"),
    "train.validate_every": Fact(
        NOT_SAID,
        "1000 in self-training; in supervised training 1000 500 350 220 140 100 for the splits 1 4 "
        "8 20 50 106, on Cityscapes 1000 500 350 100 for 1 4 8 30",
        "code",
        "`voc.yaml` and `cityscapes.yaml` have the numbers of each split.",
    ),
    "train.validate_early": Fact(
        NOT_SAID,
        "after each step that is one before a multiple, and after the step before the last",
        "code",
        "The last step is never validated there. `last.pt` is the model after it, all the same.",
    ),
    "train.short_batches": Fact(
        NOT_SAID, "an epoch ends with a short batch, and its steps are rounded up", "code"
    ),
    "train.augmentation.size": Fact(
        "321x321 to 505x505; Cityscapes: 257x513 to 513x1025",
        "these bounds; height and width are drawn independently",
        "Table 6",
        "The paper does not print how a size is drawn. The authors later drew one factor from 0.5 "
        "to 1.5, which `standard` does.",
    ),
    "train.augmentation.flip": Fact("50 %", "50 %", "Table 6"),
    "supervised.epochs": Fact(
        "30 times the square root of all images by labeled images; Cityscapes: twice as many",
        "30 60 85 134 212 300 for the splits 1 4 8 20 50 106, on Cityscapes 60 120 170 330 for 1 4 "
        "8 30",
        "4.2",
        "The variants for the released code have its numbers; `cityscapes.yaml` has twice the "
        "formula, rounded.",
    ),
    "prediction.size": Fact(
        "321x321; Cityscapes: 257x513", "321x321; Cityscapes: 257x513", "4.2, A.1"
    ),
    "evaluation.size": Fact(
        "Cityscapes: 513x1025", "Cityscapes: 513x1025", "4.1", "VOC: the images' own size."
    ),
    "evaluation.masks": Fact(
        "ground truth remains unchanged", "Cityscapes: resized like the images", "A.1"
    ),
    "evaluation.pad": Fact(NOT_SAID, "VOC: 505x505", "code"),
    "evaluation.pad_colour": Fact(
        NOT_SAID, "zeros, before the mean is subtracted", "code", "Masks are padded with 255."
    ),
}
"""One for each key that a preset sets."""


def presets_page() -> str:
    """The values of all presets; and for `paper` and `released`, where each value comes from."""
    content = read_yaml(PRESETS)
    return page(
        "Presets",
        "`preset:` sets the defaults of several keys at once. `standard`, the default, is what "
        "this workflow recommends; `paper` is the method as the paper prints it; `released` "
        "follows the code that the authors released. A key that an experiment file sets wins "
        "over its preset. The presets are in `workflow/presets.yaml`, with the sizes of VOC; "
        "`cityscapes.yaml` and `variants/cityscapes-released.yaml` in `workflow/experiments/` have "
        "those of Cityscapes. [The algorithm](../explanation/algorithm.md) compares the three.",
        presets(content),
        "## `paper`",
        "What the paper prints, what the released code does, and what `preset: paper` sets. "
        "`code` stands where the paper says nothing.",
        origins(content, "paper"),
        "## `released`",
        "The same for `preset: released`.",
        origins(content, "released"),
    )


def presets(content: Mapping[str, Any]) -> str:
    """One row per key that any preset sets, one column per preset: its value, or the default."""
    columns = {name: dict(_flat(preset)) for name, preset in content.items()}
    table = (
        [f"`{key}`", *(_cell(column, key) for column in columns.values())] for key in _keys(content)
    )
    return markdown_table(["key", *(f"`{name}`" for name in columns)], table)


def origins(content: Mapping[str, Any], preset: str) -> str:
    """One row per key that any preset sets: the paper's value, the code's, the preset's, where."""
    ours = dict(_flat(content[preset]))
    table = (
        [
            f"`{key}`",
            FACTS[key].paper,
            FACTS[key].released,
            _cell(ours, key),
            FACTS[key].section,
            FACTS[key].note,
        ]
        for key in _keys(content)
    )
    return markdown_table(["key", "paper", "released code", "ours", "section", "note"], table)


def _keys(content: Mapping[str, Any]) -> list[str]:
    """Every dotted key that any preset sets, once."""
    return list(dict.fromkeys(key for preset in content.values() for key, _ in _flat(preset)))


def _cell(preset: Mapping[str, Any], key: str) -> str:
    """The value of a dotted key in a preset, or its default. preset: as `_flat` returns it."""
    return f"`{yaml_text(preset.get(key, _unset(key)))}`"


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _unset(key: str) -> Any:
    """The default of a dotted key."""
    section, *path = key.split(".")
    value = getattr(Experiment.model_construct(), section)
    # Keys inside these two have no default in Experiment.
    value = {"supervised": TrainSettings(), "switches": MethodSwitches.model_construct()}.get(
        section, value
    )
    for part in path:
        value = getattr(value, part)
    return list(value) if isinstance(value, tuple) else value
