"""Files of labelme and X-AnyLabeling become shapes, or a list of everything that is wrong."""

import base64
import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from annotation_checks import corners, damaged, read, rows, write_json
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dst_cbc.data.annotations import collector
from dst_cbc.data.annotations.labelme import FORMAT

FILES = Path(__file__).parent / "files"


def png(pixels, **options):
    stream = io.BytesIO()
    Image.fromarray(np.array(pixels, np.uint8)).save(stream, "PNG", **options)
    return base64.b64encode(stream.getvalue()).decode()


RING = [[255, 255, 255], [255, 0, 255], [255, 255, 255]]
FIELD = {
    "version": "5.4.1",
    "flags": {},
    "shapes": [
        {"label": "plot", "points": [[1, 1], [9, 1], [9, 7]], "shape_type": "polygon"},
        # With a hole, over the plot.
        {"label": "tree", "points": [[2, 3], [4, 5]], "shape_type": "mask", "mask": png(RING)},
        # Over the border, drawn from its right lower corner.
        {"label": "tree", "points": [[14, 9], [8, 3]], "shape_type": "rectangle", "group_id": 4},
    ],
    "imagePath": "..\\images\\field.jpg",
    "imageData": "not decoded",
    "imageHeight": 10,
    "imageWidth": 12,
}


def with_shapes(*shapes, **keys):
    return {**FIELD, "shapes": list(shapes), **keys}


def shape(kind, points, **keys):
    return {"label": "cell", "shape_type": kind, "points": points, **keys}


def problems_of(tmp_path, content):
    """The problems of a file, without its name."""
    file = write_json(tmp_path / "a.json", content)
    return [line.removeprefix(f"{file}: ") for line in read(FORMAT, [file]).problems]


def test_a_polygon_a_mask_with_a_hole_and_a_rectangle_over_the_border(tmp_path):
    found = read(FORMAT, [write_json(tmp_path / "a.json", FIELD)])
    (image,) = found.images
    plot, ring, tree = image.shapes
    assert (image.image, image.size) == ("../images/field.jpg", (12, 10))
    assert (found.problems, found.notices) == ([], [])
    assert found.classes == {"plot": None, "tree": None}
    assert (plot.label, corners(plot.polygons[0])) == ("plot", [[[1, 1], [9, 1], [9, 7]]])
    assert (ring.label, ring.mask.left, ring.mask.top) == ("tree", 2, 3)
    assert rows(ring.mask.pixels()) == ["111", "101", "111"]
    assert corners(tree.polygons[0]) == [[[14, 9], [8, 9], [8, 3], [14, 3]]]


def test_a_file_that_labelme_wrote():
    found = read(FORMAT, [FILES / "labelme.json"])
    (image,) = found.images
    _, ring, _, circle, ignored = image.shapes
    assert (image.image, image.size) == ("../images/field.jpg", (12, 10))
    assert found.notices == ["left out: lines (1), because they cover no area"]
    assert list(found.classes) == ["field", "ring", "tree"]
    assert rows(ring.mask.pixels()) == ["11111", "10001", "10001", "11111"]
    assert (ring.mask.left, ring.mask.top) == (2, 3)
    distances = np.hypot(*(circle.polygons[0][0] - (4, 4)).T)
    np.testing.assert_allclose(distances, 2)
    assert [one.ignored for one in image.shapes] == [False] * 4 + [True]
    assert corners(ignored.polygons[0]) == [[[0, 8], [2, 8], [2, 9], [0, 9]]]


@pytest.mark.parametrize("kind", ["rotation", "quadrilateral", "oriented_rectangle", "rectangle"])
def test_shapes_of_four_corners(tmp_path, kind):
    four = [[2, 0], [4, 2], [2, 4], [0, 2]]
    found = read(FORMAT, [write_json(tmp_path / "a.json", with_shapes(shape(kind, four)))])
    assert corners(found.images[0].shapes[0].polygons[0]) == [four]


def test_shapes_without_an_area_are_counted_and_left_out(tmp_path):
    one = [shape("point", [[1, 1]]), shape("line", [[1, 1], [2, 2]]), shape("cuboid", [])]
    other = [shape("linestrip", [[1, 1], [2, 2], [3, 1]])]
    files = [
        write_json(tmp_path / "a.json", with_shapes(*one, imagePath="a.png")),
        write_json(tmp_path / "b.json", with_shapes(*other, imagePath="b.png")),
    ]
    found = read(FORMAT, files)
    assert [image.shapes for image in found.images] == [[], []]
    assert found.notices == [
        "left out: points (1), lines (2), cuboids (1), because they cover no area"
    ]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.jpg", "x/a.jpg"),
        ("..\\images\\a.jpg", "images/a.jpg"),
        ("", "x/one"),
        (None, "x/one"),
        ("C:\\data\\a.jpg", "x/C:/data/a.jpg"),
        ("/data/a.jpg", "/data/a.jpg"),
    ],
)
def test_names_of_images_count_from_the_folder_of_all_files(tmp_path, path, name):
    one = write_json(tmp_path / "x/one.json", with_shapes(imagePath=path))
    other = write_json(tmp_path / "y/other.json", with_shapes(imagePath="other.jpg"))
    found = read(FORMAT, [one, other])
    assert [image.image for image in found.images] == [name, "y/other.jpg"]
    assert found.problems == []


def test_two_files_of_one_image_are_a_problem(tmp_path):
    first, second = (write_json(tmp_path / name, FIELD) for name in ("a.json", "b.json"))
    found = read(FORMAT, [first, second])
    assert len(found.images) == 1
    assert found.problems == [
        f"{second}: describes the image '../images/field.jpg', which {first} describes, too; keep "
        "one of the two"
    ]


def test_a_mask_with_fractions_in_its_box_has_its_own_size(tmp_path):
    mask = shape("mask", [[2.4, 3.4], [4.8, 5.8]], mask=png(RING))
    found = read(FORMAT, [write_json(tmp_path / "a.json", with_shapes(mask))])
    (one,) = found.images[0].shapes
    assert (one.mask.left, one.mask.top, one.mask.width, one.mask.height) == (2, 3, 3, 3)


WRONG = {
    "the points None, expected a list of pairs of numbers": shape("polygon", None),
    "2 points, expected at least 3 and at most 5,000,000": shape("polygon", [[1, 1], [2, 2]]),
    "3 points, expected 2": shape("circle", [[1, 1], [2, 2], [3, 3]]),
    "points that are not pairs of numbers": shape("polygon", [[1, 1], [2, 2], [3]]),
    "the point (nan, 1), expected numbers of at most 1e+06": shape(
        "rectangle", [[float("nan"), 1], [2, 2]]
    ),
    "the shape type 'star', which is not known here; draw a polygon": shape("star", [[1, 1]]),
    "the mask None, expected a PNG as base64 text": shape("mask", [[1, 1], [2, 2]]),
    "a mask of 3 x 3 pixels, expected 2 x 2, as its two points": shape(
        "mask", [[1, 1], [2, 2]], mask=png(RING)
    ),
    "a mask of 2 x 1 pixels of mode RGB, expected at most 536,870,912 pixels of one channel": shape(
        "mask", [[1, 1], [2, 1]], mask=png([[[1, 2, 3], [1, 2, 3]]])
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_each_fault_of_a_shape_is_named_with_its_place(tmp_path, wrong):
    content = with_shapes(shape("polygon", [[0, 0], [1, 0], [1, 1]]), WRONG[wrong])
    assert problems_of(tmp_path, content) == [f"shape 2 ('cell'): {wrong}"]


def test_all_faults_of_a_file_are_listed_at_once(tmp_path):
    shapes = [
        3,
        shape("polygon", [[0, 0]]),
        {"points": [[0, 0], [1, 0], [1, 1]]},
        {**shape("polygon", [[0, 0], [1, 0], [1, 1]]), "label": "a\x00b"},
    ]
    assert problems_of(tmp_path, with_shapes(*shapes, imageWidth="12")) == [
        "imageWidth, imageHeight: an image of '12' x 10 pixels, expected whole numbers of 1 or "
        "more",
        "shape 1 (3): found 3, expected a shape",
        "shape 2 ('cell'): 1 points, expected at least 3 and at most 5,000,000",
        "shape 3 (None): the label None, expected the name of a class, without control characters",
        "shape 4 ('a\\x00b'): the label 'a\\x00b', expected the name of a class, without control "
        "characters",
    ]


def test_a_file_with_very_many_faults_says_how_many_more(tmp_path):
    triangles = [[[number, 0], [number, 1], [number, 1e9]] for number in range(5000)]
    lines = problems_of(tmp_path, with_shapes(*(shape("polygon", one) for one in triangles)))
    assert len(lines) == collector.MOST_PROBLEMS + 1
    assert lines[-1] == "and 4,980 more problems"


def test_a_fault_of_many_shapes_is_one_line(tmp_path):
    assert problems_of(tmp_path, with_shapes(*[shape("polygon", [])] * 5000)) == [
        "shape 1 ('cell'), shape 2 ('cell'), shape 3 ('cell') and 4,997 more: 0 points, expected "
        "at least 3 and at most 5,000,000"
    ]


def test_a_bomb_in_a_mask_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    bomb = png(np.zeros((3000, 3000)), compress_level=9)
    content = with_shapes(shape("mask", [[0, 0], [2999, 2999]], mask=bomb))
    monkeypatch.setattr("dst_cbc.data.annotations.labelme.MOST_PIXELS", 8_999_999)
    file = write_json(tmp_path / "a.json", content)
    tracemalloc.start()
    found = read(FORMAT, [file])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "a mask of 3000 x 3000 pixels of mode L, expected at most 8,999,999" in found.problems[0]
    assert peak < 3_000_000


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "not readable as JSON"),
        (b"{", "not readable as JSON"),
        (b'{"shapes": "\xff"}', "byte 13 is not UTF-8 text"),
        (b"[" * 200_000, "not readable as JSON"),
        (b'{"shapes": [' + b"9" * 5000, "not readable as JSON"),
        (b"[]", "no list `shapes`"),
        (b'{"shapes": {}}', "no list `shapes`"),
    ],
)
def test_a_damaged_file_is_one_problem_beside_a_good_one(tmp_path, content, what):
    (file := tmp_path / "bad.json").write_bytes(content)
    found = read(FORMAT, [file, write_json(tmp_path / "good.json", FIELD)])
    assert len(found.images) == 1
    assert len(found.problems) == 1 and found.problems[0].startswith(f"{file}: {what}")


def test_a_polygon_of_a_million_points(tmp_path):
    text = json.dumps(with_shapes(shape("polygon", ["POINTS"])))
    points = ",".join(["[1.5,1.5],[9.5,1.5],[9.5,7.5],[1.5,7.5]"] * 250_000)
    (file := tmp_path / "a.json").write_text(text.replace('"POINTS"', points))
    found = read(FORMAT, [file])
    assert len(found.images[0].shapes[0].polygons[0][0]) == 1_000_000


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff\xfe\x00", b'{"images": [], "annotations": [], "categories": []}', b"[]", b"PK"],
)
def test_other_files_are_not_recognised(content):
    assert not FORMAT.recognises(Path("a.json"), content)


def test_a_file_whose_image_stands_before_its_shapes_is_recognised():
    assert FORMAT.recognises(Path("a.json"), b'{"flags": {}, "imageData": "' + b"A" * 60_000)
    assert FORMAT.recognises(Path("a.json"), b'{"version": "5", "flags": {}, "shapes": [{"points"')


@settings(max_examples=150)
@given(content=damaged(FIELD))
def test_whatever_is_damaged_read_returns(tmp_path_factory, content):
    read(FORMAT, [write_json(tmp_path_factory.mktemp("labelme") / "a.json", content)])


@settings(max_examples=100)
@given(at=st.integers(0, 2000), new=st.binary(max_size=8))
def test_whatever_bytes_a_mask_has_read_returns(tmp_path_factory, at, new):
    content = bytearray(base64.b64decode(png(RING)))
    content[at % len(content) : at % len(content) + len(new)] = new
    mask = shape("mask", [[1, 1], [3, 3]], mask=base64.b64encode(bytes(content)).decode())
    read(FORMAT, [write_json(tmp_path_factory.mktemp("mask") / "a.json", with_shapes(mask))])
