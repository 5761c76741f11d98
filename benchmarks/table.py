"""Run the benchmarks, print each with its lower bound, and write the table as CSV.

Without --only, all groups run, in under ten minutes on two idle cores. Rows of the CSV file from
the other --when, and from groups that did not run, are kept.
"""

import argparse
import csv
import importlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import REPOSITORY, SCRIPTS, Row, machine
from targets import TARGETS

GROUPS = ("samples", "network", "stages", "processes", "gpu", "demo")
COLUMNS = ["when", "group", "what", "ours", "bound", "unit", "ratio", "target", "reached", "note"]
OUT = REPOSITORY / "results/bench.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP")
    parser.add_argument(
        "--when", choices=("before", "after"), default="after", help="value of the column `when`"
    )
    parser.add_argument(
        "--out", type=Path, default=OUT, help=f"CSV file (default {OUT.relative_to(REPOSITORY)})"
    )
    arguments = parser.parse_args()
    # Before the import of torch, which reads the number of threads only once.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ["TQDM_DISABLE"] = "1"
    sys.path.insert(0, str(SCRIPTS))
    from dst_cbc.runtime import devices

    devices.use_large_pages()
    begun, rows = time.monotonic(), []
    common = {**machine(), "commit": commit()}
    with tempfile.TemporaryDirectory() as folder:
        for group in arguments.only:
            for row in importlib.import_module(group).rows(Path(folder, group)):
                rows.append(row)
                print(line(row), flush=True)
                # At once, so that an interrupted run keeps its rows.
                write(arguments.out, arguments.when, rows, common)
    print("\n".join(f"{key}: {value}" for key, value in common.items()))
    missed = sum(row.reached is False for row in rows)
    print(f"{len(rows)} rows, {missed} missed, {time.monotonic() - begun:.0f} s: {arguments.out}")


def line(row: Row) -> str:
    """A row as a line of the printed table."""
    reached = {True: "ok", False: "MISSED", None: ""}[row.reached]
    target = str(TARGETS[row.what])
    figures = f"{row.ours:10.4g} {row.bound:10.4g} {row.unit:<11} {row.ratio:7.3f}"
    return f"{row.what:<52} {figures} {target:>14}  {reached:<6}  {row.note}".rstrip()


def write(path: Path, when: str, rows: list[Row], common: dict[str, object]) -> None:
    """Write `rows`, replacing rows of the file with the same `what` and `when`."""
    kept = {}
    if path.is_file():
        with open(path, newline="") as file:
            kept = {(cells["when"], cells["what"]): cells for cells in csv.DictReader(file)}
    for row in rows:
        cells = {key: _cell(getattr(row, key)) for key in COLUMNS[1:] if key != "target"}
        cells = {**cells, "when": when, "target": str(TARGETS[row.what]), **common}
        kept[when, row.what] = cells
    order = [*TARGETS]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *common], restval="", lineterminator="\n")
        writer.writeheader()
        for key in sorted(kept, key=lambda key: (key[0] == "after", order.index(key[1]))):
            writer.writerow(kept[key])


def _cell(value: object) -> object:
    words = {True: "yes", False: "no", None: ""}
    if value is None or isinstance(value, bool):
        return words[value]
    return f"{value:.4g}" if isinstance(value, float) else value


def commit() -> str:
    """The commit of the checkout, with "+" if files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
