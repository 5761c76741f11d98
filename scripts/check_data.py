"""Check a whole data set and write its index, one row per image.

It says which files of the data set are used and which are not, decodes every image and mask, and
names all bad files at once.
"""

import os

from dst_cbc.cli import Parser, main
from dst_cbc.data.account import account
from dst_cbc.data.index import check, write_index
from dst_cbc.data.records import list_records
from dst_cbc.runtime import escape
from dst_cbc.runtime.reading import read_ids
from dst_cbc.settings.data import DatasetStage


def run() -> None:
    parser = Parser(__doc__)
    parser.settings(DatasetStage)
    parser.path("--data", "folder of the data set")
    parser.path("--out", "the index to write, a CSV file")
    parser.add_argument(
        "--need-label",
        nargs="*",
        default=[],
        metavar="LIST",
        help="files of ids, one a line, that need a mask",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count(),
        help="number of processes (default: one per core)",
    )
    arguments = parser.parse_args()
    records = list_records(arguments.data, arguments.settings)
    files = account(arguments.data, arguments.settings, records)
    if files:
        print(escape.terminal("\n".join(files.lines())), flush=True)
    needed = {id for path in arguments.need_label for id in read_ids(path)}
    rows = check(arguments.data, records, arguments.settings, needed, arguments.processes)
    write_index(arguments.out, rows)
    counts = {s: sum(row.subset == s for row in rows) for s in ("train", "val", "test")}
    print(f"{len(rows)} images are fine: {counts}")


if __name__ == "__main__":
    main(run)
