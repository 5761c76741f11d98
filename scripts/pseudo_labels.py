"""Write the pseudo labels of one round as indexed PNGs, their manifest and their quality.

The masks of unlabeled images, where there are any, are compared with: accuracy columns of the
manifest, and <folder>.quality.csv by class. They decide nothing.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dst_cbc import devices, free_gpus
from dst_cbc.command import Parser, main, read_settings
from dst_cbc.files import read_ids
from dst_cbc.images import label_table
from dst_cbc.index import Row, ground_truth, read_index, rows_of
from dst_cbc.predictions import read_predictions
from dst_cbc.pseudo_labels import (
    at_size,
    label_pixels,
    write_manifest,
    write_pseudo_labels,
    write_quality,
)
from dst_cbc.settings import DatasetStage, PredictStage
from dst_cbc.thresholds import read_levels, read_thresholds

Labels = Iterator[tuple[str, np.ndarray]]


def run() -> None:
    parser = Parser(__doc__)
    parser.settings(DatasetStage)
    parser.path("--data", "folder of the data set")
    parser.path("--index", "dataset.csv")
    parser.path("--unlabeled", "list of predicted ids")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--predictions", type=Path, metavar="PATH", help="predictions.h5; rule `threshold`"
    )
    source.add_argument(
        "--model", type=Path, metavar="PATH",
        help="model.pt, for rule `normalized`, which needs the probabilities of all classes",
    )  # fmt: skip
    parser.add_argument(
        "--inference", metavar="JSON", help="with --model: settings of the pass as JSON"
    )
    parser.path("--thresholds", "thresholds.csv, or the copy that you edited")
    parser.path("--out", "folder of the PNGs; <folder>.csv and .quality.csv are written beside it")
    parser.device()
    arguments = parser.parse_args()
    dataset, rows = arguments.settings, read_index(arguments.index)
    table, names = label_table(dataset), list(dataset.classes)

    ids = read_ids(arguments.unlabeled)
    unlabeled = rows_of(rows, ids, arguments.unlabeled)
    found = _normalized(arguments, unlabeled, names) if arguments.model else _by_threshold(
        arguments, ids, names
    )  # fmt: skip
    native = ((id, at_size(labels, (rows[id].height, rows[id].width))) for id, labels in found)
    quality = np.zeros((len(names), len(names) + 1), np.int64)
    labeled = write_pseudo_labels(
        arguments.out,
        tqdm(native, "label", len(ids), disable=None),
        list(dataset.classes.values()),
        lambda name: ground_truth(arguments.data, rows[name], table),
        quality,
    )
    write_manifest(arguments.out.with_suffix(".csv"), labeled, names)
    write_quality(arguments.out.with_suffix(".quality.csv"), quality, names)
    print(f"{len(ids)} pseudo labels by {arguments.thresholds}")


def _by_threshold(arguments, ids: list[str], names: list[str]) -> Labels:
    levels = read_levels(arguments.thresholds, names)
    for prediction in read_predictions(arguments.predictions, ids):
        yield prediction.id, label_pixels(prediction, levels)


def _normalized(arguments, rows: list[Row], names: list[str]) -> Labels:
    stage = read_settings(PredictStage, arguments.inference)
    thresholds = read_thresholds(arguments.thresholds, names)
    devices.limit_threads(stage.compute_threads)
    free_gpus.take(arguments.device)
    from dst_cbc import inference, models

    device = devices.prepare(arguments.device, stage)
    model = models.read_model(arguments.model, device)
    with devices.memory_in_words("evaluation.batch or evaluation.tile"):
        yield from inference.normalized_labels(
            model, arguments.data, rows, thresholds, stage, device, arguments.workers
        )


if __name__ == "__main__":
    main(run)
