"""`predictions.h5` and `histogram.npz`: class and confidence of every unlabeled pixel.

A pass over the images is divided into parts. A part is an HDF5 file and its histogram, both written
atomically; a killed pass continues with the first missing part. At the end, the parts are joined
into one file. If several jobs share a pass, each joins its consecutive parts into a shard, and the
shards are joined in the same way.
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

# A file is reopened after this many images have been read.
_AT_ONCE = 64


@dataclass(frozen=True)
class Prediction:
    """Of one image: row in the id list, id, classes uint8 (H, W), confidence uint16 (H, W)."""

    row: int
    id: str
    classes: np.ndarray
    confidence: np.ndarray


def part_file(folder: Path, part: int) -> Path:
    """Path of the HDF5 file of a part; the part's histogram has the suffix .npz instead."""
    return folder / f"{part:06d}.h5"


@contextmanager
def new_part(folder: Path, part: int) -> Iterator[h5py.File]:
    """Open the HDF5 file of a new part; the file gets its name when the block succeeds."""
    with atomic(part_file(folder, part)) as path, h5py.File(path, "w", libver="latest") as file:
        yield file


def store(file: h5py.File, items: Iterable[Prediction]) -> None:
    """Add images to the file of a part: per image a chunk of classes and a chunk of confidences."""
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
    """Encode a chunk as HDF5's filters shuffle and gzip would; equal values give equal bytes."""
    weights = values.reshape(-1).view(np.uint8).reshape(-1, values.itemsize)
    # Low bytes are noise, the others come in runs: a search for runs alone takes half of the time.
    # HDF5 itself does not offer this strategy, only a level.
    deflate = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return deflate.compress(np.ascontiguousarray(weights.T).data) + deflate.flush()


def histogram_beside(predictions: Path) -> Path:
    """Path of the histogram that belongs to a `predictions.h5`."""
    name = predictions.stem.replace("predictions", "histogram", 1)
    return predictions.with_name(f"{name}.npz")


def close_part(folder: Path, part: int, counts: np.ndarray) -> None:
    """Write the histogram of a part, after its HDF5 file: a part without one is made again."""
    write_histogram(part_file(folder, part).with_suffix(".npz"), counts)


def part_is_closed(folder: Path, part: int) -> bool:
    """Whether both files of a part exist."""
    file = part_file(folder, part)
    return file.with_suffix(".npz").is_file() and file.is_file()


def parts_of_shard(images: int, shard: int = 1, shards: int = 1) -> range:
    """Numbers of the parts in shard `shard`, 1 .. `shards`, of a pass over `images` images."""
    parts = -(-images // PART_IMAGES)
    return range(parts * (shard - 1) // shards, parts * shard // shards)


def images_of_shard(images: int, shard: int = 1, shards: int = 1) -> slice:
    """The images in a shard, as a slice of all `images` images."""
    parts = parts_of_shard(images, shard, shards)
    return slice(parts.start * PART_IMAGES, parts.stop * PART_IMAGES)


def join_parts(
    folder: Path, stop: int, path: Path, attributes: dict[str, str | float], start: int = 0
) -> np.ndarray:
    """`join` of the parts start .. stop - 1."""
    return join([part_file(folder, part) for part in range(start, stop)], path, attributes)


def join(files: Sequence[Path], path: Path, attributes: dict[str, str | float]) -> np.ndarray:
    """Copy all images into one file at `path`; returns the sum of the histograms.

    files: HDF5 files of parts or shards, in the order of the images; the histogram of each file
    lies beside it, with the suffix .npz. attributes: metadata of the new file.
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
    """Yield the predictions of `ids` in order. Raises DataError if the file has other images.

    first: the row of `ids[0]` in the file.
    """
    # An open file keeps 15 KB of memory for every image that was read; reopening frees them.
    for start in range(0, len(ids), _AT_ONCE):
        yield from _read_some(path, first + start, ids[start : start + _AT_ONCE])


def read_prediction(path: Path, row: int, id: str) -> Prediction:
    """The prediction of the image `id` in row `row`. Raises DataError if another image is there."""
    (prediction,) = _read_some(path, row, [id])
    return prediction


def read_probabilities(path: Path, row: int, id: str) -> np.ndarray:
    """float32 (H, W), in 0..1: probability of the winning class in each pixel of one image."""
    return confidence.probabilities()[read_prediction(path, row, id).confidence]


def _read_some(path: Path, first: int, ids: list[str]) -> Iterator[Prediction]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(
            f"{path}: not a readable HDF5 file ({error}); delete the file to make it again"
        ) from error
    with file:
        groups = [_own(file, kind, h5py.Group) for kind in KINDS]
        for row, id in enumerate(ids, first):
            classes, confidences = (_own(group, str(row), h5py.Dataset) for group in groups)
            if classes is None or confidences is None or classes.attrs["id"] != id:
                raise DataError(
                    f"{path}: row {row} is not the image {id!r}; delete the file to make it again"
                )
            yield Prediction(row, id, classes[...], confidences[...])


def _own(holder: h5py.Group | None, name: str, kind: type) -> Any:
    """A group or data set stored in the file itself; None if it is missing, a link or elsewhere."""
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
        raise DataError(
            f"{path}: not a readable histogram ({error}); delete the file to make it again"
        ) from error
    if counts.ndim != 2 or counts.shape[1] != confidence.BINS or counts.dtype != np.int64:
        raise DataError(
            f"{path}: found {counts.dtype} {counts.shape}, expected int64 (classes, 65536); delete "
            "the file to make it again"
        )
    return counts
