"""Compare what a person with 30 masks gets: the recommended model, the last round, labels alone.

`make` cuts frames of CamVid into halves: 600 to train on, 30 of them with a mask, and 202 that are
kept apart. The studies are experiment files, which Snakemake runs. `judge` evaluates the model that
each study hands over on the halves that were kept apart, and writes the table.
"""

import argparse
import csv
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from measure import REPOSITORY, SCRIPTS

sys.path.insert(0, str(SCRIPTS))

from dst_cbc.data.index import Row
from dst_cbc.data.layouts.camvid import CLASSES
from dst_cbc.data.masks import write_indexed_png
from dst_cbc.report.summary import folder_of, read_summary
from dst_cbc.runtime.files import sha256_file
from dst_cbc.runtime.reading import read_json
from dst_cbc.settings.stages import ModelSettings

FRAMES, BLOCK = 300, 20
"""Frames of CamVid's train subset, in the order of their names, and halves in a block.

The other frames touch those that are kept apart in time. One half of each block has a mask, as if a
person labels every twentieth picture.
"""
COLUMNS = ["procedure", "seed", "masks", "steps", "model", "mIoU %"]


def halves(path: Path) -> Iterator[Image.Image]:
    with Image.open(path) as image:
        width, height = image.size
        for left in (0, width // 2):
            yield image.crop((left, 0, left + width // 2, height))


def make(camvid: Path, out: Path, seeds: int) -> None:
    """Write out/seed<k>/photos and masks, and out/judge/photos and masks."""

    def write(name: str, number: int, side: int, folder: Path, source: str, masked: bool) -> None:
        stem = f"scene_{number + 1:04}"
        photo, mask = ([*halves(camvid / f"{source}{kind}" / name)][side] for kind in ("", "annot"))
        (folder / "photos").mkdir(parents=True, exist_ok=True)
        photo.save(folder / f"photos/{stem}.png")
        if masked:
            write_indexed_png(folder / f"masks/{stem}.png", np.asarray(mask), CLASSES)

    def names(source: str) -> list[str]:
        return sorted(path.name for path in (camvid / source).glob("*.png"))

    trained = [(name, side) for name in names("train")[:FRAMES] for side in (0, 1)]
    for seed in range(seeds):
        draw = random.Random(seed)
        labeled = {first + draw.randrange(BLOCK) for first in range(0, len(trained), BLOCK)}
        for number, (name, side) in enumerate(trained):
            write(name, number, side, out / f"seed{seed}", "train", number in labeled)
    apart = [(name, side) for name in names("val") for side in (0, 1)]
    for number, (name, side) in enumerate(apart):
        write(name, number, side, out / "judge", "val", True)


def judge(apart: Path, studies: Sequence[Path], out: Path) -> None:
    """Write a row for each study, named <procedure>-<seed>, and one with the mean of its seeds."""
    rows = [judged(apart, study) for study in sorted(studies)]
    found = []
    for procedure, seeds in groupby(rows, lambda row: row["procedure"]):
        of_seeds = [*seeds]
        mean = statistics.fmean(row["mIoU %"] for row in of_seeds)
        found += [*of_seeds, {"procedure": procedure, "seed": "mean", "mIoU %": mean}]
    with open(out, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "mIoU %": f"{row['mIoU %']:.2f}"} for row in found)


def judged(apart: Path, study: Path) -> dict[str, Any]:
    """The row of a study: of the model that it recommends, else of its last step."""
    import torch

    from dst_cbc.inference.metrics import mean_iou
    from dst_cbc.inference.whole_images import evaluate
    from dst_cbc.models.segmentation import read_model

    procedure, _, seed = study.name.rpartition("-")
    said = study / "recommendation.json"
    recommended = read_json(said)["model"] if said.is_file() else None
    row = max(
        (row for row in read_summary(study / "summary.csv") if row["miou"] is not None),
        key=lambda row: (folder_of(row).as_posix() == recommended, row["round"]),
    )
    folder = folder_of(row).as_posix()
    path = study / folder / ("model.pt" if recommended else "last.pt")
    stage = ModelSettings.model_validate(read_json(study / folder / "settings.json"))
    model, device = read_model(path), torch.device("cpu")
    torch.set_num_threads(stage.train.compute_threads)
    images = [row_of(apart, photo) for photo in sorted((apart / "photos").glob("*.png"))]
    found = evaluate(model, apart, images, stage.dataset, stage.train.validation, device)
    return {
        "procedure": procedure,
        "seed": seed,
        "masks": row["labeled"],
        "steps": row["steps"],
        "model": folder.partition("/")[2],
        "mIoU %": 100 * mean_iou(found),
    }


def row_of(apart: Path, photo: Path) -> Row:
    mask = apart / "masks" / photo.name
    width, height = Image.open(photo).size
    paths = (f"photos/{photo.name}", f"masks/{photo.name}")
    return Row(photo.stem, *paths, height, width, "test", sha256_file(photo), sha256_file(mask))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="cut the frames and write the folders")
    making.add_argument("camvid", type=Path, help="CamVid, as `snakemake download_camvid` has it")
    making.add_argument("out", type=Path, help="folder to write")
    making.add_argument("--seeds", type=int, default=3, help="sets of masks (default 3)")
    judging = commands.add_parser("judge", help="evaluate what the studies hand over")
    judging.add_argument("made", type=Path, help="the folder that `make` wrote")
    judging.add_argument("studies", type=Path, nargs="+", help="results/<procedure>-<seed>, …")
    judging.add_argument("--out", type=Path, default=REPOSITORY / "docs/results/choose.csv")
    arguments = parser.parse_args()
    if arguments.command == "make":
        make(arguments.camvid, arguments.out, arguments.seeds)
    else:
        judge(arguments.made / "judge", arguments.studies, arguments.out)


if __name__ == "__main__":
    main()
