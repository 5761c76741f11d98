import re

import numpy as np
import pytest
from PIL import Image

from dst_cbc.data import prepared
from dst_cbc.data.prepared import cwfid, nuclei, sunnybrook
from dst_cbc.runtime.errors import DataError

A, B = "a" * 64, "b" * 64


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def read(path):
    with Image.open(path) as image:
        return np.asarray(image).tolist()


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def add_nuclei(source, id, image, *masks):
    write(source / id / f"images/{id}.png", image)
    for number, mask in enumerate(masks):
        write(source / id / f"masks/{number}.png", mask)


def row(*inside, width=16, value=255):
    """A mask of one row."""
    return [[value if column in inside else 0 for column in range(width)]]


GREY = np.full((1, 16, 4), 255)


def test_pixels_within_two_pixels_of_another_nucleus_are_border(tmp_path):
    add_nuclei(tmp_path / "s", A, GREY, row(0, 1, 2), row(4, 5, 6), row(9, 10))
    done = nuclei(tmp_path / "s", tmp_path / "out")
    expected = [[1, 1, 2, 0, 2, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0]]
    assert read(tmp_path / "out/masks/other/aaaaaaaaaaaa.png") == expected
    assert "(1 images have some)" in done
    assert re.findall(r"(\d+) with", done) == ["0", "0", "0", "0"]


def test_images_lie_in_folders_of_their_size_and_colour_type(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "RARE", 2)
    almost, coloured = np.full((1, 16, 3), 100), np.full((1, 16, 3), 100)
    almost[0, 3, 1], coloured[0, 3, 1] = 102, 103
    images = {"a": GREY, "b": almost, "c": coloured, "d": coloured, "e": np.zeros((2, 16))}
    for letter, image in images.items():
        masks = [np.full(np.shape(image)[:2], 255)]
        add_nuclei(tmp_path / "s", letter * 64, image, *masks)
    nuclei(tmp_path / "s", tmp_path / "out")
    expected = [
        f"{folder}/{letter * 12}.png"
        for folder, letter in (
            ("16x1-colour", "c"), ("16x1-colour", "d"), ("16x1-grey", "a"), ("16x1-grey", "b"),
            ("other", "e"),
        )
    ]  # fmt: skip
    for kind in ("images", "masks"):
        assert sorted(contents(tmp_path / "out" / kind)) == expected
        assert len(list((tmp_path / "out" / kind).iterdir())) == 3
    assert read(tmp_path / f"out/images/16x1-grey/{'a' * 12}.png") == [[255] * 16]
    assert read(tmp_path / f"out/images/16x1-colour/{'c' * 12}.png") == coloured.tolist()


def test_damaged_and_missing_masks_of_nuclei_are_counted(tmp_path):
    add_nuclei(tmp_path / "s", A, GREY, row(0, value=128), row(9, value=127), row(0, width=9),
               row(), row(0, 1))  # fmt: skip
    add_nuclei(tmp_path / "s", B, GREY)
    done = nuclei(tmp_path / "s", tmp_path / "out")
    assert list(contents(tmp_path / "out/masks")) == ["other/aaaaaaaaaaaa.png"]
    assert read(tmp_path / "out/masks/other/aaaaaaaaaaaa.png") == row(0, 1, value=1)
    assert len(contents(tmp_path / "out/images")) == 2
    assert re.findall(r"(\d+) with", done) == ["1", "1", "1", "1"]


@pytest.fixture
def hearts(tmp_path):
    """One image of a training patient and one of a test patient; one pixel is the cavity."""
    source = tmp_path / "s"
    for part, patient in (("Train", "SC-N-02"), ("Test", "SC-HF-I-9")):
        name = f"Part1/{patient}-IM-0001-0048.dcm.png"
        image, mask = np.zeros((256, 256, 3)), np.zeros((256, 256, 3))
        image[64, 191], mask[191, 64] = 7, 255
        write(source / part / "Images" / name, image)
        write(source / part / "Labels" / name, mask)
    return source


TEST_HEART = "Part1/SC-HF-I-9-IM-0001-0048.dcm.png"


def test_hearts_are_cut_out_and_test_patients_are_named(hearts, tmp_path):
    done = sunnybrook(hearts, tmp_path / "out")
    names = {f"{kind}/{patient}/0048.png" for kind in ("images", "masks")
             for patient in ("SC-N-02", "test-SC-HF-I-9")}  # fmt: skip
    assert contents(tmp_path / "out").keys() == names
    assert done.startswith("2 images of 2 patients")
    image = np.array(read(tmp_path / "out/images/SC-N-02/0048.png"))
    mask = np.array(read(tmp_path / "out/masks/SC-N-02/0048.png"))
    assert image.shape == mask.shape == (128, 128)
    assert (image[0, 127], image.sum(), mask[127, 0], mask.sum()) == (7, 7, 1, 1)


@pytest.fixture
def field(tmp_path):
    """Two photographs of 4x2 pixels. Of each square of 2x2 pixels, the last one counts."""
    drawn = np.zeros((2, 4, 3))
    drawn[0, 0, 0] = drawn[1, 1, 1] = drawn[1, 3, 0] = 255
    for id in ("001", "002"):
        write(tmp_path / f"s/images/{id}_image.png", np.full((2, 4, 3), 60))
        write(tmp_path / f"s/annotations/{id}_annotation.png", drawn)
    return tmp_path / "s"


def test_photographs_of_the_field_are_halved(field, tmp_path):
    assert cwfid(field, tmp_path / "out").startswith("2 photographs")
    assert contents(tmp_path / "out").keys() == {
        "images/001.jpg", "images/002.jpg", "labels/001.png", "labels/002.png"
    }  # fmt: skip
    assert read(tmp_path / "out/labels/002.png") == [[1, 2]]
    assert read(tmp_path / "out/images/001.jpg") == [[[60, 60, 60], [60, 60, 60]]]


def test_each_data_set_is_made_in_the_same_bytes_again(hearts, field, tmp_path):
    add_nuclei(tmp_path / "n", A, GREY, row(0, 1, 2), row(3, 4))
    for number, (prepare, source) in enumerate(
        ((nuclei, tmp_path / "n"), (sunnybrook, hearts), (cwfid, field))
    ):
        one, two = tmp_path / f"one{number}", tmp_path / f"two{number}"
        assert prepare(source, one) == prepare(source, two)
        assert contents(one) == contents(two) != {}


def test_broken_nuclei_are_refused(tmp_path):
    add_nuclei(tmp_path / "s", A, GREY, np.stack([row(0), row(1), row(2)], axis=-1))
    with pytest.raises(DataError, match=r"0\.png: a mask of colours, expected of black and white"):
        nuclei(tmp_path / "s", tmp_path / "one")
    (tmp_path / "s" / A / "masks/0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0\.png: cannot be decoded"):
        nuclei(tmp_path / "s", tmp_path / "two")
    (tmp_path / "s" / A / f"images/{A}.png").unlink()
    with pytest.raises(DataError, match="no such file"):
        nuclei(tmp_path / "s", tmp_path / "three")


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda label: label.unlink(), "no such file"),
        (lambda label: label.write_bytes(b""), "cannot be decoded"),
        (lambda label: write(label, np.zeros((128, 128))), r"of the size \(256, 256\)"),
        (lambda label: write(label, np.eye(256) * 255), "outside of rows and columns 64 to 191"),
        (
            lambda label: label.rename(label.parents[2] / "Images/Part1/N-2.png"),
            r"N-2\.png: expected a name as SC-N-02-IM-0001-0048\.dcm\.png",
        ),
    ],
    ids=["missing", "damaged", "another size", "outside", "name"],
)
def test_broken_hearts_are_refused(change, reason, hearts, tmp_path):
    change(hearts / "Test/Labels" / TEST_HEART)
    with pytest.raises(DataError, match=reason):
        sunnybrook(hearts, tmp_path / "out")


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda drawn: drawn.unlink(), "no such file"),
        (lambda drawn: drawn.write_bytes(b""), "cannot be decoded"),
        (lambda drawn: write(drawn, np.zeros((2, 2))), r"size \(2, 2\), its image has \(4, 2\)"),
        (lambda drawn: write(drawn, np.full((2, 4, 3), 255)), "other colours than black"),
    ],
    ids=["missing", "damaged", "another size", "another colour"],
)
def test_a_broken_field_is_refused(change, reason, field, tmp_path):
    change(field / "annotations/002_annotation.png")
    with pytest.raises(DataError, match=rf"002_annotation\.png.*{reason}"):
        cwfid(field, tmp_path / "out")
