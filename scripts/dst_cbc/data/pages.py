"""The pages of a TIFF: which are images of a stack, and which are channels of one image.

A page of a stack has a path of its own, the file and the number of the page, counted from 1:
`images/stack.tif/0003`; the id of this image is `stack/0003`. A reduced copy or a mask of a page,
as in a GeoTIFF, is no page. OME-TIFF, ImageJ and tifffile say which pages are channels.
"""

import io
import json
import os
import re
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ..runtime.errors import DataError
from ..runtime.files import open_regular, sha256_file

TIFF_SUFFIXES = (".tif", ".tiff")
MOST_DIRECTORIES = 1 << 16
"""Files of more pages, copies and masks are refused."""

_NUMBER = re.compile("[0-9]{4}|[1-9][0-9]{4,5}")
_MOST_DESCRIPTION = 1 << 24
# A pyramid of any image that is read has fewer.
_MOST_COPIES = 32
_SUBFILE, _OLD_SUBFILE, _WIDTH, _LENGTH, _BITS, _DESCRIPTION = 254, 255, 256, 257, 258, 270
_SAMPLES, _STK_PLANES = 277, 33629
# By TIFF's version (43: BigTIFF), in the notation of `struct`: an offset, a number of entries, and
# an entry; then the place of the first offset.
_FORMS = {42: ("I", "H", "HHI4s", 4), 43: ("Q", "Q", "HHQ8s", 8)}
_WRITE_AGAIN = (
    "write it again: s = tifffile.TiffFile(OLD).series[0]; tifffile.imwrite(NEW, s.asarray(), "
    "photometric='minisblack', metadata={'axes': s.axes})"
)


def split(path: PurePath) -> tuple[Path, int | None]:
    """Return the file of an image, and the number of its page; None if it is the whole file."""
    file, name = path.parent, path.name
    if file.suffix.lower() in TIFF_SUFFIXES and _NUMBER.fullmatch(name):
        return Path(file), int(name)
    return Path(path), None


def file_of(path: str) -> str:
    """Return the path of the file of an image, which may be a page."""
    return split(PurePath(path))[0].as_posix()


def numbered(page: int) -> str:
    """Return the last part of a page's path and id."""
    return f"{page:04}"


def listed(root: Path, path: str, mask: bool = False) -> list[str]:
    """Return the paths of the pages of a stack; for any other file, its own path.

    path: below `root`. mask: as for `Stack.pages`. A damaged file counts as one image; whoever
    decodes it says what is wrong.
    """
    if not path.lower().endswith(TIFF_SUFFIXES):
        return [path]
    try:
        count = len(stack_of(root / path).pages(mask))
    except (DataError, OSError):
        return [path]
    return [path] if count == 1 else [f"{path}/{numbered(n)}" for n in range(1, count + 1)]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of an image's file.

    The file of a page is read again only when its size or its time has changed.
    """
    file, page = split(path)
    return sha256_file(file) if page is None else remembered(_sha256, file)


@dataclass(frozen=True)
class Stack:
    """The images in a file.

    images: for each image, and in it for each plane, the beginning of a file that has only this
    plane; an image has several planes if its channels are pages. names: of the channels, "" for one
    without a name; empty if the file names none.
    """

    images: Sequence[tuple[bytes, ...]]
    names: tuple[str, ...] = ()

    def pages(self, mask: bool) -> Sequence[tuple[bytes, ...]]:
        """Return the images. Each plane of a mask is one: programs say "channels" of any stack."""
        return [(plane,) for planes in self.images for plane in planes] if mask else self.images


def stack_of(path: Path) -> Stack:
    """Return the images in a file; the directories of a TIFF are read, and no pixels.

    Raises DataError for a TIFF whose directories are damaged, in a circle, more than
    MOST_DIRECTORIES, or not those that the file describes.
    """
    return remembered(_stack, path)


class Plane:
    """A file that begins with other bytes, so that all programs see one page of it first."""

    def __init__(self, file: io.BufferedReader, beginning: bytes):
        self._file, self._beginning = file, beginning

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        place = self._file.tell()
        found = self._file.read(size)
        start = self._beginning[place : place + len(found)]
        return start + found[len(start) :]


def remembered(function: Any, path: Path) -> Any:
    """Call a function that has a cache: it is called again only when the file has changed."""
    status = path.stat()
    return function(path, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256(path: Path, *_: int) -> str:
    return sha256_file(path)


@lru_cache(maxsize=1024)
def _stack(path: Path, *_: int) -> Stack:
    with open_regular(path) as file:
        start = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(start[:2], "")
        form = (
            _FORMS.get(struct.unpack(f"{order}H", start[2:4])[0]) if order and start[3:] else None
        )
        if form is None:
            return Stack([(b"",)])
        found = list(_directories(path, file, order, form))
        full = [one for one in found if not one.is_copy] or found[:1]
        if len(found) - len(full) > _MOST_COPIES * len(full):
            raise DataError(f"{path}: more than {_MOST_COPIES} reduced copies or masks of a page")
        sizes = {(one.number(_WIDTH, 0), one.number(_LENGTH, 0)) for one in full}
        if len(sizes) > 1:
            shown = " and ".join(f"{width} x {height}" for width, height in sorted(sizes)[:2])
            raise DataError(
                f"{path}: pages of {len(sizes)} sizes, such as {shown}, which are no stack; write "
                "the images that you need to files of their own"
            )
        word, place = form[0], form[3]
        beginnings = [start[:place] + struct.pack(order + word, one.place) for one in full]
        beginnings[0] = b""  # as it is
        said = _description(file, found[0])
        size = file.seek(0, os.SEEK_END)
    try:
        if (frames := _frames(said, found[0], size)) > len(full):
            raise DataError(
                f"{path}: {frames} pages, of which only {len(full)} can be found; {_WRITE_AGAIN}"
            )
        numbers, names = _channels(said, len(full), found[0].number(_SAMPLES, 1))
    except DataError:
        raise
    # The description is free text: json, ElementTree and NumPy raise errors of any class.
    except Exception as error:
        if len(full) > 1:
            raise DataError(
                f"{path}: its description does not fit its pages ({error}); {_WRITE_AGAIN}"
            ) from None
        return Stack([(beginnings[0],)])
    return Stack([tuple(beginnings[n] for n in planes) for planes in numbers], names)


@dataclass(frozen=True)
class _Directory:
    """What a TIFF says of one page. entries: type, count and bytes of a value or of its place."""

    place: int
    order: str
    entries: Mapping[int, tuple[int, int, bytes]]

    def number(self, tag: int, default: int) -> int:
        """The first number of a short entry."""
        if tag not in self.entries:
            return default
        kind, _, value = self.entries[tag]
        return struct.unpack_from(self.order + ("H" if kind == 3 else "I"), value)[0]

    @property
    def is_copy(self) -> bool:
        """Whether it is a reduced copy or a mask of another page."""
        return bool(self.number(_SUBFILE, 0) & 5) or self.number(_OLD_SUBFILE, 0) == 2


def _directories(
    path: Path, file: io.BufferedReader, order: str, form: tuple[str, str, str, int]
) -> Iterator[_Directory]:
    word, number, entry = (struct.Struct(order + one) for one in form[:3])
    size = left = file.seek(0, os.SEEK_END)
    file.seek(form[3])
    pages = 0
    # Some programs leave out the end of the last directory.
    while offset := word.unpack(file.read(word.size).ljust(word.size, b"\0"))[0]:
        if pages == MOST_DIRECTORIES:
            raise DataError(
                f"{path}: more than {MOST_DIRECTORIES} pages, the most that are read; write them "
                "to several files"
            )
        pages += 1
        file.seek(min(offset, size))
        (count,) = number.unpack(file.read(number.size).ljust(number.size, b"\xff"))
        # Directories in a circle, or that overlap, would take more than the file.
        left -= number.size + count * entry.size + word.size
        content = file.read(count * entry.size) if left >= 0 else b""
        if left < 0 or len(content) < count * entry.size:
            raise DataError(
                f"{path}: damaged or cut off: the directory of page {pages} is not in the file, or "
                "occurs twice; replace or remove it"
            )
        entries = {tag: (kind, many, v) for tag, kind, many, v in entry.iter_unpack(content)}
        yield _Directory(offset, order, entries)
    if not pages:
        raise DataError(f"{path}: damaged: a TIFF without a page; replace or remove it")


def _description(file: io.BufferedReader, directory: _Directory) -> str:
    _, count, value = directory.entries.get(_DESCRIPTION, (2, 0, b""))
    if count > len(value):
        file.seek(struct.unpack(directory.order + ("I" if len(value) == 4 else "Q"), value)[0])
        value = file.read(min(count, _MOST_DESCRIPTION))
    return value[:count].rstrip(b"\0").decode("utf-8", "replace").strip()


# --------------------------------------------------------------------------- channels


def _frames(said: str, directory: _Directory, size: int) -> int:
    """Return how many pages a file has, as it says; 0 if it says nothing, or is too small for them.

    With one directory for all pages, ImageJ writes large stacks, MetaMorph any stack, and tifffile
    on request. size: of the file.
    """
    frames = directory.entries.get(_STK_PLANES, (0, 0))[1]
    pixels = directory.number(_WIDTH, 1) * directory.number(_LENGTH, 1)
    if said.startswith("ImageJ="):
        frames = int(_imagej(said).get("images", 1))
    elif '"truncated": true' in said:
        frames = prod(json.loads(said)["shape"]) // (pixels * directory.number(_SAMPLES, 1))
    # A page that was cut out of a stack may have kept the description.
    fit = frames * pixels * max(1, directory.number(_BITS, 8) // 8) <= size
    return frames if fit else 0


def _channels(
    said: str, pages: int, samples: int
) -> tuple[Sequence[tuple[int, ...]], tuple[str, ...]]:
    """Return for each image the numbers of the pages that are its channels, and their names.

    said: the description of the first page. samples: channels within a page. Raises an error of any
    class if the description is damaged or describes other pages.
    """
    if "<OME" in said:
        return _ome(said, pages)
    axes, shape = "", []
    if said.startswith("ImageJ="):
        sizes = _imagej(said)
        axes, shape = "TZC", [int(sizes.get(key, 1)) for key in ("frames", "slices", "channels")]
    elif said.startswith('{"shape"'):
        known = json.loads(said)
        axes = known.get("axes", "").partition("YX")[0]
        shape = known["shape"][: len(axes)]
    if "C" not in axes or samples > 1 or pages == 1:
        return [(page,) for page in range(pages)], ()
    if prod(shape) != pages:
        raise ValueError(f"it describes {prod(shape)} pages, but there are {pages}")
    return _joined(np.arange(pages), axes, shape), ()


def _imagej(said: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def _joined(numbers: np.ndarray, axes: str, shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the numbers of pages, given in the order of the axes, by image and channel."""
    images = np.moveaxis(numbers.reshape(shape), axes.index("C"), -1)
    return [tuple(image) for image in images.reshape(-1, images.shape[-1]).tolist()]


def _ome(said: str, pages: int) -> tuple[Sequence[tuple[int, ...]], tuple[str, ...]]:
    """`_channels` of OME-XML; the images of several positions follow one another."""
    if "<!DOCTYPE" in said or "<!ENTITY" in said:
        raise ValueError("OME-XML with a DOCTYPE, which is not read")
    images, names, used = [], [], []
    for pixels in ElementTree.fromstring(said).findall("{*}Image/{*}Pixels"):
        channels = pixels.findall("{*}Channel")
        names.append(tuple(channel.get("Name", "") for channel in channels))
        # DimensionOrder, such as XYCZT, names the fastest axis first.
        axes = pixels.attrib["DimensionOrder"][:1:-1]
        sizes = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in axes}
        sizes["C"] //= int(channels[0].get("SamplesPerPixel", 1)) if channels else 1
        shape = [*sizes.values()]
        if len(used) + prod(shape) > pages:
            raise ValueError(f"it describes {len(used) + prod(shape)} or more, not {pages}")
        numbers = _places(pixels, axes, shape, len(used))
        used += numbers.tolist()
        images += _joined(numbers, axes, shape)
    if sorted(used) != [*range(pages)]:
        raise ValueError(f"it describes {len({*used})} of {pages}")
    if len({*names}) > 1 or len({len(planes) for planes in images}) > 1:
        raise ValueError("its images have different channels")
    return images, names[0] if any(names[0]) and len(names[0]) == len(images[0]) else ()


def _places(pixels: ElementTree.Element, axes: str, shape: list[int], first: int) -> np.ndarray:
    """Return the number of the page of each plane, in the order of the axes."""
    numbers = np.arange(first, first + prod(shape))
    left = len(numbers)
    for data in pixels.findall("{*}TiffData"):
        plane = np.ravel_multi_index([int(data.get(f"First{axis}", 0)) for axis in axes], shape)
        page = int(data.get("IFD", first))
        count = int(data.get("PlaneCount", 1 if "IFD" in data.attrib else left))
        left -= count
        if not 0 < count <= len(numbers) - plane or left < 0:
            raise ValueError("its TiffData overlap")
        numbers[plane : plane + count] = range(page, page + count)
    return numbers
