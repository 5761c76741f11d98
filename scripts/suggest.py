"""Suggest which unlabeled images to label next, and draft their masks for you to correct.

It chooses the images about which the last model is most uncertain, groups in turn, and writes
suggest.csv and drafts/. The drafts hold your own mask values: correct one, and move it to your
masks.
"""

from pathlib import Path

import numpy as np

from dst_cbc.cli import Parser, main
from dst_cbc.own_images.suggestions import COLUMNS, doubts, draft, draft_name, most_deserving
from dst_cbc.planning.plan import load_plan
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
    arguments = parser.parse_args()
    experiment, records, plan = load_plan(REPOSITORY, [arguments.file], {})
    study = Path("results", experiment.name)
    found = [m for m in plan.models.values() if (study / m.path / "predictions.h5").is_file()]
    if not found:
        raise DataError(f"{study}: no predictions.h5; run snakemake --configfile {arguments.file}")
    model = max(found, key=lambda model: model.round)
    predictions = study / model.path / "predictions.h5"
    ids = read_ids(study / "splits" / f"{model.division}.unlabeled.txt")
    images = {record.id: record.image for record in records}
    group = experiment.pairs.group if experiment.pairs else None
    chosen = most_deserving(doubts(read_predictions(predictions, ids), group), arguments.count)
    out, rows = arguments.out or study / "suggestions", []
    for rank, doubt in enumerate(chosen, 1):
        classes = read_prediction(predictions, doubt.row, doubt.id).classes
        image = images.get(doubt.id, "")
        name = f"drafts/{draft_name(doubt.id, experiment.pairs, image)}"
        write_bytes(inside(out, name), draft(native(classes, plan, doubt.id), plan.dataset))
        told = {"uncertainty": round(doubt.uncertainty, 4), "draft": name}
        rows.append({"rank": rank, "id": doubt.id, "image": image} | {"group": doubt.group, **told})
        print(escape.terminal(f"{rank:3}  {doubt.uncertainty:.3f}  {doubt.id}"))
    write_csv(out / "suggest.csv", COLUMNS, rows)
    print(f"written: {out}/suggest.csv and {out}/drafts, from {predictions}")


def native(classes: np.ndarray, plan, id: str) -> np.ndarray:
    """Resize classes to the size of their image, if it was predicted at another size."""
    if not plan.experiment.prediction.size:
        return classes
    from dst_cbc.data.index import read_index

    row = read_index(Path("results", plan.experiment.name, "dataset.csv"))[id]
    return at_size(classes, (row.height, row.width))


if __name__ == "__main__":
    main(run)
