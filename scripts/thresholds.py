"""Compute the confidence threshold of each class from the histogram of a prediction."""

from dst_cbc.cli import Parser, main
from dst_cbc.self_training.predictions import read_histogram
from dst_cbc.self_training.thresholds import missed_shares, thresholds, write_thresholds
from dst_cbc.settings.stages import ThresholdStage


def run() -> None:
    parser = Parser(__doc__)
    parser.settings(ThresholdStage)
    parser.path("--histogram", "histogram.npz")
    parser.add_argument(
        "--classes", nargs="+", required=True, metavar="NAME", help="class names, in order"
    )
    parser.path("--out", "thresholds.csv to write")
    arguments = parser.parse_args()
    stage, counts = arguments.settings, read_histogram(arguments.histogram)
    rows = thresholds(counts, arguments.classes, stage.alpha, stage.balance, stage.sampling)
    write_thresholds(arguments.out, rows)
    for row in rows:
        share = "never predicted" if row.kept_fraction is None else f"kept {row.kept_fraction:.4f}"
        print(f"{row.name}: {share}")
    counted = ((row.name, row.pixels, row.kept) for row in rows)
    for sentence in missed_shares(counted, stage.alpha, stage.balance):
        print(f"WARNING: {sentence}")


if __name__ == "__main__":
    main(run)
