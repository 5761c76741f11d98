"""Suggest which unlabeled images to label next, and draft their masks for you to correct.

It chooses the images about which the last model is most uncertain, groups in turn, and writes
suggest.csv and drafts/. The drafts hold your own mask values: correct one, and move it to your
masks. With --as, the drafts are polygons, in drafts-FORMAT/, which your program for labeling opens.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from dst_cbc.cli import Parser, main
from dst_cbc.own_images.draft_files import (
    FORMATS,
    DraftedImage,
    DraftFormat,
    images_folder,
    labels_of,
)
from dst_cbc.own_images.outlines import outlines
from dst_cbc.own_images.suggestions import COLUMNS, doubts, draft, draft_name, most_deserving
from dst_cbc.planning.models import PlannedModel
from dst_cbc.planning.plan import Plan, load_plan
from dst_cbc.runtime import escape
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.files import write_bytes
from dst_cbc.runtime.paths import inside
from dst_cbc.runtime.reading import read_ids
from dst_cbc.runtime.tables import write_csv
from dst_cbc.self_training.predictions import read_prediction, read_predictions
from dst_cbc.self_training.pseudo_labels import at_size

REPOSITORY = Path(__file__).resolve().parents[1]


def run() -> None:
    parser = Parser(__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="experiment file of a finished run")
    parser.add_argument("--count", type=int, default=20, help="number of images (default 20)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="folder to write (default: results/<study>/suggestions)",
    )
    parser.add_argument(
        "--as",
        dest="format",
        choices=("masks", *FORMATS),
        default="masks",
        help="write drafts as masks (default), or as polygons that this program opens",
    )
    arguments = parser.parse_args()
    experiment, records, plan = load_plan(REPOSITORY, [arguments.file], {})
    study = Path("results", experiment.name)
    model = last_predicted(plan, study, arguments.file)
    predictions = study / model.path / "predictions.h5"
    ids = read_ids(study / "splits" / f"{model.division}.unlabeled.txt")
    images = {record.id: record.image for record in records}
    # Images that have been deleted since are not to be labeled.
    found = doubts(read_predictions(predictions, ids), plan.dataset.group)
    known = [doubt for doubt in found if doubt.id in images]
    chosen = most_deserving(known, arguments.count)
    out, rows = arguments.out or study / "suggestions", []
    form = FORMATS.get(arguments.format)
    folder = f"drafts-{arguments.format}" if form else "drafts"
    drafted: list[DraftedImage] = []
    for rank, doubt in enumerate(chosen, 1):
        classes = native(read_prediction(predictions, doubt.row, doubt.id).classes, plan, doubt.id)
        image = images[doubt.id]
        if form:
            name = form.file.replace("{}", doubt.id)
            drafted.append(with_shapes(doubt.id, image, classes, plan, form))
        else:
            name = draft_name(doubt.id, experiment.pairs, image)
            write_draft(inside(out, f"{folder}/{name}"), draft(classes, plan.dataset))
        told = {"uncertainty": round(doubt.uncertainty, 4), "draft": f"{folder}/{name}"}
        rows.append({"rank": rank, "id": doubt.id, "image": image} | {"group": doubt.group, **told})
        print(escape.terminal(f"{rank:3}  {doubt.uncertainty:.3f}  {doubt.id}"))
    advice = write_shapes(out / folder, drafted, plan, form) if form and drafted else ""
    write_csv(out / "suggest.csv", COLUMNS, rows)
    print(f"written: {out}/suggest.csv and {out}/{folder}, from {predictions}")
    if advice:
        print(escape.terminal(f"to open the drafts: {advice}"))


def last_predicted(plan: Plan, study: Path, file: Path) -> PlannedModel:
    """Return the model of the last round that has been predicted. Raises DataError without one.

    Models of folds have seen fewer masks, so they are not asked.
    """
    shown = [model for model in plan.models.values() if not model.fold]
    found = [model for model in shown if (study / model.path / "predictions.h5").is_file()]
    if not found:
        raise DataError(f"{study}: no predictions.h5; run snakemake --configfile {file}")
    return max(found, key=lambda model: model.round)


def labels(plan: Plan) -> dict[int, str]:
    """Return the label of each class that becomes shapes, by the number of the class."""
    annotations = plan.dataset.annotations
    if annotations is None:
        return labels_of(plan.dataset.classes, {})
    return labels_of(plan.dataset.classes, annotations.names, annotations.unannotated)


def with_shapes(
    id: str, image: str, classes: np.ndarray, plan: Plan, form: DraftFormat
) -> DraftedImage:
    """Draft the shapes of an image. image: its path in the folder of the data set."""
    pairs = plan.experiment.pairs
    name = PurePosixPath(image).relative_to(pairs.images if pairs else ".").as_posix()
    path = Path(plan.experiment.data).resolve() / image
    shapes = outlines(classes, labels(plan), form.holes)
    height, width = classes.shape
    return DraftedImage(id, name, path, (width, height), shapes)


def write_shapes(
    folder: Path, drafted: Sequence[DraftedImage], plan: Plan, form: DraftFormat
) -> str:
    """Write the drafts as files of a program for labeling. Return how to open them there."""
    colours = list(plan.dataset.classes.values())
    texts = form.write(drafted, {label: colours[i] for i, label in labels(plan).items()})
    for name, text in texts.items():
        write_draft(inside(folder, name), text.encode())
    images = images_folder(drafted[0])
    return form.advice.format(folder=folder.absolute(), images=images, above=images.parent)


def write_draft(path: Path, content: bytes) -> None:
    """Write a draft. Raises DataError where it would replace another file: a corrected draft."""
    if path.is_file() and path.read_bytes() != content:
        raise DataError(
            f"{path}: exists, and is not the draft that would replace it; if you have corrected "
            "it, move it to your labels, otherwise delete it"
        )
    write_bytes(path, content)


def native(classes: np.ndarray, plan: Plan, id: str) -> np.ndarray:
    """Resize classes to the size of their image, if it was predicted at another size."""
    if not plan.experiment.prediction.size:
        return classes
    from dst_cbc.data.index import read_index

    row = read_index(Path("results", plan.experiment.name, "dataset.csv"))[id]
    return at_size(classes, (row.height, row.width))


if __name__ == "__main__":
    main(run)
