"""Write the table of a study, mean and deviation over seeds: table.csv, table.md, table.tex.

table.csv has every round; table.md and table.tex have the last round of each method, and the table
of the paper that `report.paper_table` names. A run that is missing is a line without figures.
"""

from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.report.paper_table import paper_latex, paper_markdown
from dst_cbc.report.summary import published_note, read_summary, with_seconds
from dst_cbc.report.tables import COLUMNS, aggregate, last_rounds, latex, markdown
from dst_cbc.runtime.files import write_text
from dst_cbc.runtime.tables import write_csv
from dst_cbc.settings.experiment import ReportSettings


def run() -> None:
    parser = Parser(__doc__)
    parser.settings(ReportSettings)
    parser.add_argument(
        "study", type=Path, metavar="STUDY", help="folder of the study, e.g. results/demo"
    )
    parser.path("--out", "folder to write the tables into")
    arguments = parser.parse_args()
    settings: ReportSettings = arguments.settings
    rows = with_seconds(arguments.study, read_summary(arguments.study / "summary.csv"))
    found = aggregate(rows, settings.paper)
    title, last = settings.title or arguments.study.name, last_rounds(found)
    write_csv(arguments.out / "table.csv", COLUMNS, found)
    write_text(arguments.out / "table.tex", latex(title, last) + paper_latex(last, settings))
    parts = (paper_markdown(last, settings), published_note(arguments.study, rows))
    text = markdown(title, last, "\n\n".join(filter(None, parts)))
    write_text(arguments.out / "table.md", text)
    print(text, end="")


if __name__ == "__main__":
    main(run)
