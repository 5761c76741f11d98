"""Records of what each job read and wrote, and the comparison of each file with them: `checksums/`.

A job writes `<folder>/checksums/<first output>.json` at its end, with the SHA-256 of each file. A
program of this package that opens a file which a job has recorded compares it first, so damage does
not change a result silently. The records show damage, not fraud: whoever can change a file can
change its record.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from .errors import DataError
from .files import open_regular, sha256, sha256_file, write_text

FOLDER = "checksums"
TIMED = ("run.json", "table.", "cost.")
"""Starts of the names of files that hold run times. They have records of their own, because equal
work gives other bytes, and all other records must not depend on that."""
SLOW = 1 << 26
"""Bytes from which on a file is compared in the background, while the job works on it."""
_SHARD = re.compile(r"\.[0-9]+of[0-9]+(\.|$)")


@dataclass(frozen=True)
class Checksums:
    """The record of a job.

    job: name of its script. settings: SHA-256 of the text of its settings; "" if it has none. read,
    wrote: path -> SHA-256. Paths are relative to the folder that holds `checksums/`, unless the job
    was given an absolute one. A folder of PNGs has the SHA-256 of their names,
    because its manifest has their contents. None: the file was missing when a result of an earlier
    version was recorded. accepted: those of `wrote` that a person changed and accepted.
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
    return {path: read_record(path) for path in sorted((folder / FOLDER).glob("*.json"))}


def read_record(path: Path) -> Checksums:
    """Read a record. Raises DataError when it is damaged."""
    with open_regular(path) as file:
        content = file.read()
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
    _read[path] = _compared(path)
    return _read[path]


def check(path: Path | str) -> None:
    """Compare a result that is about to be read, as `sha256_of`; a large one in the background.

    The error of a large file is raised by `settle`. Nothing happens for a file that is missing or
    that no job recorded.
    """
    path = Path(path)
    # os.path answers False for what cannot be a name, instead of raising an error.
    if not os.path.isfile(path) or recorded(path) is None:
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


_read: dict[Path, str] = {}
_pending: dict[Path, Future] = {}
_background = ThreadPoolExecutor(1)


def _compared(path: Path) -> str:
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
    record, name = known[0], os.path.relpath(path, known[0].parent.parent)
    before = read_record(record)
    wrote = before.wrote | dict(_written([path], record.parent.parent))
    accepted = sorted({*before.accepted, name})
    write_record(record, replace(before, wrote=wrote, accepted=accepted))
    os.utime(path)


def date_back(path: Path) -> None:
    """Give a result that was made again the time of its record, which equal bytes left untouched.

    So Snakemake, which compares times, runs nothing that follows from it.
    """
    known = recorded(path)
    if known and path.is_file():
        made = known[0].stat().st_mtime_ns
        os.utime(path, ns=(made, made))


# -------------------------------------------------------------- the record of a job


@dataclass(frozen=True)
class Job:
    """record: where the record of this job is written. outputs: its files and folders."""

    record: Path
    outputs: Sequence[Path]
    name: str
    settings: str


def begin() -> Job | None:
    """The job of this process, which the environment variable CHECKSUMS describes; None without it.

    CHECKSUMS is a JSON list: path of the record, then the outputs. An old record is removed if this
    job makes something else. It is kept, and marked as `begun`, if the job only repeats its work:
    if it is killed, the next one still knows that. Raises DataError, and keeps the record, if a
    file that the job read has changed since it was made.
    """
    text = os.environ.pop("CHECKSUMS", None)
    if not text:
        return None
    record, *outputs = map(Path, json.loads(text))
    settings = sys.argv[sys.argv.index("--settings") + 1] if "--settings" in sys.argv else ""
    job = Job(record, outputs, Path(sys.argv[0]).stem, digest_of_settings(settings))
    for path in both(record):
        if path.is_file() and _is_repeated(path, job.settings):
            begun(record).touch()
        else:
            path.unlink(missing_ok=True)
    return job


def both(record: Path) -> tuple[Path, Path]:
    """The record of a job, and its record of the files that hold run times; one may not exist."""
    return record, record.with_suffix(".timed.json")


def begun(record: Path) -> Path:
    """The file that exists while a job repeats its work, or after it failed to."""
    return record.with_name(f"{record.name.removesuffix('.json').removesuffix('.timed')}.begun")


def digest_of_settings(text: str) -> str:
    """The field `settings` of a record, from the text of the job's settings; "" if it has none."""
    return sha256(text.encode()) if text else ""


def _is_repeated(record: Path, settings: str) -> bool:
    try:
        before = read_record(record)
    except DataError:
        return False
    files = {place(record, name): digest for name, digest in before.read.items()}
    return before.settings == settings and all(
        path.is_file() and _compared(path) == digest for path, digest in files.items()
    )


def finish(job: Job) -> None:
    """Write the record of the job of this process. Raises DataError as `settle`."""
    settle()
    write(job, _read)
    begun(job.record).unlink(missing_ok=True)


def write(job: Job, read: Mapping[Path, str]) -> None:
    """Write the record of a job that has read these files: path -> SHA-256."""
    folder = job.record.parent.parent
    wrote = dict(_written(job.outputs, folder))
    timed = {name for name in wrote if Path(name).name.startswith(TIMED)}
    sources, of_times = _sources(folder, read)
    for record, names in zip(both(job.record), (wrote.keys() - timed, timed), strict=True):
        if names:
            mine = {name: wrote[name] for name in names}
            write_record(record, Checksums(job.name, job.settings, sources, mine))
        # Only the other record depends on run times, unless all outputs do.
        sources = of_times if wrote.keys() - timed else sources | of_times
    for path in read:
        if is_shard(path) and (known := recorded(path)):
            known[0].unlink()


def _sources(
    folder: Path, read: Mapping[Path, str]
) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """The entries `read` for the files that a job has read: without run times, and with them."""
    sources, of_times = {}, {}
    for path, digest in read.items():
        known = recorded(path)
        if known is None:
            # Other files below results/ are states and caches.
            if not Path(os.path.abspath(path)).is_relative_to(Path("results").absolute()):
                sources[str(path) if path.is_absolute() else _name(path, folder)] = digest
        elif is_shard(path):
            # The record must not depend on the number of shards: what they were made from counts.
            for name, source in read_record(known[0]).read.items():
                sources[_name(place(known[0], name), folder)] = source
        elif known[0].name.endswith(".timed.json"):
            of_times[_name(path, folder)] = digest
        else:
            sources[_name(path, folder)] = digest
    return sources, of_times


def is_shard(path: Path) -> bool:
    """Whether a file or folder is one of several shards, which are deleted once they are joined."""
    return bool(_SHARD.search(path.name) or _SHARD.search(path.parent.name))


def place(record: Path, name: str) -> Path:
    """The path of a file that a record names."""
    return Path(os.path.normpath(record.parent.parent / name))


def _name(path: Path, folder: Path) -> str:
    return os.path.relpath(path, folder)


def _written(outputs: Sequence[Path], folder: Path) -> Iterator[tuple[str, str | None]]:
    """Names and SHA-256 of the files among `outputs`, and of those in folders among them."""
    for output in outputs:
        if not output.is_dir():
            yield _name(output, folder), sha256_file(output) if output.is_file() else None
            continue
        if is_of_pngs(output):
            yield _name(output, folder), digest_of_names(output)
        for path in sorted(output.rglob("[!.]*")):
            if path.is_file() and path.suffix != ".png":
                yield _name(path, folder), sha256_file(path)


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
