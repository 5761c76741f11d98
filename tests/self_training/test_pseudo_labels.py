from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.files import sha256_file
from dst_cbc.runtime.tables import read_csv
from dst_cbc.self_training.confidence import BINS
from dst_cbc.self_training.predictions import Prediction
from dst_cbc.self_training.pseudo_labels import (
    QUALITY,
    Labeled,
    accept,
    at_size,
    changed_labels,
    join_shards,
    label_pixels,
    read_manifest,
    require_unchanged,
    write_manifest,
    write_pseudo_labels,
    write_quality,
    write_shard,
)

NAMES = ["sky", "road", "car"]
COLOURS = ["#0000ff", "#808080", "#ff0000"]
CLASSES = np.array([[0, 1, 2], [0, 1, 2]], np.uint8)
CONFIDENCE = np.array([[100, 100, 65535], [99, 200, 0]], np.uint16)
PREDICTION = Prediction(0, "town/a", CLASSES, CONFIDENCE)


def levels_of(*levels):
    return np.array([*levels, *[BINS] * (256 - len(levels))], np.int32)


def no_truth(id):
    return None


def make(folder, truth=no_truth, levels=(100, 150, BINS), quality=None):
    """Write the labels of two images; return their rows of the manifest."""
    second = Prediction(1, "b", CLASSES[::-1], CONFIDENCE)
    quality = np.zeros((3, 4), np.int64) if quality is None else quality
    labeled = [(p.id, label_pixels(p, levels_of(*levels))) for p in (PREDICTION, second)]
    return list(write_pseudo_labels(folder, labeled, COLOURS, truth, quality))


def test_a_pixel_is_labeled_where_its_confidence_reaches_its_class_level():
    labels = label_pixels(PREDICTION, levels_of(100, 150, BINS))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, [[0, 255, 255], [255, 1, 255]])


@pytest.mark.parametrize("id", ["../b", "/tmp/outside", "town/../../b", "town\\b"])
def test_an_id_that_leads_elsewhere_is_not_written(id, tmp_path):
    folder = tmp_path / "labels"
    with pytest.raises(DataError, match="cannot be an id or a path"):
        list(write_pseudo_labels(folder, [(id, CLASSES)], COLOURS, no_truth, np.zeros((3, 4))))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_link_that_leads_elsewhere_is_not_followed(tmp_path):
    folder, outside = tmp_path / "labels", tmp_path / "outside"
    outside.mkdir()
    folder.mkdir()
    (folder / "town").symlink_to(outside)
    with pytest.raises(DataError, match="town: nothing is written there, because a symbolic"):
        make(folder)
    assert list(outside.iterdir()) == []


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    Path("outside").mkdir()
    Path("results/labels").symlink_to("../outside")
    with pytest.raises(DataError, match="symbolic link leads out of results"):
        make(Path("results/labels"))
    row, _ = make(Path("shard"))
    write_shard(Path("shard"), [row], NAMES, np.zeros((3, 4)))
    with pytest.raises(DataError, match="symbolic link leads out of results"):
        join_shards([Path("shard")], Path("results/labels"), NAMES)
    assert list(Path("outside").iterdir()) == []


def test_a_link_that_stays_inside_is_followed(tmp_path):
    (tmp_path / "labels/city").mkdir(parents=True)
    (tmp_path / "labels/town").symlink_to("city")
    make(tmp_path / "labels")
    assert (tmp_path / "labels/city/a.png").is_file()


@pytest.mark.parametrize("id", ["../b", "/tmp/outside", "town/..", "a\nb"])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(id, tmp_path):
    row, _ = make(tmp_path)
    write_manifest(tmp_path / "m.csv", [replace(row, id=id)], NAMES)
    with pytest.raises(DataError, match=r"m\.csv: .* cannot be an id"):
        read_manifest(tmp_path / "m.csv", NAMES)


def test_shards_are_joined_only_inside_their_folder(tmp_path):
    row, _ = make(tmp_path / "shard")
    write_shard(tmp_path / "shard", [replace(row, id="../stolen")], NAMES, np.zeros((3, 4)))
    with pytest.raises(DataError, match="cannot be an id"):
        join_shards([tmp_path / "shard"], tmp_path / "labels", NAMES)
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/town").symlink_to(outside)
    write_shard(tmp_path / "shard", [row], NAMES, np.zeros((3, 4)))
    with pytest.raises(DataError, match="symbolic link"):
        join_shards([tmp_path / "shard"], tmp_path / "labels", NAMES)
    assert list(outside.iterdir()) == []


def test_labels_of_a_squashed_image_are_resized_back_with_nearest():
    small = np.array([[1, 2], [3, 255]], np.uint8)
    np.testing.assert_array_equal(at_size(small, (4, 6)), small.repeat(2, 0).repeat(3, 1))
    # The centres of three pixels lie at 1/3, 1 and 5/3 of two pixels.
    np.testing.assert_array_equal(at_size(small, (1, 3)), [[3, 255, 255]])
    np.testing.assert_array_equal(at_size(small.repeat(3, 1), (2, 2)), small)
    np.testing.assert_array_equal(at_size(small, (2, 2)), small)


def test_level_zero_keeps_all_and_the_level_above_all_keeps_none():
    np.testing.assert_array_equal(label_pixels(PREDICTION, levels_of(0, 0, 0)), CLASSES)
    nothing = label_pixels(PREDICTION, levels_of(BINS, BINS, BINS))
    assert (nothing == 255).all()


@given(st.lists(st.integers(0, BINS), min_size=3, max_size=3), st.integers(0, BINS))
def test_a_higher_level_never_labels_more(levels, more):
    low = label_pixels(PREDICTION, levels_of(*levels)) != 255
    high = label_pixels(PREDICTION, levels_of(*(max(level, more) for level in levels))) != 255
    assert not (high & ~low).any()


def test_a_label_file_is_an_indexed_png_in_the_colours_of_the_data_set(tmp_path):
    make(tmp_path)
    image = Image.open(tmp_path / "town/a.png")
    assert (image.format, image.mode, image.size) == ("PNG", "P", (3, 2))
    np.testing.assert_array_equal(np.asarray(image), [[0, 255, 255], [255, 1, 255]])
    seen = np.asarray(image.convert("RGB"))
    assert seen[0, 0].tolist() == [0, 0, 255]
    assert seen[1, 1].tolist() == [128, 128, 128]
    assert seen[0, 1].tolist() == [255, 255, 255]


def test_the_same_labels_are_written_in_the_same_bytes(tmp_path):
    first, second = make(tmp_path / "1"), make(tmp_path / "2")
    assert [row.sha256 for row in first] == [row.sha256 for row in second]
    assert (tmp_path / "1/b.png").read_bytes() == (tmp_path / "2/b.png").read_bytes()


def test_a_row_counts_what_its_file_holds(tmp_path):
    row, _ = make(tmp_path)
    assert (row.id, row.height, row.width) == ("town/a", 2, 3)
    assert (row.pixels, row.kept, row.counts.tolist()) == (6, 2, [1, 1, 0])
    assert row.sha256 == sha256_file(tmp_path / "town/a.png")
    assert (row.correct, row.compared, row.edited) == (None, None, False)


def test_accuracy_compares_kept_pixels_where_the_truth_is_not_ignored(tmp_path):
    truths = {"town/a": np.array([[0, 1, 2], [0, 2, 2]], np.uint8), "b": np.full((2, 3), 255)}
    first, second = make(tmp_path, truths.get)
    assert (first.correct, first.compared) == (1, 2)
    assert (second.correct, second.compared) == (0, 0)
    write_manifest(tmp_path / "m.csv", [first, second], NAMES)
    cells = read_csv(tmp_path / "m.csv", ["accuracy", "kept_fraction", "pixels sky"])
    assert [row["accuracy"] for row in cells] == ["0.5", ""]
    assert float(cells[0]["kept_fraction"]) == 2 / 6
    assert cells[0]["pixels sky"] == "1"


def test_quality_says_by_class_how_right_the_labels_are(tmp_path):
    # Labels: [[0, -, -], [-, 1, -]] and [[0, -, -], [-, 1, -]], where `-` is no label.
    truths = {
        "town/a": np.array([[0, 1, 2], [0, 2, 255]], np.uint8),
        "b": np.array([[255, 0, 0], [1, 1, 1]], np.uint8),
    }
    quality = np.zeros((3, 4), np.int64)
    make(tmp_path, truths.get, quality=quality)
    assert quality.tolist() == [[1, 0, 0, 3], [0, 1, 0, 3], [0, 1, 0, 1]]
    write_quality(tmp_path / "q.csv", quality, NAMES)
    sky, road, car = read_csv(tmp_path / "q.csv", QUALITY)
    assert list(sky.values()) == ["0", "sky", "4", "1", "1", "1.0", "0.25", "1.0"]
    assert list(road.values()) == ["1", "road", "4", "2", "1", "0.5", "0.25", "0.5"]
    assert list(car.values()) == ["2", "car", "2", "0", "0", "", "0.0", "0.0"]


@pytest.mark.parametrize(
    "resampling, columns",
    [
        # Pixel centres show columns 1, 3 and 5 of the mask, positions rounded down 0, 2 and 4.
        ("warp", [2, 0, 2, 1, 0, 2]),
        ("torch", [0, 2, 1, 0, 2, 2]),
    ],
)
def test_quality_is_counted_at_the_size_of_the_labels(resampling, columns, tmp_path):
    """Figure 5 (section A.1): the mask of 4 x 6 pixels is resized to the labels, 2 x 3."""
    labels = np.array([[0, 1, 255], [0, 1, 255]], np.uint8)
    truth = np.tile(np.array(columns, np.uint8), (4, 1))
    quality = np.zeros((3, 4), np.int64)
    (row,) = write_pseudo_labels(
        tmp_path, [("a", labels)], COLOURS, lambda _: truth, quality, resampling
    )
    assert quality.tolist() == [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 2]]
    assert (row.height, row.width, row.correct, row.compared) == (2, 3, 4, 4)


def test_without_any_mask_quality_has_no_figures(tmp_path):
    quality = np.zeros((3, 4), np.int64)
    make(tmp_path, quality=quality)
    write_quality(tmp_path / "q.csv", quality, NAMES)
    for row in read_csv(tmp_path / "q.csv", QUALITY):
        assert (row["truth"], row["precision"], row["recall"], row["iou_of_labeled"]) == (
            "0", "", "", "",
        )  # fmt: skip


def test_labels_do_not_depend_on_the_truth(tmp_path):
    rng = np.random.default_rng(0)
    random_truth = lambda _: rng.integers(0, 3, (2, 3)).astype(np.uint8)  # noqa: E731
    with_truth, without = make(tmp_path / "1", random_truth), make(tmp_path / "2")
    assert [row.sha256 for row in with_truth] == [row.sha256 for row in without]


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    rows = [
        Labeled("town/a", "12ab", 2, 3, np.array([1, 2, 0]), 2, 3),
        Labeled("b, with a comma", "34cd", 4, 1, np.array([0, 0, 0]), edited=True),
    ]
    write_manifest(tmp_path / "pseudo_labels.csv", rows, NAMES)
    read = read_manifest(tmp_path / "pseudo_labels.csv", NAMES)
    for old, new in zip(rows, read, strict=True):
        assert {**vars(old), "counts": old.counts.tolist()} == {
            **vars(new),
            "counts": new.counts.tolist(),
        }


def test_a_manifest_of_other_classes_is_refused(tmp_path):
    write_manifest(tmp_path / "m.csv", make(tmp_path), NAMES)
    with pytest.raises(DataError, match=r"m\.csv.*pixels tree"):
        read_manifest(tmp_path / "m.csv", ["tree", "road", "car"])


def test_unchanged_labels_pass(tmp_path):
    rows = make(tmp_path)
    assert changed_labels(tmp_path, rows) == []
    require_unchanged(tmp_path, tmp_path / "m.csv", rows)


def test_every_changed_and_missing_label_is_named_with_both_ways_on(tmp_path):
    rows = make(tmp_path / "pseudo_labels")
    (tmp_path / "pseudo_labels/b.png").unlink()
    with open(tmp_path / "pseudo_labels/town/a.png", "ab") as file:
        file.write(b"x")
    manifest = tmp_path / "pseudo_labels.csv"
    with pytest.raises(DataError) as error:
        require_unchanged(tmp_path / "pseudo_labels", manifest, rows)
    text = str(error.value)
    assert str(tmp_path / "pseudo_labels/b.png") in text
    assert str(tmp_path / "pseudo_labels/town/a.png") in text
    assert f"snakemake {manifest} --forcerun {manifest}" in text
    assert f"verify.py --accept {manifest}" in text


def edit(path, labels, colours=(0, 0, 255)):
    image = Image.fromarray(np.asarray(labels, np.uint8))
    image.putpalette(list(colours) * 256)
    image.save(path)


def test_an_edited_label_is_accepted_and_marked(tmp_path):
    other, row = make(tmp_path)
    edit(tmp_path / "b.png", [[2, 2, 2], [255, 1, 255]])
    accepted = accept(tmp_path, row, len(NAMES))
    assert (accepted.id, accepted.edited, accepted.kept) == ("b", True, 4)
    assert accepted.counts.tolist() == [0, 1, 3]
    assert (accepted.correct, accepted.compared) == (None, None)
    require_unchanged(tmp_path, tmp_path / "m.csv", [other, accepted])


def test_a_png_that_the_manifest_does_not_list_is_named(tmp_path):
    """With half a manifest, the training would silently use fewer images."""
    first, _ = make(tmp_path)
    with pytest.raises(DataError, match=r"m\.csv: no row for 1 PNGs, first .*b\.png"):
        require_unchanged(tmp_path, tmp_path / "m.csv", [first])


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(np.full((2, 3), 3), id="a value that is no class"),
        pytest.param(np.full((3, 3), 1), id="another size"),
        pytest.param(np.full((3, 2), 1), id="width and height exchanged"),
        pytest.param(np.full((2, 3, 3), 1), id="colours instead of numbers"),
    ],
)
def test_a_label_that_cannot_be_trained_on_is_not_accepted(labels, tmp_path):
    _, row = make(tmp_path)
    Image.fromarray(labels.astype(np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png: found .*expected 8-bit class numbers, 2 x 3"):
        accept(tmp_path, row, len(NAMES))


def test_a_label_of_16_bits_is_not_accepted(tmp_path):
    _, row = make(tmp_path)
    Image.fromarray(np.full((2, 3), 700, np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png: found .*expected 8-bit class numbers, 2 x 3"):
        accept(tmp_path, row, len(NAMES))


def test_a_black_and_white_label_is_not_accepted(tmp_path):
    _, row = make(tmp_path)
    Image.fromarray(np.full((2, 3), True)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png: found .*expected 8-bit class numbers, 2 x 3"):
        accept(tmp_path, row, len(NAMES))


@pytest.mark.parametrize("cut", [b"\x89PNG", b"IHDR", b"PLTE", b"IDAT"])
def test_a_missing_or_truncated_label_is_not_accepted(cut, tmp_path):
    _, row = make(tmp_path)
    path = tmp_path / "b.png"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(cut) + 6])
    with pytest.raises(DataError, match=r"b\.png"):
        accept(tmp_path, row, len(NAMES))
    path.unlink()
    with pytest.raises(DataError, match=r"b\.png: no such file"):
        accept(tmp_path, row, len(NAMES))
