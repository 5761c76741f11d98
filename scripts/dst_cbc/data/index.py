"""The data check, and `dataset.csv`, its result: one row per image, read by every later stage."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from tqdm import tqdm

from ..runtime import escape, pool
from ..runtime.errors import DataError, Spoiled, by_cause
from ..runtime.files import digest, sha256_file
from ..runtime.paths import is_relative
from ..runtime.tables import iterate_csv, optional, positive, whole, write_csv
from ..settings.data import DatasetStage
from ..settings.stages import Subset
from .copies import alike_across, copies, identical_across, slopes
from .images import DIED, GO_ON, MOST_PIXELS, Window, decode, measured_window, size_problem
from .layouts.layout import Record
from .mask_notices import HeldMask, notices_of
from .masks import LabelTable, label_table, open_label, read_label

OWN_FORMATS = ("annotations", "folder", "pairs")
"""Formats of the user's own images; published data sets are used as they are."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of `dataset.csv`: an image that has passed the data check.

    label, label_sha256: "" for an image without a label. height, width: in pixels. black, white:
    the values of a 16-bit image that become 0 and 255, the same in all rows; None for 8 bits.
    """

    id: str
    image: str
    label: str
    height: int
    width: int
    subset: str
    image_sha256: str
    label_sha256: str
    black: int | None = None
    white: int | None = None


COLUMNS = [field.name for field in fields(Row)]


def check(
    root: Path,
    records: Sequence[Record],
    dataset: DatasetStage,
    need_label: Collection[str] = (),
    processes: int = 1,
) -> list[Row]:
    """Decode every file of the data set, print notices, and return one row per image.

    need_label: ids of training images that need a label, as all of val and test do (imported lists
    of labeled ids). Raises DataError that names *all* bad files: missing, damaged or truncated
    files, labels that differ in size from their image, mask values without a class, missing labels,
    16-bit images without a window, and masks of identical images that contradict each other (of
    published data sets, that is a warning).
    """
    rows, hashes, problems, notices, masks = [], [], [], Counter(), []
    deep = np.zeros(1 << 16, np.int64)
    examine = partial(_examine, root, dataset, label_table(dataset))
    results = pool.results(examine, records, processes, partial(_ended, root))
    for found in tqdm(results, "data check", len(records), unit="image", disable=None):
        problems += found.problems
        notices.update(found.notices)
        if found.label:
            masks.append(found.label)
        if found.row:
            rows.append((found.row, found.deep is not None))
            hashes.append(found.hash)
            if found.deep is not None and found.row.subset == "train":
                deep += found.deep
    window = dataset.window or (measured_window(deep) if deep.any() else None)
    problems += [
        f"{root / record.image}: no label, but subset `{record.subset}` needs one"
        for record in records
        if not record.label and (record.subset != "train" or record.id in need_label)
    ]
    if not window:
        problems += [
            f"{root / row.image}: 16-bit, but no training image has 16 bits, so black and white "
            "cannot be measured; set `window: [black, white]`"
            for row, is_deep in rows
            if is_deep
        ]
    checked = [row for row, _ in rows]
    contradictions = _contradictions(dataset.mask_root(root), checked, label_table(dataset))
    if dataset.format in OWN_FORMATS:
        problems += contradictions
    if problems:
        raise DataError(f"{len(problems)} problems in the data set:\n{by_cause(problems)}")
    if dataset.format in OWN_FORMATS:
        for notice in notices_of(masks, dataset):
            print(f"notice: {notice}", flush=True)
    for notice, files in sorted(notices.items()):
        print(f"notice: {notice}: {files} files", flush=True)
    warnings = [f"WARNING: {len(contradictions)} contradictions; {one}" for one in contradictions]
    warnings = warnings[:1] + identical_across(checked)
    for warning in warnings + alike_across(checked, hashes, dataset.pairs):
        print(escape.terminal(warning), flush=True)
    return [_with_window(row, window) if is_deep and window else row for row, is_deep in rows]


def _contradictions(masks: Path, rows: Iterable[Row], table: LabelTable) -> list[str]:
    """Describe each mask that differs from that of an identical image."""
    problems = []
    for group in copies(rows):
        first, *others = [row for row in group if row.label] or [group[0]]
        differing = [row for row in others if row.label_sha256 != first.label_sha256]
        problems += [
            f"{masks / row.label} contradicts {masks / first.label}: their images, {row.image} and "
            f"{first.image}, are identical; keep one of the two"
            for row in differing
            if not _same_mask(masks, first, row, table)
        ]
    return problems


def _same_mask(masks: Path, first: Row, second: Row, table: LabelTable) -> bool:
    one, other = (np.asarray(open_label(masks / row.label, table)) for row in (first, second))
    return np.array_equal(one, other)


def _with_window(row: Row, window: Window) -> Row:
    return replace(row, black=window[0], white=window[1])


@dataclass(frozen=True)
class _Finding:
    """What the check found for one image.

    row: None if there are problems. deep: number of pixels of each 16-bit value, int64 (65536,);
    None for 8 bits. label: what its mask holds, if it has one. hash: of what the image shows, as
    `slopes` returns it.
    """

    row: Row | None
    problems: list[str]
    notices: list[str]
    deep: np.ndarray | None
    label: HeldMask | None = None
    hash: np.ndarray | None = None


def _ended(root: Path, record: Record) -> _Finding:
    files = " or ".join(str(root / file) for file in (record.image, record.label) if file)
    return _Finding(None, [f"{files}: {DIED}"], [], None)


def _examine(root: Path, dataset: DatasetStage, table: LabelTable, record: Record) -> _Finding:
    problems, image, label, read = [], None, None, None
    mask = dataset.mask_root(root) / record.label
    try:
        image = decode(root / record.image, bands=dataset.bands)
    except DataError as error:
        problems.append(str(error))
    try:
        if record.label:
            read = read_label(mask, table)
            label = read.classes
    except DataError as error:
        problems.append(str(error))
    if image and label and (wrong := size_problem(mask, label.size, image)):
        problems.append(wrong)
    if problems or image is None:
        return _Finding(None, problems, [], None)
    width, height = image.size
    row = Row(
        record.id,
        record.image,
        record.label,
        height,
        width,
        record.subset,
        sha256_file(root / record.image),
        sha256_file(mask) if record.label else "",
    )
    notices = image.notes
    notices += (
        ["mask of colours, read by the colours of the format's classes"]
        if read and read.by_colour
        else []
    )
    held = HeldMask.of(mask, read) if read else None
    deep = None if image.deep is None else _histogram(image.deep)
    return _Finding(row, [], notices, deep, held, slopes(image))


def _histogram(deep: np.ndarray) -> np.ndarray:
    """Count the pixels of each 16-bit value, int64 (65536,)."""
    counts, values = np.zeros(1 << 16, np.int64), deep.ravel()
    # In pieces, because numpy.bincount makes a copy of eight bytes for each value.
    for start in range(0, values.size, _PIECE):
        counts += np.bincount(values[start : start + _PIECE], minlength=1 << 16)
    return counts


_PIECE = 1 << 20


def write_index(path: Path, rows: Iterable[Row]) -> None:
    """Write `dataset.csv`."""
    write_csv(path, COLUMNS, (asdict(row) for row in rows))


def read_index(path: Path) -> dict[str, Row]:
    """Read `dataset.csv`, by id. Raises DataError when a row is not one that `check` returns."""
    rows = {}
    for line, cells in enumerate(iterate_csv(path, _CELLS), 2):
        try:
            row = _row_of(cells)
            if row.id in rows:
                raise ValueError(f"id {row.id!r} occurs twice")
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{path}, line {line}: {error}; delete the file to have the data checked again"
            ) from error
        rows[row.id] = row
    return rows


_CELLS = dict.fromkeys(COLUMNS, str) | {
    "height": positive, "width": positive, "black": optional(whole), "white": optional(whole),
}  # fmt: skip


def _row_of(cells: dict[str, Any]) -> Row:
    row = Row(**cells)
    for name in (row.id, row.image, row.label or row.image):
        if not is_relative(name):
            raise ValueError(
                f"{name!r} cannot be an id or a path; expected a relative path without `..`"
            )
    if row.subset not in get_args(Subset):
        raise ValueError(f"subset {row.subset!r}, expected train, val or test")
    if row.height * row.width > MOST_PIXELS:
        raise ValueError(f"size {row.height} x {row.width}, expected 1 to {MOST_PIXELS} pixels")
    black, white = row.black, row.white
    if (black, white) != (None, None) and not (
        black is not None and white is not None and 0 <= black < white <= 65536
    ):
        raise ValueError(f"black {black}, white {white}, expected 0 <= black < white")
    return row


def rows_of(index: dict[str, Row], ids: Iterable[str], listing: Path) -> list[Row]:
    """Return the rows of `ids`, read from `listing`. Raises DataError if one is not indexed."""
    ids = list(ids)
    missing = [id for id in ids if id not in index]
    if missing:
        raise DataError(
            f"{listing}: {missing[0]!r} is not in dataset.csv; delete dataset.csv to have the data "
            "checked again"
        )
    return [index[id] for id in ids]


def window_of(rows: Iterable[Row]) -> Window | None:
    """Return the window of the data set's 16-bit images; None if all images have 8 bits."""
    for row in rows:
        if row.black is not None and row.white is not None:
            return row.black, row.white
    return None


def ground_truth(masks: Path, row: Row, table: LabelTable) -> np.ndarray | None:
    """Read the mask of an image, uint8 (H, W); None if it has none. Raises as `open_label` does.

    masks: the folder in which the paths of masks start.
    """
    if not row.label:
        return None
    return np.asarray(open_label(masks / row.label, table, row.label_sha256))


def require_same(root: Path, rows: Iterable[Row], masks: Path | None = None) -> None:
    """Raise Spoiled when an image has changed since the data check, or a mask below `masks`.

    Raises FileNotFoundError when a file is gone; then no wrong result has been computed from it.
    """
    files = {}
    for row in rows:
        files[root / row.image] = row.image_sha256
        if masks and row.label:
            files[masks / row.label] = row.label_sha256
    with ThreadPoolExecutor() as threads:
        found = threads.map(sha256_file, files)
        changed = [file for file, digest in zip(files, found, strict=True) if digest != files[file]]
    if changed:
        raise Spoiled(
            f"{len(changed)} files have changed since the data check, first {changed[0]}. "
            f"What was computed from them is dropped. {GO_ON}"
        )


def used_files(rows: Iterable[Row], labels: bool) -> str:
    """Return one digest of the images that a stage reads, and of their masks if `labels`."""
    return digest(
        f"{row.id} {row.image_sha256} {row.label_sha256 if labels else ''}" for row in rows
    )
