"""Export a model: write model.onnx, model.pt2 (torch.export) and model.md.

Both exported models take uint8 RGB (N, 3, H, W) of any size and return class numbers and their
probabilities; normalisation and resizing are included. The command then compares their masks with
PyTorch's masks on at most 20 images, and fails if less than 99.99 % of the pixels are equal.
model.md describes the model, from the files beside it.
"""

from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.data.index import read_index
from dst_cbc.runtime import devices
from dst_cbc.runtime.files import sha256_file, write_text


def run() -> None:
    parser = Parser(__doc__)
    parser.model()
    parser.path("--out", "folder for the exported files")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="PATH",
        help="folder of images for the comparison (default: made-up images of odd sizes)",
    )
    parser.add_argument(
        "--index",
        type=Path,
        metavar="PATH",
        help="dataset.csv; compare on its val images, with the data set's folder as --images",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    arguments = parser.parse_args()
    if arguments.index and not arguments.images:
        parser.error("--index needs --images, the data set's folder")
    devices.limit_threads(arguments.threads)
    import torch

    from dst_cbc.inference import export, folders
    from dst_cbc.models import segmentation
    from dst_cbc.report import model_card

    torch.set_num_threads(arguments.threads)
    model = segmentation.read_model(arguments.model)
    images = {}
    if arguments.index:
        rows = [row for row in read_index(arguments.index).values() if row.subset == "val"]
        images = {arguments.images / row.image: row.image_sha256 for row in rows}
    elif arguments.images:
        images = dict.fromkeys(folders.list_images(arguments.images, arguments.out).values())
    around, digest = model_card.surroundings(arguments.model), sha256_file(arguments.model)
    notes = export.notes(model, digest)
    export.write(model, arguments.out, notes)
    try:
        found = export.check(model, arguments.out, export.pictures(model, images))
    except BaseException:
        # A file that did not pass the comparison must not be used.
        for name in (export.ONNX, export.PROGRAM):
            (arguments.out / name).unlink(missing_ok=True)
        raise
    kind = "real images" if images else "made-up images"
    agreements = {name: f"{agreement} ({kind})" for name, agreement in found.items()}
    for name, agreement in agreements.items():
        print(f"{arguments.out / name}: {agreement}")
    text = model_card.card(
        model.settings,
        model.classes,
        model.window,
        model.record,
        digest,
        around,
        agreements,
        model.bands,
    )
    write_text(arguments.out / "model.md", text)


if __name__ == "__main__":
    main(run)
