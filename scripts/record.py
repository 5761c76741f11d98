"""Record a study's summary, and what it was run on, for the documentation: docs/results/<name>.csv.

Adds to each row of summary.csv the digest of its settings, and the commit, device, PyTorch version
and seconds of its training. If a row has no mIoU yet, the row of an earlier record is kept, because
long studies run in several parts on several machines.
"""

from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.report.model_files import read_run
from dst_cbc.report.summary import COLUMNS, folder_of
from dst_cbc.runtime.files import sha256_file
from dst_cbc.runtime.tables import read_csv, whole, write_csv

MACHINE = ["settings", "commit", "device", "torch", "seconds"]
KEY = ["split", "seed", "method", "round", "checkpoint", "selected_on", "subset"]


def run() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "study", type=Path, metavar="STUDY", help="folder of the study, e.g. results/demo"
    )
    parser.path("--out", "CSV file to write, e.g. docs/results/demo.csv")
    arguments = parser.parse_args()
    cells = dict.fromkeys(COLUMNS, str) | {"round": whole}
    recorded = cells | dict.fromkeys(MACHINE, str)
    earlier = read_csv(arguments.out, recorded) if arguments.out.is_file() else []
    known = {tuple(row[key] for key in KEY): row for row in earlier if row["miou"]}
    rows = read_csv(arguments.study / "summary.csv", cells)
    recorded = [
        {**row, **_machine(arguments.study, row)}
        if row["miou"]
        else known.get(tuple(row[key] for key in KEY), row)
        for row in rows
    ]
    write_csv(arguments.out, [*COLUMNS, *MACHINE], recorded)


def _machine(study: Path, row: dict[str, str]) -> dict[str, object]:
    folder = study / folder_of(row)
    run = read_run(folder / "run.json")
    if run is None:
        return {}
    return {
        "settings": sha256_file(folder / "settings.json")[:12],
        "commit": run["commit"],
        "device": f"{run['device']} {run['versions']['cpu']}",
        "torch": run["versions"]["torch"],
        "seconds": run["seconds"],
    }


if __name__ == "__main__":
    main(run)
