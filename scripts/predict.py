"""Predict the unlabeled images once: class and confidence of every pixel, and their histogram.

With --shard, only the images of one shard are predicted. With --join, the files of all shards are
joined and nothing is predicted. The resulting files are the same as without shards.
"""

from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.data.index import read_index, rows_of, used_files
from dst_cbc.runtime import checksums, devices, gpu_locks, signals
from dst_cbc.runtime.files import digest
from dst_cbc.runtime.reading import read_ids
from dst_cbc.runtime.resume import resume_folder
from dst_cbc.self_training import confidence, predictions
from dst_cbc.settings.stages import PredictStage


def parse():
    parser = Parser(__doc__)
    parser.settings(PredictStage)
    parser.path("--data", "folder of the data set")
    parser.path("--index", "dataset.csv")
    parser.path("--unlabeled", "list of ids to predict")
    parser.path("--model", "model.pt")
    parser.path("--predictions", "HDF5 file to write")
    parser.path("--histogram", ".npz file to write: pixels per class and confidence level")
    parser.path("--resume", "folder for the parts of an unfinished pass")
    parser.shard()
    parser.add_argument(
        "--join",
        type=Path,
        nargs="*",
        metavar="PATH",
        help="only join the HDF5 files of all shards, in order",
    )
    parser.device()
    return parser.parse_args()


def run() -> None:
    arguments = parse()
    signals.listen()
    attributes = {
        "model_sha256": checksums.sha256_of(arguments.model),
        "confidence": (confidence.__doc__ or "").splitlines()[0],
        "asinh_log_odds_lowest": confidence.LOWEST,
        "asinh_log_odds_highest": confidence.HIGHEST,
    }
    if arguments.join:
        counts = predictions.join(arguments.join, arguments.predictions, attributes)
        predictions.write_histogram(arguments.histogram, counts)
    else:
        predict(arguments, attributes)


def predict(arguments, attributes: dict[str, str | float]) -> None:
    stage = arguments.settings
    index = read_index(arguments.index)
    rows = rows_of(index, read_ids(arguments.unlabeled), arguments.unlabeled)
    fingerprint = digest(
        [stage.canonical(), str(attributes["model_sha256"]), used_files(rows, False)]
    )
    job = f"prediction of {arguments.predictions}"
    with (
        resume_folder(arguments.resume, fingerprint, job) as work,
        devices.explain_out_of_memory("evaluation.batch or evaluation.tile"),
    ):
        # torch reads the number of threads once, when it is imported.
        devices.limit_threads(stage.compute_threads)
        gpu_locks.take(arguments.device)
        from tqdm import tqdm

        from dst_cbc.models import segmentation
        from dst_cbc.self_training.predict import predict_part

        device = devices.prepare(arguments.device, stage)
        model = segmentation.read_model(arguments.model, device)
        parts = predictions.parts_of_shard(len(rows), *arguments.shard)
        for part in tqdm(parts, "predict", unit="part", disable=None):
            work.refresh()
            if predictions.part_is_closed(work.folder, part):
                continue
            predict_part(
                model, arguments.data, rows, part, work.folder, stage, device, arguments.workers
            )
        work.require_held()
        counts = predictions.join_parts(
            work.folder, parts.stop, arguments.predictions, attributes, parts.start
        )
        predictions.write_histogram(arguments.histogram, counts)
    print(f"{len(parts)} parts of {predictions.PART_IMAGES} images, {counts.sum()} pixels")


if __name__ == "__main__":
    main(run)
