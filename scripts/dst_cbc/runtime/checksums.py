"""Records of what each job read and wrote, and the comparison of each file with them: `checksums/`.

A job writes `<folder>/checksums/<first output>.json` at its end, with the SHA-256 of each file. A
program of this package that opens a file which a job has recorded compares it first, so damage does
not change a result silently. The records show damage, not fraud: whoever can change a file can
change its record.
"""

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from .errors import DataError
from .files import open_regular, sha256, sha256_file, write_text

FOLDER = "checksums"
GIVEN = "given"
"""Folder of a study with models from elsewhere: no job makes `given/<name>/model.pt`."""
_MOST_BYTES = 1 << 26
TIMED = ("run.json", "table.", "cost.")
"""Starts of the names of files that hold run times. They have records of their own, because equal
work gives other bytes, and all other records must not depend on that."""
SLOW = 1 << 26
"""Bytes from which on a file is compared in the background, while the job works on it."""


@dataclass(frozen=True)
class Checksums:
    """The record of a job.

    job: name of its script. settings: SHA-256 of the text of its settings; "" if it has none. read,
    wrote: path -> SHA-256. Paths are relative to the folder that holds `checksums/`, unless the job
    was given an absolute one. A folder of PNGs has the SHA-256 of their names, because its manifest
    has their contents. None: the file was missing when a result of an earlier version was recorded.
    accepted: those of `wrote` that a person changed and accepted.
    """

    job: str
    settings: str
    read: dict[str, str | None]
    wrote: dict[str, str | None]
    accepted: list[str] = field(default_factory=list)


_CHECKSUMS = TypeAdapter(Checksums)


def record_of(output: Path) -> Path:
    """Path of the record of the job whose first output is `output`."""
    return output.parent / FOLDER / f"{output.name}.json"


def records_in(folder: Path) -> dict[Path, Checksums]:
    """All records of the files in a folder, by their path. Raises DataError if one is damaged."""
    try:
        status = (folder / FOLDER).stat()
    except OSError:
        return {}
    return _records(folder, status.st_ino, status.st_ctime_ns)


@cache
def _records(folder: Path, number: int, changed: int) -> dict[Path, Checksums]:
    records = {}
    for path in sorted((folder / FOLDER).glob("*.json")):
        # Another job in this folder may begin now, and remove its own record.
        with suppress(FileNotFoundError):
            records[path] = read_record(path)
    return records


def read_record(path: Path) -> Checksums:
    """Read a record. Raises DataError when it is damaged."""
    with open_regular(path) as file:
        content = file.read(_MOST_BYTES)
    try:
        found = json.loads(content)
        digest = found.pop("sha256")
        if digest != _digest(found):
            raise ValueError("its content does not fit its own SHA-256")
        return _CHECKSUMS.validate_python(found)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = "an unknown key or type" if isinstance(error, ValidationError) else error
        raise DataError(
            f"{path}: this record of checksums is damaged ({reason}); delete it, and the next run "
            "of the workflow records the files as they are then"
        ) from None


def write_record(path: Path, checksums: Checksums) -> None:
    """Write a record; equal records have equal bytes."""
    content = {key: value for key, value in asdict(checksums).items() if value or key != "accepted"}
    content["sha256"] = _digest(content)
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _digest(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode())


def is_given(path: Path) -> bool:
    """Whether a file is a model from elsewhere, which a person put into a study."""
    return path.name == "model.pt" and path.parent.parent.name == GIVEN


def both(record: Path) -> tuple[Path, Path]:
    """The record of a job, and its record of the files that hold run times; one may not exist."""
    return record, record.with_suffix(".timed.json")


def is_timed(path: Path | str) -> bool:
    """Whether a file holds run times."""
    return Path(path).name.startswith(TIMED)


def begun(record: Path) -> Path:
    """The file that exists while a job repeats its work, or after it failed to."""
    return record.with_name(f"{record.name.removesuffix('.json').removesuffix('.timed')}.begun")


def place(record: Path, name: str) -> Path:
    """The path of a file that a record names."""
    return Path(os.path.normpath(record.parent.parent / name))


def digest_of_names(folder: Path) -> str:
    """SHA-256 of the names of all PNGs in a folder and its subfolders."""
    return sha256("\n".join(sorted(_pngs(folder, ""))).encode())


def is_of_pngs(folder: Path) -> bool:
    """Whether a folder has PNGs."""
    return next(_pngs(folder, ""), None) is not None


def _pngs(folder: Path, before: str) -> Iterator[str]:
    # Path.rglob would take five times as long.
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _pngs(Path(entry.path), f"{before}{entry.name}/")
            elif entry.name.endswith(".png"):
                yield before + entry.name


# -------------------------------------------------------------- comparing


def recorded(path: Path) -> tuple[Path, str | None] | None:
    """The record that has `path`, and the SHA-256 there; None if no job has recorded the file."""
    # A job can also record the files in a folder that it wrote.
    for folder in (path.parent, path.parent.parent):
        name = os.path.relpath(path, folder)
        for record, checksums in records_in(folder).items():
            if name in checksums.wrote:
                return record, checksums.wrote[name]
    return None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file that this process is about to read.

    Raises DataError when it differs from what the job that made the file has recorded, and says
    both ways to go on. A file that no job recorded is not compared.
    """
    path = Path(path)
    _read[path] = compared(path)
    return _read[path]


def check(path: Path | str) -> None:
    """Compare a result that is about to be read, as `sha256_of`; a large one in the background.

    The error of a large file is raised by `settle`. Nothing happens for a file that is missing or
    that no job recorded. A model from elsewhere only counts as read.
    """
    path = Path(path)
    # os.path answers False for what cannot be a name, instead of raising an error.
    if not os.path.isfile(path) or not (recorded(path) or is_given(path)):
        return
    if path.stat().st_size < SLOW:
        sha256_of(path)
    elif path not in _pending:
        _pending[path] = _background.submit(sha256_of, path)


def settle() -> None:
    """Wait for the comparisons in the background. Raises DataError as `sha256_of`."""
    while _pending:
        _, comparison = _pending.popitem()
        comparison.result()


def files_read() -> dict[Path, str]:
    """The files that this process has compared to read them, with their SHA-256."""
    return dict(_read)


_read: dict[Path, str] = {}
_pending: dict[Path, Future] = {}
_background = ThreadPoolExecutor(1)


def compared(path: Path) -> str:
    """SHA-256 of a file, compared as by `sha256_of`; it does not count as read."""
    status = path.stat()
    found = _sha256(path, status.st_ino, status.st_ctime_ns)
    known = recorded(path)
    if known and known[1] not in (None, found):
        raise DataError(
            f"{path}: changed since it was made: found SHA-256 {found[:12]}..., recorded "
            f"{known[1][:12]}... in {known[0]}\n"
            f"To make it again: snakemake {path} --forcerun {path} (with the --configfile of this "
            "study)\n"
            f"To use it as it is: python scripts/verify.py --accept {path}"
        )
    return found


# Cached, because a stage computes the digests of some files that it then reads.
@cache
def _sha256(path: Path, number: int, changed: int) -> str:
    return sha256_file(path)


def accept(path: Path) -> None:
    """Record a file as it is now; its time becomes now, so that Snakemake sees the change.

    Raises DataError when no job has recorded the file.
    """
    known = recorded(path)
    if known is None:
        raise DataError(
            f"{path}: no job has recorded this file, so there is nothing to accept; expected a "
            "result of the workflow"
        )
    update(known[0], path, edited=True)
    os.utime(path)


def update(record: Path, path: Path, edited: bool = False) -> None:
    """Put a file into its record as it is now. edited: a person changed it."""
    before, name = read_record(record), os.path.relpath(path, record.parent.parent)
    wrote = before.wrote | {name: sha256_file(path)}
    accepted = sorted({*before.accepted, name}) if edited else before.accepted
    write_record(record, replace(before, wrote=wrote, accepted=accepted))


def date_back(path: Path) -> None:
    """Give a result that was made again the time of its record, which equal bytes left untouched.

    So Snakemake, which compares times, runs nothing that follows from it.
    """
    known = recorded(path)
    if known and path.is_file():
        made = known[0].stat().st_mtime_ns
        os.utime(path, ns=(made, made))
