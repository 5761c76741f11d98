"""Summarize a study: the metrics of all models in one CSV file, and as tables in Markdown."""

from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.report.losing import compared_on_val, comparison_notes, notes, vanished_classes, worse
from dst_cbc.report.summary import (
    COLUMNS,
    interval_notes,
    published_note,
    share_notes,
    stopped_notes,
    summarize,
)
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
    study, models = arguments.study, arguments.models
    rows = summarize(study, models, arguments.report)
    write_csv(arguments.csv, COLUMNS, rows)
    found = aggregate(rows)
    # Not falling_agreement: agreement.csv is made later.
    compared = [*compared_on_val(study, models)]
    losses = [*worse(compared), *vanished_classes(study, models)]
    remarks = (
        published_note(study, rows),
        stopped_notes(study, models),
        notes(losses),
        comparison_notes(compared),
        interval_notes(study, models, arguments.report),
        share_notes(study, models),
    )
    text = markdown(study.name, found, "\n\n".join(filter(None, remarks)))
    write_text(arguments.markdown, text)
    print(text, end="")


if __name__ == "__main__":
    main(run)
