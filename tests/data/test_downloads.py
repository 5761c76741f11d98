import bz2
import gzip
import io
import lzma
import re
import stat
import tarfile
import tracemalloc
import zipfile
from dataclasses import replace
from email.message import Message
from http.client import BadStatusLine
from urllib.error import URLError
from urllib.request import Request

import pytest

from dst_cbc.data import downloads
from dst_cbc.data.downloads import SOURCES, Source, digest_of, download, fetch, unpack
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.files import sha256
from workflow import REPOSITORY

FILES = {"train/a.png": b"1", "train/b.png": b"22", "val/c.png": b"333"}


def archive(files, top="repository-master/Set/"):
    """Bytes of a zip archive; a name may be a ZipInfo."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(top + name if isinstance(name, str) else name, content)
    return buffer.getvalue()


def tar_archive(files, top="top/Set/", mode="w"):
    """Bytes of a tar archive; a name may be a TarInfo."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        for name, content in files.items():
            info = tarfile.TarInfo(top + name) if isinstance(name, str) else name
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def source(tmp_path):
    for name, content in FILES.items():
        (tmp_path / "expected" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "expected" / name).write_bytes(content)
    digest = digest_of(tmp_path / "expected", ("train",))
    return Source("https://example.org/set.zip", "Set", {"train": 2, "val": 1}, ("train",), digest)


@pytest.fixture
def serve(monkeypatch):
    """Function that sets what each later download returns or raises."""

    def answer(content, length=None):
        class Opener:
            def open(self, request, timeout):
                if isinstance(content, Exception):
                    raise content
                response = io.BytesIO(content)
                size = len(content) if length is None else length
                response.headers = {"Content-Length": str(size)}
                return response

        monkeypatch.setattr(downloads, "build_opener", lambda *_: Opener())

    return answer


def test_a_data_set_comes_whole_and_without_the_rest_of_the_archive(source, serve, tmp_path):
    other = zipfile.ZipInfo("repository-master/README.md")
    serve(archive({**FILES, other: b"no data"}))
    download(source, tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes()
             for p in (tmp_path / "out").rglob("*") if p.is_file()}  # fmt: skip
    assert found == FILES


@pytest.mark.parametrize(
    "files, reason",
    [
        ({"train/a.png": b"1"}, r"found {'train': 1, 'val': 0} files, expected {'train': 2"),
        ({**FILES, "train/b.png": b"23"}, "the files below train have other contents"),
        ({"../../../up.png": b""}, r"up\.png' would leave its folder"),
    ],
    ids=["another count", "another content", "out of its folder"],
)
def test_another_data_set_leaves_nothing_behind(files, reason, source, serve, tmp_path):
    serve(archive(files))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=reason):
        download(source, tmp_path / "out")
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_of_a_tar_archive_comes_what_is_asked_for(mode, serve, tmp_path):
    content = tar_archive({**FILES, "trainaug.txt": b"", "notes/n.txt": b"no data"}, mode=mode)
    serve(content)
    url, keep = "https://example.org/set.tar", ("train", "val/c.png")
    source = Source(url, "Set", {"train": 2}, sha256=sha256(content), keep=keep)
    download(source, tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes()
             for p in (tmp_path / "out").rglob("*") if p.is_file()}  # fmt: skip
    assert found == FILES
    before = set(tmp_path.rglob("*"))
    serve(content + b"more")
    with pytest.raises(DataError, match=rf"SHA-256 .*, expected {source.sha256}; try again"):
        download(source, tmp_path / "other")
    serve(content)
    with pytest.raises(DataError, match=r"found {'train': 2} files, expected {'train': 3}"):
        download(replace(source, counts={"train": 3}), tmp_path / "other")
    assert set(tmp_path.rglob("*")) == before


def test_a_data_set_is_prepared_after_it_was_verified_and_says_its_licence(source, serve, tmp_path):
    def prepare(unpacked, folder):
        (folder / "masks").mkdir(parents=True)
        (unpacked / "train/b.png").rename(folder / "masks/b.png")
        return "b is enough."

    source = replace(source, prepare=prepare, licence="CC0 1.0")
    serve(archive(FILES))
    download(source, tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix(): p.read_text()
             for p in (tmp_path / "out").rglob("*") if p.is_file()}  # fmt: skip
    assert found == {
        "masks/b.png": "22",
        "README.txt": "Source: https://example.org/set.zip\n\nLicence: CC0 1.0\n\n"
        "Prepared: b is enough.",
    }
    before = set(tmp_path.rglob("*"))
    serve(archive({**FILES, "train/b.png": b"23"}))
    with pytest.raises(DataError, match="have other contents than expected"):
        download(source, tmp_path / "other")
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("make", [archive, tar_archive])
def test_the_whole_archive_may_be_the_data_set(make, serve, tmp_path):
    serve(make(FILES, top="dataset-36290d0/"))
    source = Source("https://example.org/set.zip", "", {"train": 2}, keep=("train",))
    download(source, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").rglob("*.png")} == {"a.png", "b.png"}


@pytest.mark.parametrize("type", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_a_tar_archive_are_refused_where_they_would_be_unpacked(
    type, tmp_path
):
    special = tarfile.TarInfo("top/Set/train/a.png")
    special.type, special.linkname = type, "/etc/passwd"
    (tmp_path / "a.tar").write_bytes(tar_archive({special: b""}))
    with pytest.raises(DataError, match=r"'top/Set/train/a\.png' is a link or a device"):
        unpack(tmp_path / "a.tar", "Set", tmp_path / "out")
    unpack(tmp_path / "a.tar", "Set", tmp_path / "out", ("val",))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["/etc/x", "top/Set/../../../x", "top/Set/..\\x"])
def test_a_tar_archive_that_would_leave_its_folder_is_refused(name, tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_archive({tarfile.TarInfo(name): b"1"}))
    with pytest.raises(DataError, match="would leave its folder"):
        unpack(tmp_path / "a.tar", "Set", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tar_archive_that_unpacks_to_too_much_or_is_cut_off_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.tar"
    content = tar_archive({"a": bytes(3000), "b": bytes(3000)}, mode="w:gz")
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"not readable as a zip, tar or tar\.gz archive"):
        unpack(path, "Set", tmp_path / "out")
    path.write_bytes(content)
    monkeypatch.setattr(downloads, "LARGEST", 5000)
    with pytest.raises(DataError, match="unpacks to more than 5000 bytes"):
        unpack(path, "Set", tmp_path / "out")


def test_members_that_are_absolute_or_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("top/Set/train/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    for member, reason in ((zipfile.ZipInfo("/etc/x"), "would leave"), (link, "is a link")):
        (tmp_path / "a.zip").write_bytes(archive({member: b"/etc/passwd"}))
        with pytest.raises(DataError, match=reason):
            unpack(tmp_path / "a.zip", "Set", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(archive({"train/a.png": bytes(5000)}))
    monkeypatch.setattr(downloads, "LARGEST", 4000)
    with pytest.raises(DataError, match="unpacks to more than 4000 bytes"):
        unpack(tmp_path / "a.zip", "Set", tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"<html>", archive(FILES)[:-30]])
def test_a_damaged_archive_is_refused(content, tmp_path):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"not readable as a zip, tar or tar\.gz archive"):
        unpack(tmp_path / "a.zip", "Set", tmp_path / "out")


def zipped(change=None, method=zipfile.ZIP_DEFLATED, names=("train/a.png",)):
    """A zip archive; change: function that changes its bytes, a bytearray."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name in names:
            file.writestr(f"top/Set/{name}", b"1" * 99)
    content = bytearray(buffer.getvalue())
    if change:
        change(content, content.index(b"PK\1\2"))
    return bytes(content)


def set_bytes(at, value, width=2):
    """Set a field of the first entry in a zip archive's list, and where it has one, of the file."""

    def change(content, directory):
        content[directory + at : directory + at + width] = value.to_bytes(width, "little")
        if at == 8:
            content[6:8] = value.to_bytes(2, "little")

    return change


def flip_a_pixel(content, directory):
    content[directory - 3] ^= 1


def tarred(*members, header=b""):
    """A tar.gz archive. members: TarInfo, or a name. header: bytes that come before all members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as file:
        for one in members:
            info = tarfile.TarInfo(f"top/Set/{one}") if isinstance(one, str) else one
            file.addfile(info, io.BytesIO(bytes(info.size)))
    return gzip.compress(header + buffer.getvalue())


def special(kind, **attributes):
    info = tarfile.TarInfo("top/Set/a.png")
    info.type = kind
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


def header_of(kind, size, content):
    """An extended header that claims `size` bytes and has `content`."""
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT) + content


def sparse_map(entries):
    """A sparse file of GNU's format 1.0, whose map has so many entries."""
    records = b"".join(
        b"%d %s\n" % (len(text) + 4, text)
        for text in (b"GNU.sparse.major=1", b"GNU.sparse.minor=0")
    )
    head = header_of(b"x", len(records), records.ljust(512, b"\0"))
    numbers = b"%d\n" % entries + b"0\n" * 2 * entries
    info = tarfile.TarInfo("top/Set/a.png")
    info.size = len(numbers)
    return head + info.tobuf(tarfile.USTAR_FORMAT) + numbers.ljust(-(-len(numbers) // 512) * 512)


MEGABYTES = 8 << 20
REFUSED = {
    "an encrypted zip": (zipped(set_bytes(8, 1)), "encrypted"),
    "bzip2 in a zip": (zipped(method=zipfile.ZIP_BZIP2), "method 12, expected none or deflate"),
    "LZMA in a zip": (zipped(method=zipfile.ZIP_LZMA), "method 14, expected none or deflate"),
    "a method that nobody knows": (zipped(set_bytes(10, 77)), "method 77, expected none"),
    "a wrong checksum": (zipped(flip_a_pixel), "not readable as"),
    "a size that is not true": (zipped(set_bytes(24, 7, 4)), "not readable as"),
    "a size of terabytes": (zipped(set_bytes(24, 0xFFFFFFFF, 4)), "not readable as|unpacks to"),
    "another place": (zipped(set_bytes(42, 0xFFFFFF, 4)), "not readable as"),
    "one name twice": (tarred("a.png", "a.png"), "occurs twice"),
    "one name in two cases": (tarred("Ä.png", "a\u0308.PNG"), "occurs twice, perhaps in another"),
    "a file that is a folder": (tarred("a", "a/b.png"), "not readable as"),
    "a name that is too long": (tarred("a" * 256), "not readable as"),
    "NUL in a name": (
        tarred(special(b"0", pax_headers={"path": "top/Set/a\0b"})), "no name in UTF-8",
    ),
    "a line break in a name": (tarred("a\nb"), "no name in UTF-8"),
    "a name in Latin-1": (
        gzip.compress(tar_archive({tarfile.TarInfo("top/Set/\udce4.png"): b""})),
        "no name in UTF-8",
    ),
    "a name with a dot only": (tarred("./a.png"), "would leave its folder"),
    "a symbolic link": (tarred(special(tarfile.SYMTYPE, linkname="/etc")), "is a link"),
    "a hard link": (tarred(special(tarfile.LNKTYPE, linkname="/etc/passwd")), "is a link"),
    "a character device": (tarred(special(tarfile.CHRTYPE)), "or a device"),
    "a block device": (tarred(special(tarfile.BLKTYPE)), "or a device"),
    "a pipe": (tarred(special(tarfile.FIFOTYPE)), "or a device"),
    "a sparse file": (gzip.compress(sparse_map(1)), "sparse"),
    "an extended header of megabytes": (
        tarred("a.png", header=header_of(b"x", MEGABYTES, bytes(MEGABYTES))), "headers of more",
    ),
    "a global header of megabytes": (
        tarred("a.png", header=header_of(b"g", MEGABYTES, bytes(MEGABYTES))), "headers of more",
    ),
    "a long name of megabytes": (
        tarred("a.png", header=header_of(b"L", MEGABYTES, bytes(MEGABYTES))), "headers of more",
    ),
    "gzip cut off": (tarred("a.png")[:-20], "not readable as"),
    "bzip2": (bz2.compress(tar_archive(FILES)), "not readable as"),
    "xz": (lzma.compress(tar_archive(FILES)), "not readable as"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_hostile_archive_is_refused_in_little_memory_and_leaves_nothing(kind, serve, tmp_path):
    content, reason = REFUSED[kind]
    serve(content)
    source = Source("https://example.org/set", "Set", {}, sha256=sha256(content))
    tracemalloc.start()
    with pytest.raises(DataError, match=reason) as error:
        download(source, tmp_path / "out")
    assert tracemalloc.get_traced_memory()[1] < 6 * downloads.HEADERS
    tracemalloc.stop()
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_sparse_file_of_millions_of_parts_is_refused_before_they_are_read(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress(sparse_map(MEGABYTES)))
    with pytest.raises(DataError, match="headers of more than 1,048,576 bytes"):
        unpack(tmp_path / "a", "Set", tmp_path / "out")


def test_a_list_of_members_and_their_number_are_bounded(tmp_path, monkeypatch):
    names = [f"{number}.png" for number in range(20)]
    (tmp_path / "a").write_bytes(tarred(*names))
    (tmp_path / "b").write_bytes(zipped(names=names))
    for name in "ab":
        unpack(tmp_path / name, "Set", tmp_path / "all" / name)
        assert len(list((tmp_path / "all" / name).iterdir())) == 20
    monkeypatch.setattr(downloads, "MOST_MEMBERS", 19)
    for name in "ab":
        with pytest.raises(DataError, match="more than 19 members"):
            unpack(tmp_path / name, "Set", tmp_path / "out" / name)
    monkeypatch.setattr(downloads, "HEADERS", 1000)
    with pytest.raises(DataError, match="headers of more than 1,000 bytes"):
        unpack(tmp_path / "b", "Set", tmp_path / "out")


def test_names_that_end_in_a_dot_or_a_space_and_long_names_are_kept(tmp_path):
    names = {"a.", "b ", "c" * 250 + ".png", "ü" * 120}
    (tmp_path / "a").write_bytes(tarred(*names))
    unpack(tmp_path / "a", "Set", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


@pytest.mark.parametrize("told", ["many", "-1", "", "٣"])
def test_a_length_that_is_no_number_is_not_used(told, serve, tmp_path):
    serve(b"content", length=told)
    fetch("https://example.org/a.zip", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"content"
    serve(BadStatusLine("SSH-2.0"))
    with pytest.raises(DataError, match="cannot be downloaded"):
        fetch("https://example.org/a.zip", tmp_path / "a")


def test_half_a_download_too_much_of_one_and_none_are_refused(serve, tmp_path, monkeypatch):
    serve(b"half", length=8)
    with pytest.raises(DataError, match="received 4 of 8 bytes"):
        fetch("https://example.org/a.zip", tmp_path / "a")
    serve(URLError("no network"))
    with pytest.raises(DataError, match=r"cannot be downloaded .*no network.*--config data=PATH"):
        fetch("https://example.org/a.zip", tmp_path / "a")
    monkeypatch.setattr(downloads, "LARGEST", 3)
    serve(b"more")
    with pytest.raises(DataError, match="more than 3 bytes"):
        fetch("https://example.org/a.zip", tmp_path / "a")


def test_only_https_is_fetched_also_after_a_redirect(tmp_path):
    with pytest.raises(DataError, match="only https"):
        fetch("http://example.org/a.zip", tmp_path / "a")
    handler, request = downloads._HttpsOnly(), Request("https://example.org/a.zip")
    with pytest.raises(DataError, match=r"http://elsewhere.*only https"):
        handler.redirect_request(request, None, 302, "Found", Message(), "http://elsewhere/a.zip")
    onward = handler.redirect_request(
        request, None, 302, "Found", Message(), "https://elsewhere/a.zip"
    )
    assert onward.full_url == "https://elsewhere/a.zip"


def test_the_releases_of_voc_and_sbd_are_fetched_over_https_and_told_by_their_sha_256():
    for name, counts in (
        ("voc2012", {"JPEGImages": 17125, "SegmentationClass": 1464 + 1449}),
        ("sbd", {"cls": 8498 + 2857}),
    ):
        source = SOURCES[name]
        assert source.url.startswith("https://") and len(source.sha256) == 64
        assert source.counts == counts and set(counts) <= set(source.keep)


def test_camvid_has_the_published_counts():
    counts = SOURCES["camvid"].counts
    assert (counts["train"], counts["val"], counts["test"]) == (367, 101, 233)
    assert all(counts[subset] == counts[f"{subset}annot"] for subset in ("train", "val", "test"))
    assert len(SOURCES["camvid"].digest) == 64


def test_data_sets_that_are_prepared_have_an_exact_version_a_digest_and_a_licence():
    sources = [source for source in SOURCES.values() if source.prepare]
    assert len(sources) == 3
    for source in sources:
        assert re.search(r"/archive/[0-9a-f]{40}\.tar\.gz$", source.url)
        assert re.fullmatch("[0-9a-f]{64}", source.digest) and source.digested and source.licence
    assert "only be used for non-commercial research" in SOURCES["cwfid"].licence


def test_each_data_set_has_a_rule():
    rules = (REPOSITORY / "workflow/rules/download.smk").read_text()
    assert {*re.findall(r"download_camvid as download_(\w+) with", rules), "camvid"} == {*SOURCES}
