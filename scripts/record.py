"""Record a study's summary for the README: docs/results/<name>.csv, with what it was run on.

Adds to each row of summary.csv the commit, device, PyTorch and seconds of its training.
"""

import json
from pathlib import Path

from dst_cbc.command import Parser, main
from dst_cbc.files import read_csv, write_csv
from dst_cbc.summary import COLUMNS

MACHINE = ["commit", "device", "torch", "seconds"]


def run() -> None:
    parser = Parser(__doc__)
    parser.add_argument("study", type=Path, metavar="STUDY", help="folder, e.g. results/demo")
    parser.path("--out", "CSV file to write, e.g. docs/results/demo.csv")
    arguments = parser.parse_args()
    rows = read_csv(arguments.study / "summary.csv", COLUMNS)
    recorded = ({**row, **_machine(arguments.study, row)} for row in rows)
    write_csv(arguments.out, [*COLUMNS, *MACHINE], recorded)


def _machine(study: Path, row: dict[str, str]) -> dict[str, object]:
    selection = "" if row["selected_on"] == "val" else f"_{row['selected_on']}"
    model = row["method"] if row["round"] == "0" else f"{row['method']}/round{row['round']}"
    written = study / f"{row['split']}_{row['seed']}{selection}" / model / "run.json"
    if not written.is_file():
        return {}
    run = json.loads(written.read_text())
    return {
        "commit": run["commit"],
        "device": f"{run['device']} {run['versions']['cpu']}",
        "torch": run["versions"]["torch"],
        "seconds": run["seconds"],
    }


if __name__ == "__main__":
    main(run)
