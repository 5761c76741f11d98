"""Images that occur more than once: found by their bytes, few of which are read."""

from pathlib import Path

from dst_cbc.data import copies
from dst_cbc.data.copies import identical_files


def test_files_are_identical_if_all_their_bytes_are(tmp_path, monkeypatch):
    middle = bytes(5000)
    contents = {
        "a": b"1" * 9000 + middle + b"2" * 9000, "b": b"1" * 9000 + middle + b"3" * 9000,
        "c": b"1" * 9000 + middle + b"2" * 9000, "d": b"short", "e": b"other", "f": b"short",
        "g": b"longer", "h": b"",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    read = []
    whole = copies.sha256_file
    monkeypatch.setattr(copies, "sha256_file", lambda path: read.append(path.name) or whole(path))
    assert identical_files(tmp_path, contents) == [["a", "c"], ["d", "f"]]
    assert sorted(read) == ["a", "b", "c", "d", "f"]
    assert identical_files(Path("nowhere"), []) == []
