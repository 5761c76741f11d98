"""Reads damaged files in a process of its own, with little memory and time; prints what went wrong.

    python tests/hostile/worker.py STUDY FOLDER FIRST:COUNT READER [FIRST:COUNT READER …]

STUDY: folder of a finished study, which is changed. Each damaged file is written to its place in
STUDY, then read. For each fault, a line of JSON is printed, and the file is kept in FOLDER.
FOLDER/current says which file is being read, so that a crash can be told, too.
"""

import contextlib
import json
import os
import resource
import sys
import traceback
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "scripts")]

import readers  # noqa: E402

MEMORY = 2 << 30
"""Bytes that a reader may take, beside what Python and its libraries have."""
SECONDS = 10
"""Processor time in which a file must be read."""


def run(study: Path, folder: Path, jobs: list[tuple[int, int, str]]) -> None:
    by_name = {reader.name: reader for reader in readers.READERS}
    chosen = [(first, count, by_name[name]) for first, count, name in jobs]
    samples = [_samples(reader, study) for _, _, reader in chosen]
    # What the readers print goes to a file; Python's own reports, too.
    said = open(folder / "said", "w+b")  # noqa: SIM115
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(said.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warnings.simplefilter("always", ResourceWarning)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for (first, count, reader), valid in zip(chosen, samples, strict=True):
        for content in valid:
            assert reader.past(content), f"{reader.name}: a valid file is not past its header"
            if not reader.refused:
                _write(reader, study, content)
                reader.read(study)
        past = 0
        for seed in range(first, first + count):
            content = readers.damaged(reader, valid, seed)
            past += reader.past(content)
            (folder / "current").write_text(f"{seed} {reader.name}")
            fault = _fault(reader, study, content)
            printed = _taken(said)
            if reader.group == "images" and "Warning: " not in printed:
                printed = ""  # by decoders in C, which nothing in Python can silence
            if fault or printed:
                kept = folder / f"{seed}-{Path(reader.name).name}"
                kept.write_bytes(content)
                line = {
                    "reader": reader.name,
                    "seed": seed,
                    "fault": fault or "printed: " + printed,
                }
                print(json.dumps({**line, "file": str(kept)}), file=out)
        # The readers after this one need the valid file.
        _write(reader, study, valid[0])
        print(json.dumps({"reader": reader.name, "read": count, "past": past}), file=out)


def _samples(reader: readers.Reader, study: Path) -> list[bytes]:
    if reader.samples is None:
        return [(study / reader.name).read_bytes()]
    return reader.samples(study)


def _write(reader: readers.Reader, study: Path, content: bytes) -> None:
    path = study / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _fault(reader: readers.Reader, study: Path, content: bytes) -> str:
    """Write and read one file; return what went wrong, or ""."""
    _write(reader, study, content)
    used = resource.getrusage(resource.RUSAGE_SELF)
    end = int(used.ru_utime + used.ru_stime) + SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))
    try:
        with contextlib.suppress(*readers.OWN):
            reader.read(study)
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return f"{type(error).__name__}: {str(error)[:200]} ({where})"
    return ""


def _taken(said) -> str:
    """What was printed since the last call."""
    if not said.seek(0, os.SEEK_END):
        return ""
    said.seek(0)
    text = said.read().decode(errors="replace")
    said.seek(0)
    said.truncate()
    return text[-300:]


if __name__ == "__main__":
    arguments = sys.argv[3:]
    spans = [tuple(map(int, span.split(":"))) for span in arguments[::2]]
    run(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        [(*span, name) for span, name in zip(spans, arguments[1::2], strict=True)],
    )
