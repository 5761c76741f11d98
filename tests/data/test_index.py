import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import ExifTags, Image

from dst_cbc.data import index
from dst_cbc.data.index import (
    COLUMNS,
    check,
    read_index,
    require_same,
    rows_of,
    used_files,
    window_of,
    write_index,
)
from dst_cbc.data.layouts.layout import Record
from dst_cbc.data.records import list_records
from dst_cbc.runtime.errors import DataError, Spoiled
from dst_cbc.runtime.files import sha256_file

PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3))
MASK = np.random.default_rng(1).integers(0, 3, (5, 7))


@pytest.fixture
def pictures(tmp_path, write_image):
    """Three images with masks, and one training image without."""
    subsets = {"a": "train", "b": "train", "c": "val", "d": "test"}
    for place, (id, subset) in enumerate(subsets.items()):
        write_image(tmp_path / f"images/{subset}/{id}.png", np.roll(PICTURE, place, 1))
        if id != "b":
            write_image(tmp_path / f"labels/{subset}/{id}.png", MASK)
    return tmp_path


def checked(root, dataset, **options):
    return check(root, list_records(root, dataset), dataset, **options)


def test_a_row_says_all_of_an_image(pictures, folder_dataset):
    rows = checked(pictures, folder_dataset)
    assert [row.id for row in rows] == ["a", "b", "c", "d"]
    first, second = rows[:2]
    assert (first.height, first.width, first.subset) == (5, 7, "train")
    assert first.image_sha256 == sha256_file(pictures / "images/train/a.png")
    assert first.label_sha256 == sha256_file(pictures / "labels/train/a.png")
    assert (second.label, second.label_sha256) == ("", "")


def test_the_index_comes_back_as_it_was_written(pictures, folder_dataset, tmp_path):
    rows = checked(pictures, folder_dataset)
    write_index(tmp_path / "dataset.csv", rows)
    assert list(read_index(tmp_path / "dataset.csv").values()) == rows
    header = (tmp_path / "dataset.csv").read_text().splitlines()[0]
    assert header == "id,image,label,height,width,subset,image_sha256,label_sha256,black,white"
    assert header.split(",") == COLUMNS


def test_files_that_have_changed_since_the_check_are_named(pictures, folder_dataset, write_image):
    rows = checked(pictures, folder_dataset)
    require_same(pictures, rows, pictures)
    write_image(pictures / "labels/val/c.png", 1 - MASK.clip(0, 1))
    require_same(pictures, rows)
    with pytest.raises(Spoiled, match=r"1 files have changed.*first .*labels/val/c\.png"):
        require_same(pictures, rows, pictures)
    (pictures / "images/test/d.png").unlink()
    with pytest.raises(FileNotFoundError):
        require_same(pictures, rows)


def test_an_id_without_a_row_is_named_with_its_list(pictures, folder_dataset, tmp_path):
    index = {row.id: row for row in checked(pictures, folder_dataset)}
    assert [row.id for row in rows_of(index, ["c", "a"], tmp_path / "ids.txt")] == ["c", "a"]
    with pytest.raises(DataError, match=r"ids\.txt: 'e' is not in dataset\.csv"):
        rows_of(index, ["a", "e"], tmp_path / "ids.txt")


def test_two_processes_give_the_rows_of_one(pictures, folder_dataset):
    assert checked(pictures, folder_dataset, processes=2) == checked(pictures, folder_dataset)


def test_all_bad_files_are_named_at_once(pictures, folder_dataset, write_image):
    (pictures / "images/train/a.png").write_bytes(b"damaged")
    content = (pictures / "images/train/b.png").read_bytes()
    (pictures / "images/train/b.png").write_bytes(content[: len(content) // 2])
    write_image(pictures / "labels/val/c.png", MASK[:, :-1])
    write_image(pictures / "labels/test/d.png", np.full((5, 7), 77))
    with pytest.raises(DataError) as error:
        checked(pictures, folder_dataset)
    text = str(error.value)
    assert text.startswith("4 problems in the data set")
    assert "images/train/a.png: cannot be decoded" in text
    assert "images/train/b.png: cannot be decoded" in text
    assert "labels/val/c.png: size (6, 5), but its image has (7, 5)" in text
    assert "labels/test/d.png: mask values [77]" in text


def test_masks_that_are_read_by_the_colours_of_their_format_are_counted(
    pictures, folder_dataset, write_image, capsys
):
    voc = {"format": "voc", "classes": {"background": "#000000", "car": "#808080"}}
    labels = {"labels": {0: "background", 1: "car"}}
    dataset = folder_dataset.model_copy(update=voc | labels)
    records = [r for r in list_records(pictures, folder_dataset) if r.label]
    for record in records:
        write_image(pictures / record.label, (MASK > 1).astype(int))
    check(pictures, records, dataset)
    assert capsys.readouterr().out == ""
    for record in records[:2]:
        write_image(pictures / record.label, 128 * (MASK > 1)[..., None].repeat(3, 2))
    check(pictures, records, dataset)
    said = "notice: mask of colours, read by the colours of the format's classes: 2 files\n"
    assert capsys.readouterr().out == said


def test_both_files_of_one_image_are_named(pictures, folder_dataset):
    (pictures / "images/val/c.png").write_bytes(b"")
    (pictures / "labels/val/c.png").write_bytes(b"")
    with pytest.raises(DataError, match="2 problems"):
        checked(pictures, folder_dataset)


@pytest.mark.parametrize("subset, id", [("val", "c"), ("test", "d")])
def test_validation_and_test_images_need_a_mask(subset, id, pictures, folder_dataset):
    (pictures / f"labels/{subset}/{id}.png").unlink()
    with pytest.raises(DataError, match=rf"{id}\.png: no label, but subset `{subset}` needs one"):
        checked(pictures, folder_dataset)


def test_a_training_image_needs_a_mask_only_where_it_is_asked_for(pictures, folder_dataset):
    checked(pictures, folder_dataset, need_label=["a"])
    with pytest.raises(DataError, match=r"b\.png: no label"):
        checked(pictures, folder_dataset, need_label=["a", "b"])


def test_a_listed_image_that_does_not_exist_is_named(pictures, folder_dataset):
    ghost = Record("ghost", "images/train/ghost.png", "labels/train/ghost.png", "train")
    with pytest.raises(DataError) as error:
        check(pictures, [ghost], folder_dataset)
    assert "images/train/ghost.png: no such file" in str(error.value)
    assert "labels/train/ghost.png: no such file" in str(error.value)


def test_an_index_of_another_layout_is_refused(tmp_path):
    (tmp_path / "dataset.csv").write_text("id,picture\na,a.png\n")
    with pytest.raises(DataError, match=r"dataset\.csv: no column 'image'"):
        read_index(tmp_path / "dataset.csv")


def test_an_index_with_a_size_that_is_no_number_is_refused(pictures, folder_dataset, tmp_path):
    write_index(tmp_path / "dataset.csv", checked(pictures, folder_dataset))
    text = (tmp_path / "dataset.csv").read_text().replace(",5,7,", ",five,7,", 1)
    (tmp_path / "dataset.csv").write_text(text)
    with pytest.raises(DataError, match=r"dataset\.csv"):
        read_index(tmp_path / "dataset.csv")


@pytest.mark.parametrize(
    "column, value, said",
    [
        ("id", "/tmp/b", "'/tmp/b' cannot be an id or a path"),
        ("id", "../b", "'../b' cannot be"),
        ("id", "town/../../b", "cannot be"),
        ("id", "", "'' cannot be"),
        ("image", "../../secret.png", "cannot be"),
        ("image", "/etc/shadow", "cannot be"),
        ("label", "/etc/shadow", "cannot be"),
        ("label", "a/./b.png", "cannot be"),
        ("subset", "validation", "expected train, val or test"),
        ("height", "0", "'height': found '0'; expected a whole number from 1 on"),
        ("width", "99999999999", "expected 1 to 536870912 pixels"),
        ("black", "3", "black 3, white None"),
        ("height", "1e3", "'height': found '1e3'; expected a whole number"),
    ],
)
def test_each_row_of_an_index_is_one_that_the_check_could_have_written(
    column, value, said, pictures, folder_dataset, tmp_path
):
    rows = checked(pictures, folder_dataset)
    write_index(tmp_path / "dataset.csv", [rows[0], replace(rows[1], **{column: value})])
    with pytest.raises(DataError, match=rf"dataset\.csv, line 3: .*{said}.*; delete the "):
        read_index(tmp_path / "dataset.csv")


def test_an_index_with_an_id_twice_is_refused(pictures, folder_dataset, tmp_path):
    row = checked(pictures, folder_dataset)[0]
    write_index(tmp_path / "dataset.csv", [row, row])
    with pytest.raises(DataError, match=rf"line 3: id '{row.id}' occurs twice"):
        read_index(tmp_path / "dataset.csv")


def test_used_files_change_with_what_is_used_and_with_nothing_else(
    pictures, folder_dataset, write_image
):
    before = checked(pictures, folder_dataset)
    write_image(pictures / "labels/train/a.png", MASK[::-1])
    after = checked(pictures, folder_dataset)
    assert used_files(before, labels=True) != used_files(after, labels=True)
    assert used_files(before, labels=False) == used_files(after, labels=False)
    assert used_files(before[1:], labels=True) == used_files(after[1:], labels=True)
    write_image(pictures / "images/train/a.png", PICTURE[::-1])
    assert used_files(checked(pictures, folder_dataset), False) != used_files(before, False)
    assert used_files(before[::-1], labels=False) != used_files(before, labels=False)


def deep(pixels):
    return Image.fromarray(np.asarray(pixels, np.uint16))


def test_one_window_is_measured_over_all_16_bit_training_images(pictures, folder_dataset, tmp_path):
    deep(np.full((5, 7), 1000)).save(pictures / "images/train/a.png")
    deep(np.full((5, 7), 3000)).save(pictures / "images/train/b.png")
    deep(np.full((5, 7), 9)).save(pictures / "images/val/c.png")
    rows = checked(pictures, folder_dataset)
    assert [(row.black, row.white) for row in rows] == [(1000, 3000)] * 3 + [(None, None)]
    write_index(tmp_path / "dataset.csv", rows)
    assert list(read_index(tmp_path / "dataset.csv").values()) == rows
    assert window_of(rows) == (1000, 3000) and window_of(rows[3:]) is None


def test_the_pixels_of_a_16_bit_image_are_counted_in_pieces(monkeypatch):
    monkeypatch.setattr(index, "_PIECE", 7)
    values = np.random.default_rng(0).integers(0, 9, (4, 5, 3)).astype(np.uint16)
    expected = np.bincount(values.ravel(), minlength=1 << 16)
    np.testing.assert_array_equal(index._histogram(values), expected)


def test_a_window_that_the_experiment_names_is_taken(pictures, folder_dataset):
    deep(np.full((5, 7), 9)).save(pictures / "images/val/c.png")
    named = folder_dataset.model_copy(update={"window": (5, 50)})
    assert window_of(checked(pictures, named)) == (5, 50)
    with pytest.raises(DataError, match=r"c\.png: 16-bit, but no training image has.*window"):
        checked(pictures, folder_dataset)


def test_a_mask_that_was_not_turned_with_its_image_is_named(pictures, folder_dataset):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.open(pictures / "images/val/c.png").save(pictures / "images/val/c.png", exif=exif)
    with pytest.raises(DataError, match=r"size \(7, 5\), but its image has \(5, 7\), turned as"):
        checked(pictures, folder_dataset)
    # Another size is not explained by it.
    label = pictures / "labels/val/c.png"
    mask = Image.open(label)
    mask.crop((0, 0, 3, 3)).save(label)
    with pytest.raises(DataError, match=r"size \(3, 3\), but its image has \(5, 7\)$"):
        checked(pictures, folder_dataset)
    mask.save(label)
    Image.open(label).transpose(Image.Transpose.ROTATE_270).save(label)
    row = checked(pictures, folder_dataset)[2]
    assert (row.height, row.width) == (7, 5)


def test_a_mask_of_the_swapped_size_of_an_image_without_exif_is_not_explained_by_it(
    pictures, folder_dataset
):
    label = pictures / "labels/val/c.png"
    Image.open(label).transpose(Image.Transpose.ROTATE_270).save(label)
    with pytest.raises(DataError, match=r"size \(5, 7\), but its image has \(7, 5\)$"):
        checked(pictures, folder_dataset)


def test_images_that_are_turned_are_counted(pictures, folder_dataset, capsys):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    for path in ("images/train/a.png", "images/val/c.png"):
        Image.open(pictures / path).save(pictures / path, exif=exif)
    checked(pictures, folder_dataset)
    said = "image is turned as its EXIF orientation says; its mask must fit the turned image"
    assert capsys.readouterr().out == f"notice: {said}: 2 files\n"


def test_alpha_is_said_once_with_the_number_of_files(pictures, folder_dataset, capsys):
    for path in ("images/train/a.png", "images/val/c.png"):
        Image.open(pictures / path).convert("RGBA").save(pictures / path)
    checked(pictures, folder_dataset)
    assert capsys.readouterr().out == "notice: alpha channel of the image is not used: 2 files\n"


def test_what_masks_of_numbers_may_mean_otherwise_is_a_notice(
    pictures, folder_dataset, write_image, capsys
):
    checked(pictures, folder_dataset)
    assert "notice" not in capsys.readouterr().out
    for id, red in (("train/a", 200), ("val/c", 10)):
        mask = np.zeros((5, 7), np.uint8)
        mask[0], mask[1] = 1, 255
        image = Image.fromarray(mask).convert("P")
        image.putpalette([0, 0, 0, red, 0, 0, *[9] * 762])
        image.save(pictures / f"labels/{id}.png")
    checked(pictures, folder_dataset)
    ignored, palettes = capsys.readouterr().out.splitlines()
    assert "notice: 13.33% of the mask pixels, in 2 of 3 masks, have no class" in ignored
    assert "value 1 is #c80000 in " in palettes and "a.png and #0a0000 in " in palettes
    names = dict(zip(folder_dataset.classes, (0, 1, 255), strict=False))
    numbers = {value: name for name, value in names.items()} | {2: next(iter(names))}
    checked(pictures, folder_dataset.model_copy(update={"labels": numbers, "ignore": ()}))
    (palettes,) = capsys.readouterr().out.splitlines()
    assert "palettes contradict each other" in palettes
    colours = [f"#{grey:02x}{grey:02x}{grey:02x}" for grey in (0, 1, 2, 9)] + ["#c80000", "#0a0000"]
    named = dict.fromkeys(colours, next(iter(names)))
    checked(pictures, folder_dataset.model_copy(update={"labels": named, "ignore": ()}))
    assert "notice" not in capsys.readouterr().out


def copied(pictures, source, target):
    shutil.copy(pictures / f"images/{source}.png", pictures / f"images/{target}.png")


def test_identical_images_in_two_subsets_are_warned_of(pictures, folder_dataset, capsys):
    copied(pictures, "train/b", "train/b2")
    checked(pictures, folder_dataset)
    assert capsys.readouterr().out == ""
    copied(pictures, "val/c", "train/e")
    copied(pictures, "val/c", "train/f")
    copied(pictures, "train/a", "test/d")
    checked(pictures, folder_dataset)
    between_test, between_val = capsys.readouterr().out.splitlines()
    assert between_test.startswith(
        "WARNING: identical images in train and test, 1 of test: "
        "images/test/d.png and images/train/a.png. The result on test is too good then"
    )
    assert "in train and val, 1 of val: images/val/c.png and images/train/e.png. " in between_val


def test_masks_of_identical_images_may_not_contradict_each_other(
    pictures, folder_dataset, write_image, capsys
):
    copied(pictures, "train/a", "train/b")
    write_image(pictures / "labels/train/b.tif", MASK)
    rows = checked(pictures, folder_dataset)
    assert rows[0].label_sha256 != rows[1].label_sha256
    write_image(pictures / "labels/train/b.tif", MASK[::-1])
    with pytest.raises(DataError) as error:
        checked(pictures, folder_dataset)
    said = str(error.value)
    assert "labels/train/b.tif contradicts" in said and "labels/train/a.png: their images" in said
    published = folder_dataset.model_copy(update={"format": "voc"})
    check(pictures, list_records(pictures, folder_dataset), published)
    assert "WARNING: 1 contradictions; " in capsys.readouterr().out


def test_images_that_look_alike_in_two_subsets_are_warned_of(
    pictures, folder_dataset, write_image, capsys
):
    large = np.random.default_rng(2).integers(0, 256, (45, 63, 3))
    for name in ("images/train/e.png", "images/train/f.png", "images/val/c.png"):
        write_image(pictures / name, large)
        large = (0.9 * large).astype(int)
    write_image(pictures / "labels/val/c.png", np.zeros((45, 63)))
    checked(pictures, folder_dataset)
    (warning,) = capsys.readouterr().out.splitlines()
    assert "look alike in train and val, 1 of val: images/val/c.png and images/train/" in warning
