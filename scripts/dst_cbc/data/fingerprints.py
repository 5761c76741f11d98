"""Digests of the data set's files, taken before any job: contents cause reruns, times do not.

Moving or touching the data reruns nothing. A corrected mask or an added image changes the digests
of exactly the stages that use it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm
from typing_extensions import TypedDict

from ..runtime.errors import DataError
from ..runtime.files import digest, sha256, sha256_file, write_json
from ..runtime.reading import read_json
from ..settings.data import DatasetStage
from .index import Row
from .layouts.layout import Record


class Fingerprints:
    """SHA-256 of every file of a data set; read again only where its size or time has changed.

    cache: JSON file that stores the digests, and a digest of itself: where it is damaged, all files
    are read again. A missing file has the digest "". Scenes that the workflow draws follow from
    their settings, so their files are not read.
    """

    def __init__(self, root: Path, records: Sequence[Record], dataset: DatasetStage, cache: Path):
        self._records = {record.id: record for record in records}
        self._drawn = dataset.digits.canonical() if dataset.digits else None
        self._masks = f"{dataset.drawn}/" if dataset.drawn else ""
        self._sha256: dict[str, str] = {}
        if self._drawn is None:
            masks = dataset.mask_root(root)
            files = {r.image: root / r.image for r in records}
            files |= {self._masks + r.label: masks / r.label for r in records if r.label}
            self._sha256 = _digests(files, cache)

    def used(self, ids: Iterable[str], labels: bool) -> str:
        """Return one digest of the images `ids`, in this order, and of their masks if `labels`."""
        if self._drawn is not None:
            return digest([self._drawn])
        return digest(" ".join((id, *self._of(id, labels))) for id in ids)

    def changed(self, checked: dict[str, Row], ids: Iterable[str], labels: bool) -> bool:
        """Whether an image of `ids` (or its mask, if `labels`) has changed since the data check."""
        if self._drawn is not None:
            return False
        return any(
            id not in checked
            or checked[id].image_sha256 != self._of(id, labels)[0]
            or (labels and checked[id].label_sha256 != self._of(id, labels)[1])
            for id in ids
        )

    def _of(self, id: str, labels: bool) -> tuple[str, str]:
        record = self._records[id]
        label = self._sha256[self._masks + record.label] if labels and record.label else ""
        return self._sha256[record.image], label


def _digests(files: Mapping[str, Path], cache: Path) -> dict[str, str]:
    known = _remembered(cache)
    now: dict[str, _Entry] = {}
    what = "fingerprints of the data"
    bar = tqdm(files.items(), what, unit="file", disable=None, leave=False, delay=2)
    for name, path in bar:
        try:
            status = path.stat()
        except OSError:
            now[name] = (0, 0, "")
            continue
        stamp = (status.st_size, status.st_mtime_ns)
        old = known.get(name)
        now[name] = old if old and old[:2] == stamp else (*stamp, sha256_file(path))
    if now != known:
        write_json(cache, _Cache(files=now, sha256=_digest_of(now)))
    return {name: entry[2] for name, entry in now.items()}


_Entry = tuple[int, int, str]
"""Size in bytes, time of the last change in ns, SHA-256."""


class _Cache(TypedDict):
    """The content of the cache. sha256: `_digest_of` the files."""

    files: dict[str, _Entry]
    sha256: str


def _remembered(cache: Path) -> dict[str, _Entry]:
    """Read the cache; empty if it is missing or damaged, since it only saves time.

    A cache of an earlier version has no digest and may be damaged, so it does not count either.
    """
    try:
        known: _Cache = read_json(cache, _Cache)
    except (OSError, DataError):
        return {}
    return known["files"] if known["sha256"] == _digest_of(known["files"]) else {}


def _digest_of(files: dict[str, _Entry]) -> str:
    return sha256(json.dumps(files, sort_keys=True).encode())
