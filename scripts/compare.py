"""Print studies side by side: python scripts/compare.py results/a results/b

Prints one line per split, method, checkpoint (best of all rounds, or last step) and subset, with
the mIoU of the last round in each study: mean ± standard deviation over seeds. Every study after
the first also gets its difference to the first study, over the seeds that both have. Where both
were evaluated on the same images, the 95 % interval of the difference follows; it says what other
images could change, not what other seeds could. Reads summary.csv and confusions.csv of each
study, or a record in docs/results/, which has no interval.
"""

from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.report.paired_rows import interval_text
from dst_cbc.report.summary import read_summary
from dst_cbc.report.tables import compare, text_table


def run() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "studies", nargs="+", type=Path, metavar="STUDY", help="folder of a study, or a CSV file"
    )
    arguments = parser.parse_args()
    files = {str(p): p / "summary.csv" if p.is_dir() else p for p in arguments.studies}
    rows = {name: read_summary(path) for name, path in files.items()}
    header, lines = compare(
        rows, lambda first, other, pairs: interval_text(Path(first), Path(other), pairs)
    )
    print(text_table(header, lines))


if __name__ == "__main__":
    main(run)
