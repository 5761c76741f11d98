import errno
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dst_cbc.runtime import files
from dst_cbc.runtime.errors import DataError, NoSpace, Unusable
from dst_cbc.runtime.files import (
    atomic,
    digest,
    is_alive,
    open_regular,
    sha256,
    sha256_file,
    write_bytes,
    write_json,
    write_text,
)
from dst_cbc.runtime.paths import inside, is_relative
from dst_cbc.runtime.reading import explained, read_bytes, read_ids, read_json, read_text
from dst_cbc.runtime.tables import csv_header, optional, positive, read_csv, real, whole, write_csv


def test_a_link_out_of_the_results_is_not_followed(tmp_path, monkeypatch):
    """A study from somebody else may hold a folder that is a link."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outside").mkdir()
    (tmp_path / "results/study").mkdir(parents=True)
    (tmp_path / "results/study/round1").symlink_to(tmp_path / "outside")
    for path in ("results/study/round1/a.csv", "results/study/round1/deep/a.csv"):
        with pytest.raises(DataError, match="nothing is written there, because a symbolic link"):
            write_text(Path(path), "text")
    assert list((tmp_path / "outside").iterdir()) == []


def test_the_results_may_be_on_another_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk/other").mkdir(parents=True)
    (tmp_path / "results").symlink_to("disk")
    (tmp_path / "disk/study").symlink_to("other")
    write_text(Path("results/study/a.csv"), "text")
    write_text(Path("a.csv"), "text")
    assert (tmp_path / "disk/other/a.csv").read_text() == "text"


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic(path) as temporary:
        temporary.write_text("half of the new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("letter", ["a", "ä", "\udcff"], ids=["ASCII", "UTF-8", "no UTF-8"])
def test_the_longest_names_that_a_disk_holds_can_be_written(letter, tmp_path):
    size = 255 // len(os.fsencode(letter))
    paths = [tmp_path / (letter * (size - 1) + end) for end in "bc"]
    with atomic(paths[0]) as one, atomic(paths[1]) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert [path.read_text() for path in paths] == ["one", "other"]
    assert sorted(tmp_path.iterdir()) == paths


def test_a_half_written_file_with_a_long_name_is_removed_by_the_next_process(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from dst_cbc.runtime.files import atomic\n"
        "with atomic(Path(sys.argv[1])) as half: half.touch(); os._exit(1)"
    )
    path = tmp_path / ("a" * 255)
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code, path], env=environment)
    (half,) = tmp_path.iterdir()
    assert half.name.startswith(".") and half.name.endswith(".tmp")
    write_text(tmp_path / "new", "x")
    assert [one.name for one in tmp_path.iterdir()] == ["new"]


def test_a_block_that_succeeds_replaces_the_file_at_its_end(tmp_path):
    path = tmp_path / "deep/a.txt"
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent and temporary.name.startswith(".")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_the_new_content_is_on_the_disk_before_it_has_the_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, real=real, name=name: calls.append(name) or real(*a)
        )
    write_text(tmp_path / "a.txt", "new")
    assert calls == ["fsync", "replace"]


def test_equal_content_leaves_the_file_untouched_and_other_content_does_not(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes(path, b"same")
    os.utime(path, (1, 1))
    write_bytes(path, b"same")
    assert path.stat().st_mtime == 1
    write_bytes(path, b"diff")
    assert path.stat().st_mtime > 1 and path.read_bytes() == b"diff"


def test_json_is_sorted_and_refuses_what_is_no_number(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [None, 0.1]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, 0.1], "b": 1}
    assert (tmp_path / "a.json").read_text().index('"a"') < 10
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            write_json(tmp_path / "a.json", {"a": bad})
    assert json.loads((tmp_path / "a.json").read_text())["b"] == 1


texts_without_nul = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(st.lists(st.tuples(texts_without_nul, st.floats(allow_nan=False))))
def test_csv_keeps_texts_and_every_bit_of_a_float(tmp_path_factory, cells):
    path = tmp_path_factory.getbasetemp() / "a.csv"
    write_csv(path, ["text", "number"], [{"text": t, "number": n} for t, n in cells])
    read = read_csv(path, ["text", "number"])
    assert [float(row["number"]) for row in read] == [n for _, n in cells]
    ordinary = [(row["text"], t) for row, (t, _) in zip(read, cells, strict=True)]
    assert all(a == b for a, b in ordinary)


def test_none_is_an_empty_cell(tmp_path):
    write_csv(tmp_path / "a.csv", ["x", "y"], [{"x": None, "y": 0}])
    assert (tmp_path / "a.csv").read_bytes() == b"x,y\n,0\n"


def test_a_missing_column_is_named_with_the_file(tmp_path):
    (tmp_path / "a.csv").write_text("x,z\n1,2\n")
    with pytest.raises(DataError, match=r"a\.csv: no column 'y'"):
        read_csv(tmp_path / "a.csv", ["x", "y"])
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(DataError, match="no column 'x'"):
        read_csv(tmp_path / "a.csv", ["x", "y"])


@pytest.mark.parametrize("text", ["x,y\n1,2\n3", "x,y\n1,2\n3,4,5\n"])
def test_a_row_of_another_length_is_named(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=r"a\.csv, line 3: not as many cells"):
        read_csv(tmp_path / "a.csv", ["x"])


CELLS = {"id": str, "size": positive, "share": optional(real), "count": whole}


def test_cells_are_converted_and_columns_without_a_converter_are_texts(tmp_path):
    (tmp_path / "a.csv").write_text("id,size,share,count,note\na,3,1e-05,0,7\n\nb,1,,15,\n")
    assert read_csv(tmp_path / "a.csv", CELLS) == [
        {"id": "a", "size": 3, "share": 1e-05, "count": 0, "note": "7"},
        {"id": "b", "size": 1, "share": None, "count": 15, "note": ""},
    ]


@pytest.mark.parametrize(
    "column, cell",
    [
        *[("size", cell) for cell in ("0", "-1", "", "1.5", "1_0", "\u0663", "9" * 16, "a" * 99)],
        *[("share", cell) for cell in ("nan", "inf", "1e999", "1_0.5", "1,5", "half")],
        *[("count", cell) for cell in ("-1", " 1", "True")],
    ],
)  # fmt: skip
def test_a_cell_that_is_no_such_number_is_named_with_line_and_column(column, cell, tmp_path):
    good = {"id": "a", "size": "1", "share": "", "count": "0"}
    # Line 2 is blank, and the row of line 3 ends in line 4.
    write_csv(tmp_path / "a.csv", list(good), [{**good, "id": "b\nc"}, {**good, column: cell}])
    text = (tmp_path / "a.csv").read_text().replace("\n", "\n\n", 1)
    (tmp_path / "a.csv").write_text(text)
    said = rf"a\.csv, line 5: column '{column}': found .{{,70}}; expected .*; delete the damaged"
    with pytest.raises(DataError, match=said):
        read_csv(tmp_path / "a.csv", CELLS)


def test_a_byte_order_mark_and_line_ends_of_windows_change_nothing(tmp_path):
    text = "id,size\r\nä,3\r\n"
    (tmp_path / "a.csv").write_bytes(text.encode("utf-8-sig"))
    assert read_csv(tmp_path / "a.csv", ["id"]) == [{"id": "ä", "size": "3"}]
    assert csv_header(tmp_path / "a.csv") == ["id", "size"]
    (tmp_path / "ids.txt").write_bytes("a\r\nb\r\n".encode("utf-8-sig"))
    assert read_ids(tmp_path / "ids.txt") == ["a", "b"]
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize(
    "text, reason",
    [
        ("id,id\n1,2\n", "a column occurs twice"),
        ("id,size\na\0,2\n", "a NUL character"),
        ('id,size\n"a,2\n', "unexpected end of data"),
        ("id;size\na;2\n", "no column 'id'.*divided by commas"),
        ("id\n" + "a" * (1 << 20), "a line of more than 1,048,576 characters"),
    ],
    ids=["a column twice", "NUL", "an open quotation", "semicolons", "a long line"],
)
def test_text_that_is_no_such_table_is_refused(text, reason, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=rf"a\.csv: .*{reason}"):
        read_csv(tmp_path / "a.csv", ["id"])


@pytest.mark.parametrize(
    "text, reason",
    [
        ('{"a": NaN}', "NaN is not a finite number"),
        ('{"a": 1e999}', "1e999 is not a finite number"),
        ('{"a": 18446744073709551616}', "more than 63 bits"),
        ('{"a": ' + "9" * 5000 + "}", "limit"),
        ("[1]", "its content: found \\[1\\]"),
        ('{"a": {"b": "x"}}', "a: found {'b': 'x'}"),
    ],
)
def test_json_of_another_kind_is_refused_with_its_key(text, reason, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=rf"a\.json: .*{reason}.*; delete it"):
        read_json(tmp_path / "a.json", dict[str, int])


def test_an_error_of_a_library_is_explained_and_our_own_is_kept(tmp_path):
    with (
        pytest.raises(DataError, match=r"^a: not readable as a fish \(it is a bird\); let it fly$"),
        explained("a", "a fish", "let it fly"),
    ):
        raise RuntimeError("it is\n a bird")
    for error in (Unusable("x"), FileNotFoundError("x"), OSError(errno.ENOSPC, "full")):
        with pytest.raises(type(error)) as raised, explained("a", "a fish", "let it fly"):
            raise error
        assert raised.value is error


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    mine, host = f"{os.getpid()}", socket.gethostname()
    dead = subprocess.Popen(["true"])
    dead.wait()
    kept = [f".b.csv.{host}.{mine}.tmp", ".c.csv.node7.1.tmp", "d.tmp", ".e.csv", ".f.g.tmp"]
    for name in [f".a.v2.csv.{host}.{dead.pid}.tmp", ".old.csv.node7.1.tmp", *kept]:
        (tmp_path / name).touch()
    for old in (".old.csv.node7.1.tmp", ".f.g.tmp"):
        os.utime(tmp_path / old, (1, 1))
    write_text(tmp_path / "new.csv", "x")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "new.csv"}


def test_a_dead_process_that_its_parent_never_asked_after_is_dead():
    with subprocess.Popen(["true"]) as child:
        status = Path(f"/proc/{child.pid}/stat")
        while status.is_file() and ") Z " not in status.read_text():
            time.sleep(0.01)
        assert not is_alive(child.pid)
    assert is_alive(os.getpid())


def test_json_that_is_damaged_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1')
    with pytest.raises(DataError, match=r"a\.json: not readable as JSON .*; delete it"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), OSError(errno.EDQUOT, "quota")])
def test_a_full_disk_is_told_with_the_file(tmp_path, error):
    said = r"a\.csv: no space left.*MB free.*Delete predictions\.h5"
    with pytest.raises(NoSpace, match=said), atomic(tmp_path / "a.csv"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_any_other_failure_to_write_is_left_as_it_is(tmp_path):
    with pytest.raises(RuntimeError, match=r"^another$"), atomic(tmp_path / "a.csv"):
        raise RuntimeError("another")


def test_ids_are_one_a_line(tmp_path):
    write_text(tmp_path / "ids.txt", "town/a\nb c\nä\n")
    assert read_ids(tmp_path / "ids.txt") == ["town/a", "b c", "ä"]


@pytest.mark.parametrize(
    "id", ["a", "town/a", "..a", "a..", "a/.b", "...", " ", "ä/x y", "$(x)", "~"]
)
def test_an_id_may_be_any_relative_path(id, tmp_path):
    (tmp_path / "ids.txt").write_bytes(f"{id}\n".encode())
    assert read_ids(tmp_path / "ids.txt") == [id]
    assert inside(tmp_path, id) == tmp_path / id


@pytest.mark.parametrize(
    "id", ["/a", "..", "../a", "a/..", "a/../b", "./a", "a/.", "a//b", "a/", "a\\b", "a\0b", "//a"]
)
def test_an_id_that_leads_elsewhere_is_neither_read_nor_written(id, tmp_path):
    (tmp_path / "ids.txt").write_bytes(f"fine\n{id}\n".encode())
    with pytest.raises(DataError, match=r"ids\.txt: .* cannot be an id or a path"):
        read_ids(tmp_path / "ids.txt")
    with pytest.raises(DataError, match="cannot be an id or a path"):
        inside(tmp_path, id)


@given(st.text(st.sampled_from("./\\a\n\r\0\udc80é"), max_size=8))
def test_a_path_below_a_folder_stays_there(name):
    """Compared with what the operating system makes of the name."""
    joined = os.path.normpath(os.path.join("/folder", name))
    if is_relative(name):
        assert joined.startswith("/folder/") and joined == f"/folder/{name}"
        name.encode()


def test_a_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "a") == sha256(b"abc") == known


texts = st.lists(st.text(max_size=4), max_size=4)


@given(texts, texts)
def test_lists_of_texts_have_one_digest_only_when_they_are_equal(one, other):
    assert (digest(one) == digest(other)) == (one == other)


def test_borders_between_texts_count():
    assert digest(["ab", "c"]) != digest(["a", "bc"])
    assert digest([]) != digest([""]) != digest(["", ""])
    assert digest(['a", "b']) != digest(["a", "b"])


def a_pipe(folder):
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def a_socket(folder):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
    return folder / "socket"


def a_circle(folder):
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    return folder / "a"


NO_FILES = {
    "a pipe": a_pipe,
    "a link to a pipe": lambda folder: (
        (folder / "link").symlink_to(a_pipe(folder)) or folder / "link"
    ),
    "a socket": a_socket,
    "a circle of links": a_circle,
    "a folder": lambda folder: folder,
    "a device without an end": lambda folder: Path("/dev/zero"),
    "the memory of a process": lambda folder: Path("/proc/self/mem"),
    "a name below a file": lambda folder: Path(__file__) / "inside",
    "a name that is too long": lambda folder: folder / ("a" * 5000),
    "a name with NUL": lambda folder: folder / "a\0b",
    "a name that is no text": lambda folder: folder / "a\ud800b",
}
READERS = [read_bytes, read_text, read_json, read_ids, lambda path: read_csv(path, ["a"])]


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("read", READERS)
def test_only_regular_files_are_read(read, kind, tmp_path):
    path = NO_FILES[kind](tmp_path)
    with pytest.raises(DataError) as error:
        read(path)
    assert str(path) in str(error.value)


def test_no_more_of_a_file_is_read_than_is_allowed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345" and read_text(path, 5) == "12345"
    for read in (read_bytes, read_text):
        with pytest.raises(DataError, match=r"a\.txt: larger than 4 bytes"):
            read(path, 4)
    # The files of /proc claim to be empty.
    with pytest.raises(DataError, match="status: larger than 4 bytes"):
        read_bytes("/proc/self/status", 4)


def test_text_has_plain_line_ends_and_is_utf8(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("ä\r\nb\rc\n".encode())
    assert read_text(path) == path.read_text(encoding="utf-8") == "ä\nb\nc\n"
    path.write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"a\.txt: byte 3 is not UTF-8 text"):
        read_text(path)


def test_a_missing_file_is_reported_as_missing(tmp_path):
    for read in (open_regular, *READERS):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none")


def test_json_that_is_nested_without_bounds_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"a\.json: not readable as JSON"):
        read_json(path)


@pytest.mark.parametrize("damage", [b"\xff", b"a" * 200_000])
def test_csv_that_is_damaged_is_refused(damage, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\n1\n" + damage + b"\n")
    with pytest.raises(DataError, match=r"a\.csv: not readable as CSV"):
        read_csv(path, ["a"])
