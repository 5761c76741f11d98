"""Compare the files of a study with what their jobs recorded, or accept files that were edited.

Prints one line for each file that is `missing`, `changed` since it was made, or `foreign` (no job
made it), and fails if there are any. With --accept, it records files as they are now. For a
manifest pseudo_labels.csv it accepts the PNGs, too, and marks the rows of changed PNGs as edited.
The next `snakemake` uses accepted files.
"""

from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.report.verification import MANIFEST, class_names, verify, verify_file
from dst_cbc.runtime import checksums
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.escape import terminal
from dst_cbc.self_training.pseudo_labels import (
    accept,
    changed_labels,
    read_manifest,
    write_manifest,
)


def run() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="folder of a study, e.g. results/demo, or a file in it",
    )
    parser.add_argument(
        "--data", type=Path, metavar="PATH", help="folder of the data set, to compare its images"
    )
    parser.add_argument("--accept", action="store_true", help="accept the files as they are now")
    arguments = parser.parse_args()
    if arguments.accept:
        for path in arguments.paths:
            _accept(path)
        return
    problems = 0
    for path in arguments.paths:
        for state, file in verify(path, arguments.data) if path.is_dir() else verify_file(path):
            print(terminal(f"{state}: {file}"), flush=True)
            problems += 1
    if problems:
        raise DataError(
            f"{problems} files are not as their jobs made them. Deleted and changed files are made "
            "again by `snakemake FILE --forcerun FILE`; `python scripts/verify.py --accept FILE` "
            "accepts a changed one"
        )
    print("all files are as their jobs made them")


def _accept(path: Path) -> None:
    if path.name != MANIFEST:
        checksums.accept(path)
        print(f"{path}: accepted")
        return
    names, folder = class_names(path), path.with_suffix("")
    rows = read_manifest(path, names)
    changed = set(changed_labels(folder, rows))
    accepted = [accept(folder, row, len(names)) if row.id in changed else row for row in rows]
    write_manifest(path, accepted, names)
    if checksums.recorded(path):
        checksums.accept(path)
    print(f"{path}: {len(changed)} edited labels accepted")


if __name__ == "__main__":
    main(run)
