"""The data check and its result, `dataset.csv`: one row per image that every later stage reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

from tqdm import tqdm

from .datasets import Record
from .files import DataError, digest, read_csv, sha256_file, write_csv
from .images import label_lookup, open_image, open_label
from .settings import DatasetStage


@dataclass(frozen=True)
class Row:
    """One image of the checked data set; sizes in pixels, digests SHA-256, "" without a label."""

    id: str
    image: str
    label: str
    height: int
    width: int
    subset: str
    image_sha256: str
    label_sha256: str


COLUMNS = [field.name for field in fields(Row)]


def check(
    root: Path,
    records: Sequence[Record],
    dataset: DatasetStage,
    need_label: Collection[str] = (),
    processes: int = 1,
) -> list[Row]:
    """Decode every file of the data set.

    need_label: ids that must have a label beside those of val and test (imported labeled lists).
    Raises DataError that names *all* bad files: missing, damaged or truncated ones, a label
    whose size is not its image's, mask values that map to no class, labels that are missing.
    """
    examine = partial(_examine, root, dataset)
    with ProcessPoolExecutor(processes) as pool:
        results = pool.map(examine, records, chunksize=16)
        rows = list(tqdm(results, "data check", len(records), unit="image", disable=None))
    problems = [problem for _, found in rows for problem in found]
    problems += [
        f"{root / record.image}: no label, but subset `{record.subset}` needs one"
        for record in records
        if not record.label and (record.subset != "train" or record.id in need_label)
    ]
    if problems:
        raise DataError(f"{len(problems)} problems in the data set:\n" + "\n".join(problems))
    return [row for row, _ in rows]


def _examine(root: Path, dataset: DatasetStage, record: Record) -> tuple[Row | None, list[str]]:
    problems, image, label = [], None, None
    try:
        image = open_image(root / record.image)
    except DataError as error:
        problems.append(str(error))
    try:
        label = open_label(root / record.label, label_lookup(dataset)) if record.label else None
    except DataError as error:
        problems.append(str(error))
    if image and label and image.size != label.size:
        problems.append(f"{root / record.label}: size {label.size}, but its image has {image.size}")
    if problems:
        return None, problems
    return Row(
        record.id,
        record.image,
        record.label,
        image.height,
        image.width,
        record.subset,
        sha256_file(root / record.image),
        sha256_file(root / record.label) if record.label else "",
    ), []


def write_index(path: Path, rows: Iterable[Row]) -> None:
    """Write `dataset.csv`."""
    write_csv(path, COLUMNS, map(asdict, rows))


def read_index(path: Path) -> dict[str, Row]:
    """`dataset.csv` by id."""
    rows = {}
    for line, cells in enumerate(read_csv(path, COLUMNS), 2):
        try:
            size = {side: int(cells[side]) for side in ("height", "width")}
            rows[cells["id"]] = Row(**{**cells, **size})
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}, line {line}: {error}; delete the file") from error
    return rows


def used_files(rows: Iterable[Row], labels: bool) -> str:
    """Digest of the images, and of the masks where `labels`, that a stage reads."""
    return digest(
        f"{row.id} {row.image_sha256} {row.label_sha256 if labels else ''}" for row in rows
    )
