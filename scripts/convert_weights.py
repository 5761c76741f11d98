"""Convert the paper's COCO weights, resnet101COCO-41f33a49.pth, to a file for `network.weights`.

The new file also holds the normalisation of images and the name of the backbone: resnet101_caffe,
the network in which these weights were trained. The command prints how many names matched, were
left out and are missing. Only counters of batch normalisation may be missing; they start at 0.
"""

from collections.abc import Iterator
from dataclasses import replace

from dst_cbc.cli import Parser, main


def run() -> None:
    parser = Parser(__doc__)
    parser.path("--weights", "resnet101COCO-41f33a49.pth")
    parser.path("--out", "file to write, such as weights/coco.safetensors")
    parser.add_argument(
        "--backbone",
        default="resnet101_caffe",
        choices=("resnet101_caffe", "resnet101"),
        help="the only backbone that takes the file (default resnet101_caffe); the released code "
        "loads these weights into resnet101, which has other strides and dilations",
    )
    arguments = parser.parse_args()
    if arguments.out.suffix != ".safetensors":
        parser.error("--out: the name of the file must end in .safetensors")

    from dst_cbc.models.backbones import build_backbone
    from dst_cbc.models.weights import from_coco, load_weights, write_weights
    from dst_cbc.settings.network import NetworkSettings

    weights = from_coco(arguments.weights, arguments.backbone)
    network = build_backbone(NetworkSettings(backbone=arguments.backbone)).network
    extra = load_weights(network, arguments.backbone, weights)
    wanted = {*network.state_dict(), *(key for key in extra if key.startswith("head."))}
    for line in report(wanted, set(weights.state)):
        print(line)
    kept = {key: value for key, value in weights.state.items() if key in wanted}
    write_weights(arguments.out, replace(weights, state=kept))
    print(f"{arguments.out}: written, for network.backbone {arguments.backbone}")


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
