"""Verify that pseudo labels have not changed since they were made, or accept edited ones.

Without --accept, the command compares the PNGs with each manifest and fails with the names of
missing or changed PNGs. With --accept, it rewrites the manifests for the PNGs as they are now and
marks the rows of changed PNGs as edited; the next `snakemake` trains on them.
"""

from pathlib import Path

from dst_cbc.cli import Parser, main
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.tables import csv_header
from dst_cbc.self_training.pseudo_labels import (
    accept,
    changed_labels,
    read_manifest,
    require_unchanged,
    write_manifest,
)

PREFIX = "pixels "


def run() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "manifests", nargs="+", type=Path, metavar="MANIFEST", help="pseudo_labels.csv"
    )
    parser.add_argument("--accept", action="store_true", help="accept the PNGs as they are now")
    arguments = parser.parse_args()
    problems = []
    for manifest in arguments.manifests:
        try:
            _accept(manifest) if arguments.accept else _verify(manifest)
        except (DataError, FileNotFoundError) as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    print(f"{len(arguments.manifests)} manifests are in order")


def _names(manifest: Path) -> list[str]:
    columns = csv_header(manifest)
    return [column.removeprefix(PREFIX) for column in columns if column.startswith(PREFIX)]


def _verify(manifest: Path) -> None:
    rows = read_manifest(manifest, _names(manifest))
    require_unchanged(manifest.with_suffix(""), manifest, rows)


def _accept(manifest: Path) -> None:
    names, folder = _names(manifest), manifest.with_suffix("")
    rows = read_manifest(manifest, names)
    changed = set(changed_labels(folder, rows))
    accepted = [accept(folder, row, len(names)) if row.id in changed else row for row in rows]
    write_manifest(manifest, accepted, names)
    print(f"{manifest}: {len(changed)} edited labels accepted")


if __name__ == "__main__":
    main(run)
