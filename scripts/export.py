"""Hand over a model: model.onnx, model.pt2 (torch.export) and model.md.

Both files take uint8 RGB (N, 3, H, W) of any size and give class numbers and their probabilities;
normalisation and resizing are inside. After they are written their masks are compared with
PyTorch's, on at most 20 images: less than 99.99 % equal pixels is an error. model.md says what the
model is, from what lies beside it.
"""

from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.data.index import read_index
from dst_cbc.runtime import devices
from dst_cbc.runtime.files import sha256_file, write_text


def run() -> None:
    parser = Parser(__doc__)
    parser.path("--model", "model.pt")
    parser.path("--out", "folder to write")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="PATH",
        help="folder of images to compare on (default: made-up ones of odd sizes)",
    )
    parser.add_argument(
        "--index",
        type=Path,
        metavar="PATH",
        help="dataset.csv: --images is the data set's folder, val of it is compared on",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    arguments = parser.parse_args()
    if arguments.index and not arguments.images:
        parser.error("--index goes with --images")
    devices.limit_threads(arguments.threads)
    import torch

    from dst_cbc.inference import export, folders
    from dst_cbc.models import segmentation
    from dst_cbc.report import model_card

    torch.set_num_threads(arguments.threads)
    model = segmentation.read_model(arguments.model)
    paths = None
    if arguments.index:
        rows = read_index(arguments.index).values()
        paths = [arguments.images / row.image for row in rows if row.subset == "val"]
    elif arguments.images:
        paths = list(folders.list_images(arguments.images, arguments.out).values())
    around, digest = model_card.surroundings(arguments.model), sha256_file(arguments.model)
    notes = export.notes(model, digest)
    export.write(model, arguments.out, notes)
    try:
        found = export.check(model, arguments.out, export.pictures(model, paths))
    except BaseException:
        # A file that was not found right must not lie there to be used.
        for name in (export.ONNX, export.PROGRAM):
            (arguments.out / name).unlink(missing_ok=True)
        raise
    kind = "real images" if paths else "made-up images"
    agreements = {name: f"{agreement} ({kind})" for name, agreement in found.items()}
    for name, agreement in agreements.items():
        print(f"{arguments.out / name}: {agreement}")
    text = model_card.card(
        model.settings, model.classes, model.window, model.record, digest, around, agreements
    )
    write_text(arguments.out / "model.md", text)


if __name__ == "__main__":
    main(run)
