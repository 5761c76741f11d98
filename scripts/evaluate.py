"""Evaluate the best model of a chain and the model after the last step on the reported subsets.

A model from elsewhere has no last step; then only `best` is evaluated.
"""

from pathlib import Path

import numpy as np

from dst_cbc.cli import Parser, main
from dst_cbc.data.index import read_index
from dst_cbc.inference.metrics import report
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
    parser.device()
    arguments = parser.parse_args()
    stage = arguments.settings
    devices.limit_threads(stage.compute_threads)
    gpu_locks.take(arguments.device)
    from dst_cbc.models import segmentation

    rows = list(read_index(arguments.index).values())
    device = devices.prepare(arguments.device, stage)
    metrics, reached = {}, {}
    for checkpoint, path in (("best", arguments.model), ("last", arguments.last)):
        if path is None:
            continue
        model = segmentation.read_model(path, device)
        segmentation.require_classes(str(path), model, stage.dataset.classes)
        record = model.record
        origin = (record["round"], record["step"]) if record else path
        if origin not in reached:
            reached[origin] = {
                subset: _report(model, arguments, stage, rows, subset, device)
                for subset in stage.report
            }
        metrics[checkpoint] = {**record, "subsets": reached[origin]}
    write_json(arguments.out, metrics)


def _report(model, arguments, stage: EvaluateStage, rows, subset: str, device) -> dict:
    from dst_cbc.inference import whole_images

    chosen = [row for row in rows if row.subset == subset]
    with devices.explain_out_of_memory("evaluation.batch or evaluation.tile"):
        confusions = whole_images.evaluate_each(
            model, arguments.data, chosen, stage.dataset, stage, device, arguments.workers
        )
        figures = report(np.array(list(confusions)), list(stage.dataset.classes))
    print(f"{subset}: mIoU {figures['miou']} %, pixel accuracy {figures['pixel_accuracy']} %")
    return {"images": len(chosen), **figures}


if __name__ == "__main__":
    main(run)
