"""Make a page to browse the unlabeled images of a method, round by round.

The page is one HTML file that needs no network. agreement.csv has a row for every image and round:
how many pixels are labeled, how far they agree with the round before, and the model's confidence.
"""

from pathlib import Path

from tqdm import tqdm

from dst_cbc.cli import Parser, main
from dst_cbc.data.index import read_index, rows_of
from dst_cbc.report.agreement import measure, round_in, write_agreement
from dst_cbc.report.gallery import gallery
from dst_cbc.runtime.files import write_text
from dst_cbc.runtime.reading import read_ids
from dst_cbc.self_training.pseudo_labels import require_unchanged_beside
from dst_cbc.settings.data import DatasetStage


def run() -> None:
    parser = Parser(__doc__)
    parser.settings(DatasetStage)
    parser.path("--data", "folder of the data set")
    parser.path("--index", "dataset.csv")
    parser.path("--unlabeled", "list of the ids of the unlabeled images")
    parser.path("--rounds", "folders of the rounds, e.g. results/demo/12_0/st/round1", nargs="+")
    parser.add_argument(
        "--predictions", type=Path, nargs="+", metavar="PATH",
        help="predictions.h5 that the labels of each round were made from, which may be deleted "
        "(default: as settings.json of the round says)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-predictions", default="all", choices=("all", "supervised"),
        help="supervised: ignore predictions of round 1 and later, which are deleted after use",
    )  # fmt: skip
    parser.path("--agreement", "agreement.csv to write")
    parser.path("--out", "gallery.html to write")
    arguments = parser.parse_args()
    rows = rows_of(read_index(arguments.index), read_ids(arguments.unlabeled), arguments.unlabeled)
    rounds = [
        round_in(folder, arguments.keep_predictions == "all", predictions)
        for folder, predictions in zip(
            arguments.rounds, arguments.predictions or [None] * len(arguments.rounds), strict=True
        )
    ]
    for one in rounds:
        require_unchanged_beside(one.labels, list(arguments.settings.classes))
    measured = list(tqdm(measure(rounds, rows), "compare", len(rows), unit="image", disable=None))
    write_agreement(arguments.agreement, (one for image in measured for one in image))
    # Study, split and method, as in the path.
    title = "/".join(arguments.rounds[0].parent.parts[-3:])
    write_text(
        arguments.out,
        gallery(title, arguments.settings, arguments.data, rows, rounds, measured),
    )
    print(arguments.out)


if __name__ == "__main__":
    main(run)
