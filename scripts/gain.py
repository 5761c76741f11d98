"""Make one table of gains from several studies: means over seeds and test images, with intervals.

Each method is compared with `supervised` and with the controls of equal steps and equal passes, on
the same split, seed and test images. Runs that are not finished are rows without figures, so the
table can be made at any time. docs/explanation/gains.md explains the intervals.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from dst_cbc.cli import Parser, main
from dst_cbc.settings.yaml_files import parse_yaml

REPOSITORY = Path(__file__).resolve().parents[1]


def parse():
    parser = Parser(__doc__)
    parser.add_argument(
        "table", type=Path, metavar="FILE", help="the table's file, such as workflow/gain.yaml"
    )
    parser.add_argument(
        "--config",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="keys that override those of the file, e.g. 'data={CamVid: PATH}'",
    )
    parser.add_argument("--subset", default="test", help="subset whose images count (default test)")
    parser.path("--out", "gain.csv to write: a row for each method")
    parser.add_argument(
        "--cells", type=Path, metavar="PATH", help="cells.csv to write: a row for each model"
    )
    parser.add_argument(
        "--figure", type=Path, metavar="PATH", help="figure to write, e.g. gain.svg; a PNG, too"
    )
    return parser.parse_args()


def run() -> None:
    with TemporaryDirectory() as cache:
        # matplotlib writes a cache of fonts, by default into the user's home.
        os.environ.setdefault("MPLCONFIGDIR", cache)
        from dst_cbc.planning.gained import gain_cells
        from dst_cbc.report.figures import write
        from dst_cbc.report.gain import CELL_COLUMNS, COLUMNS, cell_rows, gain_rows
        from dst_cbc.report.gain_figure import gain_figure
        from dst_cbc.runtime.tables import write_csv
        from dst_cbc.settings.gain_table import read_gain_table

        arguments = parse()
        pairs = (text.partition("=") for text in arguments.config)
        changes = {key: parse_yaml(value, f"--config {key}") for key, _, value in pairs}
        table = read_gain_table(arguments.table, changes)
        cells = [*gain_cells(REPOSITORY, arguments.table.parent, table, arguments.subset)]
        rows = gain_rows(cells)
        if arguments.cells:
            write_csv(arguments.cells, CELL_COLUMNS, cell_rows(cells))
        if arguments.figure:
            write(gain_figure(rows), arguments.figure.with_suffix(""))
        write_csv(arguments.out, COLUMNS, rows)
        done = sum(cell.points is not None for cell in cells)
        print(f"{arguments.out}: {len(rows)} rows of {len(cells)} cells, {done} of them finished")


if __name__ == "__main__":
    main(run)
