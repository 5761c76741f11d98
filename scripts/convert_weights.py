"""Convert the paper's COCO weights, or a checkpoint of the authors' code.

The COCO weights, resnet101COCO-41f33a49.pth, become a file for `network.weights`. It also holds the
normalisation of images and the name of the backbone: resnet101_caffe, the network in which these
weights were trained. The command prints how many names matched, were left out and are missing. Only
counters of batch normalisation may be missing; they start at 0.

A checkpoint that the authors' code saved, such as a trained model or voc_coco_resnet101.pt, becomes
a file for `network.weights`, too, if --out ends in .safetensors. If it ends in .pt, it becomes a
whole model, as the workflow writes it: for evaluation, infer.py, export.py and `start_from`. Its
21 classes are those of PASCAL VOC, 19 those of Cityscapes.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dst_cbc.cli import Parser, main


def run() -> None:
    parser = Parser(__doc__)
    parser.path("--weights", "resnet101COCO-41f33a49.pth, or a checkpoint of the authors' code")
    parser.path(
        "--out",
        "file to write, such as weights/coco.safetensors or results/<study>/given/<name>/model.pt",
    )
    parser.add_argument(
        "--backbone",
        choices=("resnet101_caffe", "resnet101"),
        help="the only backbone that takes the file (default: resnet101_caffe for the COCO "
        "weights); the released code loads these weights into resnet101, which has other strides "
        "and dilations, so resnet101 is the only choice for a checkpoint",
    )
    parser.add_argument(
        "--start",
        choices=("coco", "imagenet"),
        help="what the checkpoint's training started from, which says how it normalises images "
        "(default coco, as with the option --coco of the authors' code: BGR in 0..255 minus a "
        "mean; imagenet, without that option)",
    )
    parser.add_argument(
        "--branches",
        type=int,
        choices=(2, 4),
        help="how many of the four convolutions in the checkpoint's head to keep (default 2: the "
        "released network sums only these, so that the others are trained only in "
        "voc_coco_resnet101.pt)",
    )
    arguments = parser.parse_args()
    if arguments.out.suffix not in (".safetensors", ".pt"):
        parser.error("--out: the name of the file must end in .safetensors or .pt")

    from dst_cbc.models.released import is_released
    from dst_cbc.models.weights import read_state

    state = read_state(arguments.weights, "model")
    if is_released(state):
        if arguments.backbone == "resnet101_caffe":
            parser.error("--backbone: a checkpoint of the authors' code fits only resnet101")
        convert_checkpoint(arguments, state)
    else:
        if arguments.start or arguments.branches or arguments.out.suffix == ".pt":
            parser.error(
                f"{arguments.weights} is no checkpoint of the authors' code; only for one, give "
                "--start, --branches, or --out with a name that ends in .pt"
            )
        convert_coco(arguments)


def convert_checkpoint(arguments: Namespace, state: Mapping[str, Any]) -> None:
    """Write a checkpoint of the authors' code as weights or as a model. Raises DataError."""
    from dst_cbc.models.released import BACKBONE, RATES, SUMMED, from_released, write_released
    from dst_cbc.models.weights import write_weights

    branches = arguments.branches or SUMMED
    weights = from_released(arguments.weights, state, arguments.start or "coco", branches)
    print(f"head: {branches} of {len(RATES)} convolutions kept")
    if arguments.out.suffix == ".pt":
        format = write_released(arguments.out, weights)
        print(f"{arguments.out}: written, a model with the classes of format {format}")
    else:
        write_weights(arguments.out, weights)
        print(f"{arguments.out}: written, for network.backbone {BACKBONE}")


def convert_coco(arguments: Namespace) -> None:
    """Write the paper's COCO weights for `network.weights`. Raises DataError."""
    from dst_cbc.models.backbones import build_backbone
    from dst_cbc.models.weights import from_coco, load_weights, write_weights
    from dst_cbc.settings.network import NetworkSettings

    backbone = arguments.backbone or "resnet101_caffe"
    weights = from_coco(arguments.weights, backbone)
    network = build_backbone(NetworkSettings(backbone=backbone)).network
    extra = load_weights(network, backbone, weights)
    wanted = {*network.state_dict(), *(key for key in extra if key.startswith("head."))}
    for line in report(wanted, set(weights.state)):
        print(line)
    kept = {key: value for key, value in weights.state.items() if key in wanted}
    write_weights(arguments.out, replace(weights, state=kept))
    print(f"{arguments.out}: written, for network.backbone {backbone}")


def report(wanted: set[str], found: set[str]) -> Iterator[str]:
    """Yield a line for each group of names: how many of the network and of the file agree."""
    for group in sorted({key.partition(".")[0] for key in wanted | found}):
        ours, theirs = ({k for k in n if k.partition(".")[0] == group} for n in (wanted, found))
        yield (
            f"{group}: {len(ours & theirs)} matched, {len(theirs - ours)} left out, "
            f"{len(ours - theirs)} missing"
        )


if __name__ == "__main__":
    main(run)
