"""The record that a job writes at its end: checksums of what its process has read and written."""

import json
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .checksums import (
    Checksums,
    begun,
    both,
    compared,
    digest_of_names,
    files_read,
    is_given,
    is_of_pngs,
    is_timed,
    place,
    read_record,
    recorded,
    records_in,
    settle,
    update,
    write_record,
)
from .errors import DataError
from .files import sha256, sha256_file, write_text, written

_SHARD = re.compile(r"\.[0-9]+of[0-9]+(\.|$)")


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
    file that the job read has changed since it was made, or another record there is damaged.
    """
    text = os.environ.pop("CHECKSUMS", None)
    if not text:
        return None
    record, *outputs = map(Path, json.loads(text))
    settings = sys.argv[sys.argv.index("--settings") + 1] if "--settings" in sys.argv else ""
    job = Job(record, outputs, Path(sys.argv[0]).stem, digest_of_settings(settings))
    records = [path for path in both(record) if path.is_file()]
    if records:
        # Before the comparison, whose error lets Snakemake delete the results, too.
        write_text(begun(record), "")
    for path in records:
        if not _is_repeated(path, job.settings):
            path.unlink()
    # Not only at the end, where a damaged record would spoil hours of work.
    records_in(record.parent.parent)
    return job


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
        path.is_file() and compared(path) == digest for path, digest in files.items()
    )


def finish(job: Job) -> None:
    """Write the record of the job of this process. Raises DataError as `settle`."""
    settle()
    write(job, files_read())
    begun(job.record).unlink(missing_ok=True)


def note_written() -> None:
    """Record the results that a command which a person started has written, as they are now."""
    for path in sorted(written):
        if known := recorded(path):
            update(known[0], path)


def unwritten(job: Job) -> list[Path]:
    """The records of a job that do not exist."""
    timed = [is_timed(path.name) for path in job.outputs]
    records = zip(both(job.record), (not all(timed), any(timed)), strict=True)
    return [record for record, is_needed in records if is_needed and not record.exists()]


def write(job: Job, read: Mapping[Path, str], only: Collection[Path] | None = None) -> None:
    """Write the records of a job that has read these files: path -> SHA-256.

    only: the records to write; None: all. The names of these files are removed from the records of
    other jobs, which made them in an earlier version of the study.
    """
    folder = job.record.parent.parent
    wrote = dict(_written(job.outputs, folder))
    timed = {name for name in wrote if is_timed(name)}
    sources, of_times = _sources(folder, read)
    for record, before in records_in(folder).items():
        left = {name: known for name, known in before.wrote.items() if name not in wrote}
        if record not in both(job.record) and left != before.wrote:
            write_record(record, replace(before, wrote=left)) if left else record.unlink()
    for record, names in zip(both(job.record), (wrote.keys() - timed, timed), strict=True):
        if names and (only is None or record in only):
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
            inside = Path(os.path.abspath(path)).is_relative_to(Path("results").absolute())
            if is_given(path) or not inside:
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
