"""Compare all files of a study with the records of the jobs that made them."""

import re
from collections.abc import Generator, Iterator
from pathlib import Path

from ..data.index import read_index
from ..data.layouts.annotations import DRAWN_MASKS
from ..runtime.checksums import FOLDER, is_given, place, read_record, recorded
from ..runtime.errors import DataError
from ..runtime.files import sha256_file
from ..runtime.job_record import is_shard
from ..runtime.tables import csv_header
from ..self_training.pseudo_labels import read_manifest

OWN = (".fingerprints.json", ".snakemake_timestamp", "cost.json", "thresholds.edited.csv")
"""Names of files that no job records: caches, Snakemake's own, and thresholds edited by hand."""
UNRECORDED = ("logs", "benchmarks", "masks", "tensorboard", "suggestions")
"""Folders of a study that say how its jobs went, drafts of masks, and masks of annotations."""
FREED = re.compile(r"round[0-9]+/predictions[^/]*[.]h5$")
"""Predictions of round 1 and later, which may be deleted, as shards may."""
MANIFEST = "pseudo_labels.csv"
CLASS_COLUMN = "pixels "


def is_freed(path: Path) -> bool:
    """Whether a missing result is no loss, because it is one that may be deleted."""
    return bool(FREED.search(path.as_posix())) or is_shard(path)


def verify(study: Path, data: Path | None = None) -> Iterator[tuple[str, Path]]:
    """Yield ("missing", "changed" or "foreign", path) of each file that is not as it was made.

    study: folder of the study. data: folder of its data set; None: its images are not compared.
    missing: a job recorded it; results that may be deleted do not count. foreign: no job recorded
    it, and it is no model below `given`.
    """
    known: set[Path] = set()
    folders = sorted(path.parent for path in study.rglob(FOLDER) if path.is_dir())
    if data is not None and (data / FOLDER).is_dir():
        folders.append(data)
    for folder in folders:
        for record in sorted((folder / FOLDER).glob("*.json")):
            known.add(record)
            try:
                wrote = read_record(record).wrote
            except DataError:
                yield "changed", record
                continue
            for name, digest in wrote.items():
                path = place(record, name)
                known.add(path)
                state = _state(path, digest)
                if state and not (state == "missing" and is_freed(path)):
                    yield state, path
                known |= yield from _labels(path)
    yield from (("foreign", path) for path in _others(study, known))
    if data is not None:
        yield from _images(study / "dataset.csv", data)


def verify_file(path: Path) -> Iterator[tuple[str, Path]]:
    """`verify` of one file, and of the PNGs that it names if it is a manifest pseudo_labels.csv."""
    known = recorded(path)
    state = _state(path, known[1]) if known else "" if path.name == MANIFEST else "foreign"
    if state:
        yield state, path
    else:
        yield from _labels(path)


def _state(path: Path, digest: str | None) -> str:
    """ "missing", "changed", or "" if a file or a folder of PNGs has this SHA-256."""
    if not path.exists():
        return "missing"
    if path.is_dir():
        # The manifest beside it names each PNG.
        return ""
    return "" if sha256_file(path) == digest else "changed"


def class_names(manifest: Path) -> list[str]:
    """Names of the classes, from the header of pseudo_labels.csv."""
    columns = csv_header(manifest)
    return [name.removeprefix(CLASS_COLUMN) for name in columns if name.startswith(CLASS_COLUMN)]


def _labels(manifest: Path) -> Generator[tuple[str, Path], None, set[Path]]:
    """Compare the PNGs that a manifest names; returns those that do not count as foreign.

    If the manifest is damaged itself, its PNGs are not compared.
    """
    folder = manifest.with_suffix("")
    if manifest.name != MANIFEST or not folder.is_dir():
        return set()
    try:
        rows = read_manifest(manifest, class_names(manifest))
    except (DataError, FileNotFoundError):
        return set(folder.rglob("*.png"))
    digests = {folder / f"{row.id}.png": row.sha256 for row in rows}
    for png, digest in digests.items():
        if state := _state(png, digest):
            yield state, png
    return set(digests)


def _others(study: Path, known: set[Path]) -> Iterator[Path]:
    free = [study / name for name in UNRECORDED]
    for path in sorted(study.rglob("*")):
        is_ours = path in known or path.name in OWN or path.suffix in (".begun", ".tmp")
        is_ours = is_ours or is_given(path)
        if not is_ours and path.is_file() and not any(map(path.is_relative_to, free)):
            yield path


def _images(index: Path, data: Path) -> Iterator[tuple[str, Path]]:
    """Compare images and masks with dataset.csv, unless it is missing or damaged itself.

    Masks that are drawn from annotations lie beside it.
    """
    masks = index.parent / "masks"
    if not (masks / DRAWN_MASKS).is_file():
        masks = data
    try:
        rows = read_index(index)
    except (DataError, FileNotFoundError):
        return
    for row in rows.values():
        files = {data / row.image: row.image_sha256}
        if row.label:
            files[masks / row.label] = row.label_sha256
        for path, digest in files.items():
            if state := _state(path, digest):
                yield state, path
