"""`predictions.h5` and `histogram.npz`: what a model says of every unlabeled pixel, streamed.

The pass over the images is cut into parts. A part is an HDF5 file and its histogram, written
whole; a killed pass goes on with the first part that is missing. Parts are joined at the end, and
so are shards: neighbouring parts that one job has joined.
"""

import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import h5py
import numpy as np

from ..runtime.files import DataError, atomic, write_bytes
from ..settings.stages import PART_IMAGES
from . import confidence

KINDS = ("classes", "confidence")

# Images that are read from a file before it is opened anew.
_AT_ONCE = 64


@dataclass(frozen=True)
class Prediction:
    """One image: its row in the id list, its id, classes uint8 (H, W), confidence uint16 (H, W)."""

    row: int
    id: str
    classes: np.ndarray
    confidence: np.ndarray


def part_file(folder: Path, part: int) -> Path:
    """Name of the HDF5 file of a part; its histogram has the suffix .npz instead."""
    return folder / f"{part:06d}.h5"


@contextmanager
def new_part(folder: Path, part: int) -> Iterator[h5py.File]:
    """The HDF5 file of a part, there under its name once the block succeeds."""
    with atomic(part_file(folder, part)) as path, h5py.File(path, "w", libver="latest") as file:
        yield file


def store(file: h5py.File, items: Iterable[Prediction]) -> None:
    """Add images: of each one chunk for the classes, one for the confidences."""
    for item in items:
        for kind in KINDS:
            values = getattr(item, kind)
            dataset = file.create_dataset(
                f"{kind}/{item.row}",
                values.shape,
                values.dtype,
                chunks=values.shape,
                shuffle=True,
                compression="gzip",
            )
            dataset.attrs["id"] = item.id
            dataset.id.write_direct_chunk((0, 0), _filtered(values))


def _filtered(values: np.ndarray) -> bytes:
    """A chunk as HDF5's filters shuffle and gzip read it; equal values give equal bytes."""
    weights = values.reshape(-1).view(np.uint8).reshape(-1, values.itemsize)
    # Low bytes are noise, the others come in runs: to look for no more than runs takes half of the
    # time, and HDF5 itself can only be given a level.
    deflate = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return deflate.compress(np.ascontiguousarray(weights.T).data) + deflate.flush()


def histogram_beside(predictions: Path) -> Path:
    """The histogram that was counted in the pass of `predictions.h5`."""
    name = predictions.stem.replace("predictions", "histogram", 1)
    return predictions.with_name(f"{name}.npz")


def close_part(folder: Path, part: int, counts: np.ndarray) -> None:
    """Write the histogram of a part, last: a part without one is made again."""
    write_histogram(part_file(folder, part).with_suffix(".npz"), counts)


def part_is_closed(folder: Path, part: int) -> bool:
    """Whether both files of a part are there."""
    file = part_file(folder, part)
    return file.with_suffix(".npz").is_file() and file.is_file()


def parts_of_shard(images: int, shard: int = 1, shards: int = 1) -> range:
    """The parts of shard 1 .. `shards` of that many images."""
    parts = -(-images // PART_IMAGES)
    return range(parts * (shard - 1) // shards, parts * shard // shards)


def images_of_shard(images: int, shard: int = 1, shards: int = 1) -> slice:
    """The images of a shard, of that many."""
    parts = parts_of_shard(images, shard, shards)
    return slice(parts.start * PART_IMAGES, parts.stop * PART_IMAGES)


def join_parts(
    folder: Path, stop: int, path: Path, attributes: dict[str, str | float], start: int = 0
) -> np.ndarray:
    """`join` of the parts start .. stop - 1."""
    return join([part_file(folder, part) for part in range(start, stop)], path, attributes)


def join(files: Sequence[Path], path: Path, attributes: dict[str, str | float]) -> np.ndarray:
    """Copy all images into one file at `path`; returns the sum of the histograms.

    files: HDF5 files of parts or shards, in the order of the images; each has its histogram beside
    it, under its name with .npz.
    """
    with atomic(path) as temporary, h5py.File(temporary, "w", libver="latest") as file:
        file.attrs.update(attributes)
        for one in files:
            with h5py.File(one, "r") as source:
                rows: Any = source[KINDS[0]]
                for row in sorted(map(int, rows)):
                    for kind in KINDS:
                        source.copy(f"{kind}/{row}", file.require_group(kind), name=str(row))
    counts: Any = sum(read_histogram(one.with_suffix(".npz")) for one in files)
    return counts


def read_predictions(path: Path, ids: list[str], first: int = 0) -> Iterator[Prediction]:
    """The predictions of `ids`, in order. Raises DataError when the file is not theirs.

    first: row of the first of them in the file.
    """
    # An open file remembers every image that was read, 15 KB each; opened anew, it forgets.
    for start in range(0, len(ids), _AT_ONCE):
        yield from _read_some(path, first + start, ids[start : start + _AT_ONCE])


def read_prediction(path: Path, row: int, id: str) -> Prediction:
    """That of one image, `row` in the id list. Raises DataError when the file has another there."""
    (prediction,) = _read_some(path, row, [id])
    return prediction


def read_probabilities(path: Path, row: int, id: str) -> np.ndarray:
    """float32 (H, W): probability of the winner of one image, in 0..1."""
    return confidence.probabilities()[read_prediction(path, row, id).confidence]


def _read_some(path: Path, first: int, ids: list[str]) -> Iterator[Prediction]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(
            f"{path}: not a readable HDF5 file ({error}); delete it to make it again"
        ) from error
    with file:
        groups = [_own(file, kind, h5py.Group) for kind in KINDS]
        for row, id in enumerate(ids, first):
            classes, confidences = (_own(group, str(row), h5py.Dataset) for group in groups)
            if classes is None or confidences is None or classes.attrs["id"] != id:
                raise DataError(f"{path}: row {row} is not {id!r}; delete it to make it again")
            yield Prediction(row, id, classes[...], confidences[...])


def _own(holder: h5py.Group | None, name: str, kind: type) -> Any:
    """A group or data set whose values lie in the file itself; None: by a link, or elsewhere."""
    try:
        if holder is None or not isinstance(holder.get(name, getlink=True), h5py.HardLink):
            return None
        found = holder[name]
        elsewhere = isinstance(found, h5py.Dataset) and (found.external or found.is_virtual)
    except (KeyError, RuntimeError):
        return None
    return found if isinstance(found, kind) and not elsewhere else None


def write_histogram(path: Path, counts: np.ndarray) -> None:
    """Write int64 (classes, 65536) as a compressed .npz; equal counts give equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, counts=counts)
    write_bytes(path, buffer.getvalue())


def read_histogram(path: Path) -> np.ndarray:
    """int64 (classes, 65536). Raises DataError when it is damaged or of another shape."""
    try:
        with np.load(path, allow_pickle=False) as file:
            counts = file["counts"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable histogram ({error}); delete it") from error
    if counts.ndim != 2 or counts.shape[1] != confidence.BINS or counts.dtype != np.int64:
        raise DataError(
            f"{path}: found {counts.dtype} {counts.shape}, expected int64 (classes, 65536)"
        )
    return counts
