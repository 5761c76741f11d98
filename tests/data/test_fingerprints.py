import json
import os
import shutil

import numpy as np
import pytest

from dst_cbc.data import fingerprints
from dst_cbc.data.fingerprints import Fingerprints
from dst_cbc.data.index import check
from dst_cbc.data.records import list_records

PICTURE = np.zeros((4, 4, 3))
MASK = np.zeros((4, 4))


@pytest.fixture
def pictures(tmp_path, write_image):
    """Training images a and b with masks, and c without one."""
    root = tmp_path / "data"
    for number, id in enumerate("abc"):
        write_image(root / f"images/train/{id}.png", PICTURE + number)
        if id != "c":
            write_image(root / f"labels/train/{id}.png", MASK)
    return root


@pytest.fixture
def look(tmp_path, folder_dataset):
    """Function that takes the fingerprints of a folder."""

    def now(root):
        cache = tmp_path / "cache.json"
        return Fingerprints(root, list_records(root, folder_dataset), folder_dataset, cache)

    return now


def test_touching_or_moving_the_data_changes_nothing(pictures, look):
    before = look(pictures).used("abc", True)
    for path in pictures.rglob("*.png"):
        os.utime(path, (1, 1))
    assert look(pictures).used("abc", True) == before
    moved = shutil.copytree(pictures, pictures.with_name("elsewhere"))
    assert look(moved).used("abc", True) == before


def test_a_corrected_mask_changes_what_uses_masks_and_it(pictures, look, write_image):
    before = look(pictures)
    write_image(pictures / "labels/train/b.png", MASK + 1)
    after = look(pictures)
    assert after.used("ab", True) != before.used("ab", True)
    assert after.used("ab", False) == before.used("ab", False)
    assert after.used("ac", True) == before.used("ac", True)


def test_a_changed_image_changes_what_uses_it(pictures, look, write_image):
    before = look(pictures)
    write_image(pictures / "images/train/c.png", PICTURE + 9)
    after = look(pictures)
    assert after.used("c", False) != before.used("c", False)
    assert after.used("ab", True) == before.used("ab", True)


def test_an_added_image_changes_no_digest_of_the_others(pictures, look, write_image):
    before = look(pictures)
    write_image(pictures / "images/train/d.png", PICTURE)
    after = look(pictures)
    assert after.used("abc", True) == before.used("abc", True)
    assert after.used("abcd", False) != before.used("abc", False)


def test_the_order_of_ids_counts(pictures, look):
    files = look(pictures)
    assert files.used("ab", True) != files.used("ba", True)


def test_a_mask_that_was_deleted_or_added_counts(pictures, look, write_image):
    before = look(pictures)
    (pictures / "labels/train/a.png").unlink()
    write_image(pictures / "labels/train/c.png", MASK)
    after = look(pictures)
    assert after.used("a", True) != before.used("a", True)
    assert after.used("c", True) != before.used("c", True)
    assert after.used("abc", False) == before.used("abc", False)


def test_a_listed_file_that_is_missing_has_no_digest(tmp_path, pictures, folder_dataset):
    records = list_records(pictures, folder_dataset)
    before = Fingerprints(pictures, records, folder_dataset, tmp_path / "cache.json")
    (pictures / "images/train/a.png").unlink()
    after = Fingerprints(pictures, records, folder_dataset, tmp_path / "cache.json")
    assert after.used("a", False) != before.used("a", False)


def test_only_files_whose_size_or_time_changed_are_read_again(
    pictures, look, monkeypatch, write_image
):
    read = []
    digest = fingerprints.sha256_file
    monkeypatch.setattr(fingerprints, "sha256_file", lambda p: read.append(p.name) or digest(p))
    look(pictures)
    assert sorted(read) == ["a.png", "a.png", "b.png", "b.png", "c.png"]
    read.clear()
    look(pictures)
    assert read == []
    os.utime(pictures / "labels/train/a.png", (2, 2))
    look(pictures)
    assert read == ["a.png"]


def test_the_memory_is_json_and_names_paths_below_the_data(pictures, look, tmp_path):
    look(pictures)
    known = json.loads((tmp_path / "cache.json").read_text())
    assert set(known["files"]) == {
        *(f"images/train/{id}.png" for id in "abc"),
        *(f"labels/train/{id}.png" for id in "ab"),
    }


@pytest.mark.parametrize("content", ["", "{", "[]", '{"images/train/a.png": 3}'])
def test_a_damaged_memory_is_forgotten(content, pictures, look, tmp_path):
    before = look(pictures).used("abc", True)
    (tmp_path / "cache.json").write_text(content)
    assert look(pictures).used("abc", True) == before


def test_a_memory_with_another_digit_is_forgotten_and_written_again(pictures, look, tmp_path):
    before, cache = look(pictures).used("abc", True), tmp_path / "cache.json"
    written = cache.read_text()
    digest = json.loads(written)["files"]["images/train/a.png"][2]
    other = digest[:-1] + ("1" if digest[-1] == "0" else "0")
    cache.write_text(written.replace(digest, other))
    assert look(pictures).used("abc", True) == before
    assert cache.read_text() == written


def test_a_memory_of_an_earlier_version_cannot_show_its_damage_and_is_forgotten(
    pictures, look, tmp_path
):
    before, cache = look(pictures).used("abc", True), tmp_path / "cache.json"
    written = cache.read_text()
    earlier = json.loads(written)["files"]
    earlier["images/train/a.png"][2] = "0" * 64
    cache.write_text(json.dumps(earlier))
    assert look(pictures).used("abc", True) == before
    assert cache.read_text() == written


def test_changed_compares_with_the_last_data_check(pictures, look, folder_dataset, write_image):
    checked = {r.id: r for r in check(pictures, list_records(pictures, folder_dataset),
                                      folder_dataset)}  # fmt: skip
    assert not look(pictures).changed(checked, "abc", True)
    write_image(pictures / "labels/train/b.png", MASK + 1)
    files = look(pictures)
    assert files.changed(checked, "ab", True)
    assert not files.changed(checked, "ab", False)
    assert not files.changed(checked, "ac", True)
    del checked["c"]
    assert look(pictures).changed(checked, "c", False)


def test_drawn_scenes_follow_from_their_settings(tmp_path, digits_dataset):
    def used(seed):
        drawing = digits_dataset.digits.model_copy(update={"seed": seed})
        dataset = digits_dataset.model_copy(update={"digits": drawing})
        files = Fingerprints(tmp_path, list_records(tmp_path, dataset), dataset, tmp_path / "c")
        assert not files.changed({}, ["train-0000"], True)
        return files.used(["train-0000"], True)

    assert used(0) == used(0) != used(1)
    assert not (tmp_path / "c").exists()
