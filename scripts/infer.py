"""Use a model: write a mask for every image below a folder.

Writes into --out: masks/ID.png, indexed PNGs of class numbers in the classes' colours; on request
confidence/ID.png, 8-bit grey, 255 times the probability of the mask's class; on request
overlays/ID.jpg, the mask over its image; on request objects.csv, the objects in all masks; and
infer.json, the model and the options. ID is the image's path below --images without its suffix. If
the command is stopped, start it again: it continues. Bad images are listed at the end, and the
command then exits with status 1.
"""

from dataclasses import replace

from dst_cbc.cli import Parser, main
from dst_cbc.runtime import devices, signals
from dst_cbc.runtime.errors import DataError, by_cause
from dst_cbc.runtime.files import sha256_file
from dst_cbc.settings.base import Bands, Window
from dst_cbc.settings.stages import Compute, Inference


def parse():
    parser = Parser(__doc__)
    parser.model()
    parser.path("--images", "folder of images, read with its subfolders and never written")
    parser.path("--out", "folder for the results: new, or of an interrupted pass")
    parser.add_argument("--confidence", action="store_true", help="also write confidence/")
    parser.add_argument("--overlay", action="store_true", help="also write overlays/")
    parser.add_argument(
        "--objects",
        nargs="*",
        metavar="CLASS",
        help="also write objects.csv, a row for each object: pixels of one of these classes "
        "(default: each class but `background`) that touch, also at corners; with --confidence, "
        "also their mean confidence",
    )
    parser.add_argument(
        "--objects-min",
        type=int,
        default=1,
        metavar="PIXELS",
        help="smallest area of an object in objects.csv (default 1)",
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        help="also predict the mirrored image and average the probabilities",
    )
    parser.add_argument(
        "--scales",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="FACTOR",
        help="average the probabilities over images resized by these factors (default 1)",
    )
    parser.add_argument(
        "--tile",
        type=int,
        default=1024,
        metavar="PIXELS",
        help="longest side that the network takes in one piece (default 1024); larger images are "
        "cut into overlapping tiles; larger tiles need more memory",
    )
    parser.bands("as in the model's training")
    parser.add_argument(
        "--window",
        type=int,
        nargs=2,
        metavar=("BLACK", "WHITE"),
        help="values of 16-bit images that become black and white (default: as in the model's "
        "training); a model of 8-bit images needs it for them",
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    parser.device()
    arguments = parser.parse_args()
    arguments.bands = parser.checked("--bands", Bands, arguments.bands)
    arguments.window = parser.checked("--window", Window, arguments.window)
    if not all(0.1 <= scale <= 4 for scale in arguments.scales):
        parser.error("--scales: expected factors from 0.1 to 4")
    if arguments.tile < 64 or (arguments.threads or 1) < 1 or arguments.objects_min < 1:
        parser.error("expected --tile of at least 64, --threads and --objects-min of at least 1")
    return arguments


def run() -> None:
    arguments = parse()
    signals.listen()
    if arguments.threads:
        devices.limit_threads(arguments.threads)
    import torch

    from dst_cbc.inference import folders, objects
    from dst_cbc.inference.tiling import View
    from dst_cbc.models import segmentation

    images = folders.list_images(arguments.images, arguments.out)
    model = segmentation.read_model(arguments.model)
    measured = objects.classes_of_objects(list(model.classes), arguments.objects or ())
    window, bands = arguments.window or model.window, arguments.bands or model.bands
    model = replace(model, window=window, bands=bands)
    compute = Compute(compute_threads=arguments.threads or torch.get_num_threads())
    device = devices.prepare(arguments.device, compute)
    model.network.to(device)
    folders.claim(arguments.out, made_with(arguments, list(model.classes)))
    outputs = folders.Outputs(arguments.out, arguments.confidence, arguments.overlay)
    flips = (False, True) if arguments.flip else (False,)
    views = [View(scale, flip) for scale in arguments.scales for flip in flips]
    settings = Inference(batch=1, tile=arguments.tile, **compute.model_dump())
    with devices.explain_out_of_memory("--tile"):
        problems = folders.segment_folder(
            model, images, outputs, settings, views, device, arguments.workers
        )
    print(f"{len(images) - len(problems)} of {len(images)} images have masks in {arguments.out}")
    if arguments.objects is not None:
        masked = {id: path for id, path in images.items() if id not in problems}
        problems |= objects.write_objects(masked, outputs, measured, arguments.objects_min)
        print(f"written: {arguments.out / objects.OBJECTS}")
    if problems:
        raise DataError(f"{len(problems)} bad images:\n{by_cause([*problems.values()])}")


def made_with(arguments, classes: list[str]) -> dict:
    """Everything that masks depend on, except the images; the content of infer.json.

    Objects are measured in the masks, so --objects may be given later, or with other classes.
    """
    return {
        "model_sha256": sha256_file(arguments.model),
        "classes": classes,
        "scales": arguments.scales,
        "flip": arguments.flip,
        "tile": arguments.tile,
        "confidence": arguments.confidence,
        "overlay": arguments.overlay,
        **({"bands": list(arguments.bands)} if arguments.bands else {}),
        **({"window": list(arguments.window)} if arguments.window else {}),
        "masks": "value n is class number n of `classes`, counted from 0",
    }


if __name__ == "__main__":
    main(run)
