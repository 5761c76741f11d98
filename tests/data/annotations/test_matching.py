"""Names in annotation files find images by the ends of their paths."""

from pathlib import Path

import pytest

from dst_cbc.data.annotations.matching import Images, matched
from dst_cbc.data.annotations.shapes import Annotated, Annotations, Shape, box

PATHS = {
    "a": "photos/a.jpg",
    "train/x": "photos/train/x.png",
    "val/x": "photos/val/x.png",
    "b.c": "photos/b.c.tif",
    "Ä": "photos/A\u0308.png",
    "stack/0003": "photos/stack.tif/0003",
    "slide.ome": "photos/slide.ome.tif",
    "deep.ome/0001": "photos/deep.ome.tif/0001",
}


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("a.jpg", "a"),
        ("a", "a"),
        ("a.png", "a"),
        ("train/x.png", "train/x"),
        ("..\\images\\val\\x.png", "val/x"),
        ("/data/upload/1/0a1b2c3d-a.jpg", "a"),
        ("b.c", "b.c"),
        ("\u00c4.png", "Ä"),
        ("elsewhere/a.jpg", "a"),
        ("stack/0003", "stack/0003"),
        ("stack.tif/0003", "stack/0003"),
        ("slide", "slide.ome"),
        ("slide.ome.tif", "slide.ome"),
        ("deep/0001", "deep.ome/0001"),
    ],
)
def test_the_longest_end_of_a_name_decides(name, id):
    assert Images(PATHS).named(name) == {id}


@pytest.mark.parametrize(
    "name", ["", "..", "/", "c.jpg", "a.jpg/b", "A.JPG", "0a1b2c3d-", "0003", "other/0003"]
)
def test_other_names_find_nothing(name):
    assert Images(PATHS).named(name) == set()


SHAPE = Shape("cell", [[box(0, 0, 1, 1)]])


def annotated(name, file="one.json", shapes=(SHAPE,)):
    return Annotated(Path(file), name, None, shapes)


def test_a_name_of_two_images_and_an_image_with_two_entries_are_problems():
    found = Annotations([annotated("x.png"), annotated("a.jpg"), annotated("a", "two.json")])
    by_id, problems, notices = matched(found, PATHS, False, Path("photos"))
    assert list(by_id) == ["a"] and notices == []
    assert problems == [
        "one.json: the name 'x.png' may mean photos/train/x.png and photos/val/x.png; give the "
        "path of the image, or rename one of them",
        "two.json: describes photos/a.jpg, which one.json describes, too; keep one of the two",
    ]


def test_a_stack_is_named_by_its_pages():
    names = ("stack.tif", "stack/0003", "a.jpg", "0003")
    found = Annotations([annotated(name) for name in names])
    by_id, problems, notices = matched(found, PATHS, True, Path("photos"))
    assert list(by_id) == ["stack/0003", "a"] and "1 of 4 images with shapes" in notices[0]
    assert problems == [
        "one.json: 'stack.tif' is a stack; expected shapes of its pages, such as 'stack/0003'"
    ]


@pytest.mark.parametrize(
    ("file", "name", "id"),
    [
        ("labels/val/x.json", "x", "val/x"),
        ("labels/val/all.json", "x.png", "val/x"),
        ("labels/val/all.json", "train/x.png", "train/x"),
        ("labels/stack/0003.geojson", "0003", "stack/0003"),
    ],
)
def test_the_folders_of_a_file_decide_between_images_of_one_name(file, name, id):
    found = Annotations([annotated(name, file)])
    by_id, problems, notices = matched(found, PATHS, False, Path("photos"))
    assert list(by_id) == [id] and problems == notices == []


def test_images_that_are_not_there_are_a_problem_unless_they_may_be_missing():
    gone = [annotated(f"gone{number}.jpg") for number in range(5)]
    found = Annotations([annotated("a.jpg"), *gone, annotated("empty.jpg", shapes=())])
    by_id, problems, notices = matched(found, PATHS, False, Path("photos"))
    said = (
        "5 of 6 images with shapes are not below photos: gone0.jpg, gone1.jpg, gone2.jpg and 2 more"
    )
    assert list(by_id) == ["a"] and notices == []
    assert len(problems) == 1 and problems[0].startswith(f"one.json: {said}. Put them there")
    assert matched(found, PATHS, True, Path("photos"))[1:] == ([], [f"{said}; they are left out"])
