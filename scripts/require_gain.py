"""Fail when a method gains less over its supervised baseline than it should."""

from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.report.summary import COLUMNS
from dst_cbc.runtime.files import DataError, read_csv


def run() -> None:
    parser = Parser(__doc__)
    parser.add_argument("summary", type=Path, metavar="SUMMARY", help="summary.csv of a study")
    parser.add_argument("--method", required=True, help="its last round counts")
    parser.add_argument("--subset", required=True, help="subset that is reported")
    parser.add_argument(
        "--points", type=float, required=True, help="least mean gain, points of mIoU"
    )
    arguments = parser.parse_args()
    rows = [
        row
        for row in read_csv(arguments.summary, COLUMNS)
        if (row["method"], row["subset"], row["checkpoint"])
        == (arguments.method, arguments.subset, "best")
    ]
    last = max((int(row["round"]) for row in rows), default=0)
    gains = [float(row["gain"] or "nan") for row in rows if int(row["round"]) == last]
    gain = sum(gains) / len(gains) if gains else float("nan")
    print(f"{arguments.method}, round {last}, {arguments.subset}: gain {gain:.2f} points")
    # Written so that NaN, a missing run, fails too.
    if not gain >= arguments.points:
        raise DataError(
            f"{arguments.summary}: gain {gain:.2f}, expected at least {arguments.points}"
        )


if __name__ == "__main__":
    main(run)
