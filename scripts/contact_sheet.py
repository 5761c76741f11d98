"""Draw a contact sheet of one round: images beside their masks, predictions and pseudo labels.

The sheet is a JPEG of at most twelve unlabeled images, evenly spaced by their ids.
"""

from dst_cbc.cli import Parser, main
from dst_cbc.data.index import read_index, rows_of
from dst_cbc.report.contact_sheet import choose, contact_sheet, write
from dst_cbc.runtime.reading import read_ids
from dst_cbc.self_training.pseudo_labels import require_unchanged_beside
from dst_cbc.settings.data import DatasetStage


def run() -> None:
    parser = Parser(__doc__)
    parser.settings(DatasetStage)
    parser.path("--data", "folder of the data set")
    parser.path("--index", "dataset.csv")
    parser.path("--unlabeled", "list of the ids of the unlabeled images")
    parser.path("--predictions", "predictions.h5 that the labels were made from")
    parser.path("--labels", "folder of the round's PNGs, with its manifest <folder>.csv beside it")
    parser.path("--out", "contact_sheet.jpg to write")
    arguments = parser.parse_args()
    rows = rows_of(read_index(arguments.index), read_ids(arguments.unlabeled), arguments.unlabeled)
    shown = {rows[place].id for place in choose([row.id for row in rows])}
    require_unchanged_beside(arguments.labels, list(arguments.settings.classes), shown)
    # Split, method and round, as in the path.
    title = "/".join(arguments.labels.parent.parts[-3:])
    sheet = contact_sheet(
        title, arguments.settings, arguments.data, rows, arguments.predictions, arguments.labels
    )
    write(arguments.out, sheet)
    print(arguments.out)


if __name__ == "__main__":
    main(run)
