"""Print studies side by side: python scripts/compare.py results/a results/b

A line per split, method and subset: mIoU of the last round, best of the chain and last step, in
each study, mean ± standard deviation over its seeds; and behind the first study the difference to
it, over the seeds that both have. Reads summary.csv of each study, or a record in docs/results/.
"""

from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.report.summary import read_summary
from dst_cbc.report.tables import compare, markdown_table


def run() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "studies", nargs="+", type=Path, metavar="STUDY", help="folder of a study, or a CSV file"
    )
    arguments = parser.parse_args()
    files = {str(p): p / "summary.csv" if p.is_dir() else p for p in arguments.studies}
    header, lines = compare({name: read_summary(path) for name, path in files.items()})
    print(markdown_table(header, lines))


if __name__ == "__main__":
    main(run)
