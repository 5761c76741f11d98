"""`predictions.h5` and `histogram.npz`: class and confidence of every unlabeled pixel.

A pass over the images is divided into parts. A part is an HDF5 file and its histogram, both written
atomically; a killed pass continues with the first missing part. At the end, the parts are joined
into one file. If several jobs share a pass, each joins its consecutive parts into a shard, and the
shards are joined in the same way.
"""

import io
import math
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import h5py
import numpy as np
from numpy.lib import format as npy

from ..data.images import MOST_PIXELS
from ..runtime import checksums
from ..runtime.errors import DataError
from ..runtime.files import atomic, open_regular, write_bytes
from ..runtime.reading import explained
from ..settings.data import IGNORED
from ..settings.stages import PART_IMAGES
from . import confidence, hdf5_heaps

DTYPES = {"classes": np.dtype("<u1"), "confidence": np.dtype("<u2")}
KINDS = tuple(DTYPES)

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


def store(file: h5py.File, items: Sequence[Prediction], threads: int = 1) -> None:
    """Add images to the file of a part: per image a chunk of classes and a chunk of confidences.

    threads: number of chunks that are encoded at once.
    """
    chunks = [(item, kind) for item in items for kind in KINDS]
    with ThreadPoolExecutor(threads) as pool:
        encoded = pool.map(lambda chunk: _filtered(getattr(*chunk)), chunks)
        for (item, kind), content in zip(chunks, encoded, strict=True):
            values = getattr(item, kind)
            dataset = file.create_dataset(
                f"{kind}/{item.row}",
                values.shape,
                values.dtype,
                chunks=values.shape,
                shuffle=True,
                compression="gzip",
            )
            id = item.id.encode()
            # Of fixed length: texts of any length lie in a heap, which may be damaged.
            dataset.attrs.create("id", id, dtype=h5py.string_dtype("utf-8", len(id)))
            dataset.id.write_direct_chunk((0, 0), content)


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
    lies beside it, with the suffix .npz. attributes: metadata of the new file. Raises DataError
    when one of the files is damaged.
    """
    with atomic(path) as temporary, h5py.File(temporary, "w", libver="latest") as file:
        file.attrs.update(attributes)
        for one in files:
            with _reading(one, path.parent) as source:
                rows: Any = source[KINDS[0]]
                for row in sorted(map(int, rows)):
                    for kind in KINDS:
                        source.copy(
                            _stored(source, kind, row), file.require_group(kind), name=str(row)
                        )
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
    with _reading(path) as file:
        for row, id in enumerate(ids, first):
            stored = [_stored(file, kind, row) for kind in KINDS]
            if _id_of(stored[0]) != id or stored[0].shape != stored[1].shape:
                raise DataError(f"{path}: row {row} is not the image {id!r}; {_ADVICE}")
            yield Prediction(row, id, *map(_decoded, stored))


_ADVICE = "delete the file to make it again"


@contextmanager
def _reading(path: Path, target: Path | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file; whatever h5py raises over its content becomes a DataError.

    target: a folder to which the content is copied; errors of its full disk keep their class.
    """
    open_regular(path).close()
    checksums.check(path)
    with explained(path, "predictions in HDF5", _ADVICE, target), h5py.File(path, "r") as file:
        yield file


def _stored(file: h5py.File, kind: str, row: int) -> h5py.Dataset:
    """The data set of one image, as `store` writes it. Raises DataError for any other.

    It lies in the file itself, in one chunk that is compressed by shuffle and gzip, and does not
    claim more values than this chunk can hold.
    """
    place, holder = f"{file.filename}: row {row}", file
    for name in (kind, str(row)):
        # A link could lead to another file.
        if not isinstance(holder.get(name, getlink=True), h5py.HardLink):
            raise DataError(f"{place}: no {kind}, or a link to them; {_ADVICE}")
        holder: Any = holder[name]
    found: Any = holder
    if not isinstance(found, h5py.Dataset) or (found.dtype, found.ndim) != (DTYPES[kind], 2):
        raise DataError(
            f"{place}: {kind}: found {found}, expected {DTYPES[kind]} (height, width); {_ADVICE}"
        )
    filters = found.id.get_create_plist()
    used = [filters.get_filter(i)[0] for i in range(filters.get_nfilters())]
    packed = found.id.get_storage_size()
    if (
        used != [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]
        or not 0 < math.prod(found.shape) <= MOST_PIXELS
        or not found.nbytes / 1100 <= packed <= found.nbytes + found.nbytes // 100 + 64
    ):
        raise DataError(
            f"{place}: {kind}: found {found.shape} in chunks {found.chunks} with filters {used}, "
            f"{packed} bytes; expected one chunk of shuffle and gzip; {_ADVICE}"
        )
    return found


def _id_of(dataset: h5py.Dataset) -> Any:
    """The attribute `id`; None if there is none, or an array."""
    if "id" not in dataset.attrs or dataset.attrs.get_id("id").shape != ():
        return None
    if dataset.attrs.get_id("id").dtype.kind != "S":  # a file of an earlier version
        hdf5_heaps.require_sound(Path(dataset.file.filename))
    found: Any = dataset.attrs["id"]
    return found.decode() if isinstance(found, bytes) else found


def _decoded(dataset: h5py.Dataset) -> np.ndarray:
    """Decode a chunk, the inverse of `_filtered`; takes no more memory than the data set claims."""
    unused, chunk = dataset.id.read_direct_chunk((0, 0))
    inflate = zlib.decompressobj()
    content = inflate.decompress(chunk, dataset.nbytes + 1)
    if unused or len(content) != dataset.nbytes or not inflate.eof:
        raise ValueError(f"{dataset.name}: its chunk does not hold {dataset.nbytes} bytes")
    weights = np.frombuffer(content, np.uint8).reshape(dataset.dtype.itemsize, -1)
    # A twentieth of the time of transposing the bytes.
    values = weights[-1].astype(dataset.dtype)
    for weight in weights[-2::-1]:
        values <<= 8
        values |= weight
    return values.reshape(dataset.shape)


def write_histogram(path: Path, counts: np.ndarray) -> None:
    """Write int64 (classes, 65536) as a compressed .npz; equal counts give equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, counts=counts)
    write_bytes(path, buffer.getvalue())


def read_histogram(path: Path) -> np.ndarray:
    """int64 (classes, 65536), all from 0 on. Raises DataError when it is damaged or another."""
    row = confidence.BINS * 8
    checksums.check(path)
    with explained(path, "a histogram", _ADVICE), warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_regular(path) as file, ZipFile(file) as archive, archive.open(_COUNTS) as member:
            npy.read_magic(member)
            shape, by_column, dtype = npy.read_array_header_1_0(member)
            if len(shape) != 2 or shape[1] != confidence.BINS or dtype != np.int64 or by_column:
                raise DataError(
                    f"{path}: found {dtype} {shape}, expected int64 (classes, 65536); {_ADVICE}"
                )
            if not 0 < shape[0] <= IGNORED:
                raise DataError(f"{path}: {shape[0]} classes, expected 1 to {IGNORED}; {_ADVICE}")
            content = member.read(shape[0] * row + 1)
    if len(content) != shape[0] * row:
        raise DataError(f"{path}: {len(content)} bytes of {shape[0]} classes; {_ADVICE}")
    counts = np.frombuffer(content, np.int64).reshape(shape)
    if counts.min() < 0 or counts.max() > MOST_PIXELS << 24:
        raise DataError(f"{path}: counts from {counts.min()} to {counts.max()}; {_ADVICE}")
    return counts


_COUNTS = "counts.npy"
