"""Write the pseudo labels of one round as indexed PNGs, their manifest and their quality.

The PNGs have the size at which the images were predicted. If unlabeled images have masks, the
pseudo labels are compared with them, resized to the pseudo labels: see the accuracy columns of the
manifest, and <folder>.quality.csv by class. The masks do not influence the pseudo labels.
With --shard, only the images of one shard are labeled. With --join, the files of all shards are
joined and nothing is labeled. The resulting files are the same as without shards.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dst_cbc.cli import Parser, main
from dst_cbc.data.index import Row, ground_truth, read_index, rows_of
from dst_cbc.data.masks import label_table
from dst_cbc.runtime import devices, gpu_locks
from dst_cbc.runtime.reading import read_ids
from dst_cbc.self_training.predictions import images_of_shard, read_predictions
from dst_cbc.self_training.pseudo_labels import (
    Labeled,
    join_shards,
    label_pixels,
    write_manifest,
    write_pseudo_labels,
    write_quality,
    write_shard,
)
from dst_cbc.self_training.thresholds import read_cutoffs, read_thresholds
from dst_cbc.settings.stages import LabelStage

Labels = Iterator[tuple[str, np.ndarray]]


def parse():
    parser = Parser(__doc__)
    parser.settings(LabelStage)
    parser.path("--data", "folder of the data set")
    parser.path("--index", "dataset.csv")
    parser.path("--unlabeled", "list of predicted ids")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--predictions", type=Path, metavar="PATH", help="predictions.h5, for rule `threshold`"
    )
    source.add_argument(
        "--model", type=Path, metavar="PATH",
        help="model.pt, for rule `normalized`, which needs the probabilities of all classes",
    )  # fmt: skip
    parser.path("--thresholds", "thresholds.csv, or an edited copy of it")
    parser.path("--out", "folder of the PNGs; <folder>.csv and .quality.csv are written beside it")
    parser.shard()
    parser.add_argument(
        "--join",
        type=Path,
        nargs="*",
        metavar="PATH",
        help="only join the folders of all shards, in order",
    )
    parser.device()
    arguments = parser.parse_args()
    if arguments.model and not arguments.settings.inference:
        parser.error("--model: the settings have no key `inference`, which says how it runs")
    return arguments


def run() -> None:
    arguments = parse()
    names = list(arguments.settings.classes)
    if arguments.join:
        labeled, quality = join_shards(arguments.join, arguments.out, names)
    else:
        quality = np.zeros((len(names), len(names) + 1), np.int64)
        labeled = label(arguments, quality)
    if arguments.shard == [1, 1]:
        write_manifest(arguments.out.with_suffix(".csv"), labeled, names)
        write_quality(arguments.out.with_suffix(".quality.csv"), quality, names)
    else:
        write_shard(arguments.out, labeled, names, quality)
    print(f"pseudo labels written with {arguments.thresholds}")


def label(arguments, quality: np.ndarray) -> Iterator[Labeled]:
    """Write the PNGs one by one and yield their manifest rows; adds counts to `quality`."""
    dataset, rows = arguments.settings, read_index(arguments.index)
    table, names = label_table(dataset), list(dataset.classes)
    masks = dataset.mask_root(arguments.data)
    ids = read_ids(arguments.unlabeled)
    mine = images_of_shard(len(ids), *arguments.shard)
    ids = ids[mine]
    unlabeled = rows_of(rows, ids, arguments.unlabeled)
    found = _normalized(arguments, unlabeled, names) if arguments.model else _by_threshold(
        arguments, ids, names, mine.start
    )  # fmt: skip
    return write_pseudo_labels(
        arguments.out,
        tqdm(found, "label", len(ids), disable=None),
        list(dataset.classes.values()),
        lambda name: ground_truth(masks, rows[name], table),
        quality,
        dataset.resampling,
    )


def _by_threshold(arguments, ids: list[str], names: list[str], first: int) -> Labels:
    cutoffs = read_cutoffs(arguments.thresholds, names)
    for prediction in read_predictions(arguments.predictions, ids, first):
        yield prediction.id, label_pixels(prediction, cutoffs)


def _normalized(arguments, rows: list[Row], names: list[str]) -> Labels:
    stage = arguments.settings.inference
    thresholds = read_thresholds(arguments.thresholds, names)
    devices.limit_threads(stage.compute_threads)
    gpu_locks.take(arguments.device)
    from dst_cbc.models import segmentation
    from dst_cbc.self_training.predict import normalized_labels

    device = devices.prepare(arguments.device, stage)
    model = segmentation.read_model(arguments.model, device)
    with devices.explain_out_of_memory("evaluation.batch or evaluation.tile"):
        yield from normalized_labels(
            model, arguments.data, rows, thresholds, stage, device, arguments.workers
        )


if __name__ == "__main__":
    main(run)
