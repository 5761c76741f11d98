"""Summarize a study: the metrics of all models in one CSV file, and as tables in Markdown."""

from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.report.summary import COLUMNS, interval_notes, published_note, share_notes, summarize
from dst_cbc.report.tables import aggregate, markdown
from dst_cbc.runtime.files import write_text
from dst_cbc.runtime.tables import write_csv


def run() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "study", type=Path, metavar="STUDY", help="folder of the study, e.g. results/demo"
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="model's folder below STUDY, e.g. 12_0/dst-cbc/round5",
    )
    parser.add_argument(
        "--report",
        nargs="+",
        default=["val"],
        metavar="SUBSET",
        help="subsets to report (default: val)",
    )
    parser.path("--csv", "summary.csv to write")
    parser.path("--markdown", "summary.md to write")
    arguments = parser.parse_args()
    rows = summarize(arguments.study, arguments.models, arguments.report)
    write_csv(arguments.csv, COLUMNS, rows)
    found = aggregate(rows)
    notes = (
        published_note(arguments.study, rows),
        interval_notes(arguments.study, arguments.models, arguments.report),
        share_notes(arguments.study, arguments.models),
    )
    text = markdown(arguments.study.name, found, "\n\n".join(filter(None, notes)))
    write_text(arguments.markdown, text)
    print(text, end="")


if __name__ == "__main__":
    main(run)
