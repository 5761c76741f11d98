"""Evaluate the best model of a chain and the model after the last step on the reported subsets.

A model from elsewhere has no last step; then only `best` is evaluated. The confusion matrix of
each image goes to a file of its own, so that two models can be compared image by image.
"""

from pathlib import Path
from typing import Any

import numpy as np

from dst_cbc.cli import Parser, main
from dst_cbc.data.index import read_index
from dst_cbc.inference.confusions import Confusions, write_confusions
from dst_cbc.inference.metrics import report
from dst_cbc.inference.paired import resampling_groups
from dst_cbc.runtime import devices, gpu_locks
from dst_cbc.runtime.files import write_json
from dst_cbc.settings.stages import EvaluateStage


def run() -> None:
    parser = Parser(__doc__)
    parser.settings(EvaluateStage)
    parser.path("--data", "folder of the data set")
    parser.path("--index", "dataset.csv")
    parser.path("--model", "model.pt, the best model of the chain")
    parser.add_argument(
        "--last",
        type=Path,
        nargs="?",
        metavar="PATH",
        help="last.pt, the model after the last step (default: none)",
    )
    parser.path("--out", "metrics.json to write")
    parser.path("--confusions", "confusions.csv to write")
    parser.device()
    arguments = parser.parse_args()
    stage = arguments.settings
    devices.limit_threads(stage.compute_threads)
    gpu_locks.take(arguments.device)
    from dst_cbc.models import segmentation

    rows = list(read_index(arguments.index).values())
    device = devices.prepare(arguments.device, stage)
    metrics, confusions, reached = {}, {}, {}
    for checkpoint, path in (("best", arguments.model), ("last", arguments.last)):
        if path is None:
            continue
        model = segmentation.read_model(path, device)
        segmentation.require_classes(str(path), model, stage.dataset.classes)
        record = model.record
        origin = (record["round"], record["step"]) if record else path
        if origin not in reached:
            reached[origin] = {
                subset: _evaluated(model, arguments, stage, rows, subset, device)
                for subset in stage.report
            }
        figures = {
            subset: _figures(found, stage, rows, list(model.classes))
            for subset, found in reached[origin].items()
        }
        metrics[checkpoint] = {**record, "subsets": figures}
        confusions |= {(checkpoint, subset): one for subset, one in reached[origin].items()}
        for subset, one in figures.items():
            accuracy = one["pixel_accuracy"]
            print(f"{checkpoint}, {subset}: mIoU {one['miou']} %, pixel accuracy {accuracy} %")
    write_confusions(arguments.confusions, confusions)
    write_json(arguments.out, metrics)


def _evaluated(model, arguments, stage: EvaluateStage, rows, subset: str, device) -> Confusions:
    from dst_cbc.inference import whole_images

    held_out = {*stage.held_out}
    chosen = [row for row in rows if (row.id in held_out if held_out else row.subset == subset)]
    with devices.explain_out_of_memory("evaluation.batch or evaluation.tile"):
        each = whole_images.evaluate_each(
            model, arguments.data, chosen, stage.dataset, stage, device, arguments.workers
        )
        matrices = np.array(list(each), np.int64)
        # Of no image, too: with folds, a study may have neither val nor test.
        matrices = matrices.reshape(-1, *(len(model.classes),) * 2)
        return Confusions([row.id for row in chosen], matrices)


def _figures(found: Confusions, stage: EvaluateStage, rows, classes: list[str]) -> dict[str, Any]:
    groups = resampling_groups(found.ids, [row.id for row in rows], stage.dataset.group)
    return {"images": len(found.ids), **report(found.matrices, classes, groups)}


if __name__ == "__main__":
    main(run)
