"""Fail if a method's mean gain over its supervised baseline is below a minimum."""

from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.report.summary import read_summary
from dst_cbc.runtime.errors import DataError


def run() -> None:
    parser = Parser(__doc__)
    parser.add_argument("summary", type=Path, metavar="SUMMARY", help="summary.csv of a study")
    parser.add_argument("--method", required=True, help="method to check; its last round counts")
    parser.add_argument("--subset", required=True, help="subset on which the gain is measured")
    parser.add_argument(
        "--points", type=float, required=True, help="minimum mean gain, in points of mIoU"
    )
    arguments = parser.parse_args()
    rows = [
        row
        for row in read_summary(arguments.summary)
        if (row["method"], row["subset"], row["checkpoint"])
        == (arguments.method, arguments.subset, "best")
    ]
    last = max((row["round"] for row in rows), default=0)
    gains = [row["gain"] for row in rows if row["round"] == last]
    gain = sum(gains) / len(gains) if gains and None not in gains else float("nan")
    print(f"{arguments.method}, round {last}, {arguments.subset}: gain {gain:.2f} points")
    # `not >=` instead of `<`: NaN (a missing run) must fail, too.
    if not gain >= arguments.points:
        raise DataError(
            f"{arguments.summary}: gain {gain:.2f}, expected at least {arguments.points}"
        )


if __name__ == "__main__":
    main(run)
