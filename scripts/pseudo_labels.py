"""Write the pseudo labels of one round as indexed PNGs, their manifest and their quality.

The masks of unlabeled images, where there are any, are compared with: accuracy columns of the
manifest, and <folder>.quality.csv by class. They decide nothing.
"""

import numpy as np
from tqdm import tqdm

from dst_cbc.command import Parser, main
from dst_cbc.files import DataError, read_ids
from dst_cbc.images import label_table, open_label
from dst_cbc.index import read_index, rows_of
from dst_cbc.predictions import read_predictions
from dst_cbc.pseudo_labels import write_manifest, write_pseudo_labels, write_quality
from dst_cbc.settings import DatasetStage
from dst_cbc.thresholds import read_levels


def run() -> None:
    parser = Parser(__doc__)
    parser.settings(DatasetStage)
    parser.path("--data", "folder of the data set")
    parser.path("--index", "dataset.csv")
    parser.path("--unlabeled", "list of predicted ids")
    parser.path("--predictions", "predictions.h5")
    parser.path("--thresholds", "thresholds.csv, or the copy that you edited")
    parser.path("--out", "folder of the PNGs; <folder>.csv and .quality.csv are written beside it")
    arguments = parser.parse_args()
    dataset, rows = arguments.settings, read_index(arguments.index)
    table, names = label_table(dataset), list(dataset.classes)

    def truth(id: str) -> np.ndarray | None:
        if not rows[id].label:
            return None
        try:
            return np.asarray(open_label(arguments.data / rows[id].label, table))
        except DataError as error:
            print(f"no accuracy: {error}")
            return None

    ids = read_ids(arguments.unlabeled)
    rows_of(rows, ids, arguments.unlabeled)
    levels = read_levels(arguments.thresholds, names)
    quality = np.zeros((len(names), len(names) + 1), np.int64)
    labeled = write_pseudo_labels(
        arguments.out,
        tqdm(read_predictions(arguments.predictions, ids), "label", len(ids), disable=None),
        levels,
        list(dataset.classes.values()),
        truth,
        quality,
    )
    write_manifest(arguments.out.with_suffix(".csv"), labeled, names)
    write_quality(arguments.out.with_suffix(".quality.csv"), quality, names)
    print(f"{len(ids)} pseudo labels by {arguments.thresholds}")


if __name__ == "__main__":
    main(run)
