"""Label Studio's JSON is read as its own converter reads it; what is wrong in it is listed."""

import base64
import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from annotation_checks import corners, damaged, read, rows, write_json
from hypothesis import HealthCheck, given, settings
from PIL import Image

from dst_cbc.data.annotations.label_studio import FORMAT, decoded

MASK = [0, 0, 0, 24, 57, 27, 252, 96, 22, 255, 231, 0, 0]
"""The runs that label_studio_sdk 2.1.2 writes for the mask 011/100."""


def region(kind, value, **more):
    value = {kind: ["cell"], **value}
    return {
        "id": "r",
        "type": kind,
        "value": value,
        "original_width": 3,
        "original_height": 2,
        "image_rotation": 0,
        "from_name": "label",
        "to_name": "image",
        **more,
    }


def task(*result, image="/data/upload/1/abcd1234-a%20b.png", **annotation):
    return {
        "id": 1,
        "annotations": [{"id": 5, "result": [*result], "was_cancelled": False, **annotation}],
        "file_upload": "abcd1234-a%20b.png",
        "predictions": [],
        "data": {"image": image},
        "project": 1,
    }


POLYGON = region("polygonlabels", {"points": [[0, 0], [100, 0], [100, 150]], "closed": True})
RECTANGLE = region("rectanglelabels", {"x": 0, "y": 50, "width": 50, "height": 50, "rotation": 0})
BRUSH = region("brushlabels", {"rle": MASK, "format": "rle", "brushlabels": ["dirt"]})
TASKS = [task(POLYGON, RECTANGLE, BRUSH), task(image="/data/upload/1/empty.png")]


def shapes(tmp_path, *result):
    found = read(FORMAT, [write_json(tmp_path / "t.json", [task(*result)])])
    assert not found.problems, found.problems
    return found.images[0].shapes


def problems(tmp_path, *tasks):
    file = write_json(tmp_path / "t.json", tasks)
    return [line.removeprefix(f"{file}: ") for line in read(FORMAT, [file]).problems]


def test_polygons_rectangles_and_brushes(tmp_path):
    result = read(FORMAT, [write_json(tmp_path / "t.json", TASKS)])
    assert (result.problems, result.notices) == ([], [])
    assert result.classes == {"cell": None, "dirt": None}
    image, empty = result.images
    assert (image.image, image.size, image.relative) == (
        "/data/upload/1/abcd1234-a b.png",
        (3, 2),
        False,
    )
    assert (empty.image, empty.shapes) == ("/data/upload/1/empty.png", [])
    polygon, rectangle, brush = image.shapes
    # 100 % are 3 pixels across and 2 down; the last corner is below the image.
    assert corners(polygon.polygons[0]) == [[[0, 0], [3, 0], [3, 3]]]
    assert corners(rectangle.polygons[0]) == [[[0, 1], [1.5, 1], [1.5, 2], [0, 2]]]
    assert brush.label == "dirt" and rows(brush.mask.pixels()) == ["011", "100"]


def test_a_file_as_label_studio_converts_it():
    # The corners and the mask are those of label_studio_sdk 2.1.2 (YOLO_OBB, BRUSH_TO_NUMPY).
    result = read(FORMAT, [Path(__file__).parent / "files/label_studio.json"])
    assert (result.problems, result.notices) == ([], [])
    polygon, rectangle, brush = result.images[0].shapes
    assert corners(polygon.polygons[0]) == [[[0, 0], [3, 0], [3, 3]]]
    assert corners(rectangle.polygons[0]) == [
        [[3, 1], [5.598076, 2.5], [4.598076, 4.232051], [2, 2.732051]]
    ]
    assert rows(brush.mask.pixels()) == ["000000", "011100", "010100", "011100"]


def test_a_rectangle_turns_clockwise_around_its_top_left_corner(tmp_path):
    value = {"x": 50, "y": 50, "width": 50, "height": 50, "rotation": 90}
    (shape,) = shapes(tmp_path, region("rectanglelabels", value))
    assert corners(shape.polygons[0]) == [[[1.5, 1], [1.5, 2.5], [0.5, 2.5], [0.5, 1]]]


def test_an_ellipse_turns_around_its_centre(tmp_path):
    value = {"x": 50, "y": 50, "radiusX": 50, "radiusY": 25, "rotation": 90}
    (shape,) = shapes(tmp_path, region("ellipselabels", value))
    ring = shape.polygons[0][0]
    np.testing.assert_allclose([ring.min(0), ring.max(0)], [[1, -0.5], [2, 2.5]], atol=1e-9)


def test_runs_of_the_editor_hold_single_values(tmp_path):
    # Opacity 255 and 255 in the first row, 7 in the second, as the edge of a brush has.
    rle = [
        0, 0, 0, 24, 57, 27, 250, 16, 0, 0, 0, 0, 255, 12, 9, 255, 255, 12, 9, 255, 255, 12, 9, 7,
        0, 152, 0,
    ]  # fmt: skip
    assert rows(decoded(rle, 3, 2).pixels()) == ["011", "100"]


def test_a_run_may_begin_and_end_inside_a_pixel():
    header = f"{8:032b}" + f"{7:05b}" + "0010" + "0011" + "0111" + "1111"
    two_equal = "1" + "00" + f"{2 - 1:03b}" + f"{0:08b}"
    six_others = "0" + "00" + f"{6 - 1:03b}" + "".join(f"{one:08b}" for one in (0, 255, 0, 0, 0, 0))
    bits = f"{header}{two_equal}{six_others}".ljust(128, "0")
    rle = [int(bits[place : place + 8], 2) for place in range(0, 128, 8)]
    assert rows(decoded(rle, 2, 1).pixels()) == ["10"]


def bitmask(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return region("bitmasklabels", {"imageDataURL": url})


def test_bitmasks_are_the_pixels_that_are_not_transparent(tmp_path):
    opacity = np.array([[0, 255, 255], [1, 0, 0]], np.uint8)
    rgba = np.stack([opacity * 0] * 3 + [opacity], -1)
    (shape,) = shapes(tmp_path, bitmask(Image.fromarray(rgba)))
    assert rows(shape.mask.pixels()) == ["011", "100"]


@pytest.mark.parametrize("url", ["", 5, "data:image/png;base64,AAAA", "data:image/png;base64,!"])
def test_damaged_bitmasks(tmp_path, url):
    (problem,) = problems(tmp_path, task(region("bitmasklabels", {"imageDataURL": url})))
    assert "region 1 (bitmasklabels): imageDataURL: not readable as PNG" in problem


def test_a_bitmask_of_another_size_is_not_decoded(tmp_path):
    large = bitmask(Image.new("1", (12_000, 12_000)))
    tracemalloc.start()
    (problem,) = problems(tmp_path, task(large))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "a bitmask of the size (12000, 12000), expected (3, 2)" in problem
    assert peak < 5_000_000


def test_a_mask_beside_its_labels(tmp_path):
    # Tags such as Rectangle and Labels write a region twice.
    value = {"x": 0, "y": 0, "width": 100, "height": 100}
    twice = [region("rectangle", value), region("labels", {**value, "labels": ["cell"]})]
    assert [shape.label for shape in shapes(tmp_path, *twice)] == ["cell"]
    without = region("rectangle", {**value, "rectangle": None})
    others = region("polygonlabels", {"points": POLYGON["value"]["points"]})
    assert problems(tmp_path, task({**without, "id": None}, {**others, "id": None})) == [
        "task 1, region 1 (rectangle): the labels None, expected one for each region; correct it "
        "in Label Studio"
    ]


def test_without_the_size_of_the_image_coordinates_are_shares(tmp_path):
    unsized = {"original_width": None, "original_height": None}
    found = read(FORMAT, [write_json(tmp_path / "t.json", [task({**POLYGON, **unsized})])])
    (image,) = found.images
    assert image.relative and corners(image.shapes[0].polygons[0]) == [[[0, 0], [1, 0], [1, 1.5]]]
    assert "a mask without original_width" in problems(tmp_path, task({**BRUSH, **unsized}))[0]
    turned = {**RECTANGLE, **unsized, "value": {**RECTANGLE["value"], "rotation": 5}}
    assert "a turned region without original_width" in problems(tmp_path, task(turned))[0]


def test_points_and_lines_are_counted(tmp_path):
    key = region("keypointlabels", {"x": 1, "y": 1, "width": 1})
    choice = {"type": "choices", "value": {"choices": ["good"]}, "from_name": "c", "to_name": "i"}
    found = read(FORMAT, [write_json(tmp_path / "t.json", [task(key, choice, POLYGON)])])
    assert not found.problems and len(found.images[0].shapes) == 1
    assert found.notices == ["left out: points and lines (1), because they cover no area"]


def test_of_several_annotations_the_newest_counts(tmp_path):
    several = task(POLYGON, created_at="2024-03-01T00:00:00Z")
    several["annotations"] += [
        {
            "result": [RECTANGLE, BRUSH],
            "created_at": "2024-02-01T00:00:00Z",
            "updated_at": "2024-03-05T00:00:00Z",
        },
        {"result": [], "created_at": "2024-03-09T00:00:00Z", "was_cancelled": True},
        {"result": [POLYGON, POLYGON, POLYGON], "created_at": "2024-03-04T00:00:00Z"},
    ]
    file = write_json(tmp_path / "t.json", [several])
    found = read(FORMAT, [file])
    assert not found.problems and len(found.images[0].shapes) == 2
    assert found.notices[0].startswith("1 tasks have several annotations; the new")
    several["annotations"][0]["ground_truth"] = True
    write_json(file, [several])
    assert len(read(FORMAT, [file]).images[0].shapes) == 1


def test_of_annotations_without_dates_the_last_counts(tmp_path):
    one = task(POLYGON)
    one["annotations"] += [{"result": [RECTANGLE, BRUSH]}]
    assert len(read(FORMAT, [write_json(tmp_path / "t.json", [one])]).images[0].shapes) == 2


def test_tasks_that_nobody_labeled_are_left_out(tmp_path):
    new, cancelled = task(), task(was_cancelled=True)
    new["annotations"], new["predictions"] = [], [{"result": [POLYGON]}]
    found = read(FORMAT, [write_json(tmp_path / "t.json", [new, cancelled])])
    assert (found.images, found.problems) == ([], [])
    assert found.notices == ["2 tasks have no annotation, so their images are unlabeled"]


def test_completions_of_old_versions(tmp_path):
    old = task(POLYGON)
    old["completions"] = old.pop("annotations")
    found = read(FORMAT, [write_json(tmp_path / "t.json", [old])])
    assert not found.problems and len(found.images[0].shapes) == 1


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/data/upload/1/abcd1234-a%20b.png", "/data/upload/1/abcd1234-a b.png"),
        ("/data/local-files/?d=set%20one/a.png", "set one/a.png"),
        ("https://example.com/b/a%2B.png?token=1", "/b/a+.png"),
        ("s3://bucket/b/a%20.png", "s3://bucket/b/a%20.png"),
        ("b/100% a?.png", "b/100% a?.png"),
        ("http://[bad/a.png", "http://[bad/a.png"),
        ("/data/local-files/?d=../../etc/passwd", "../../etc/passwd"),
    ],
)
def test_the_image_is_named_without_what_an_address_adds(tmp_path, address, name):
    found = read(FORMAT, [write_json(tmp_path / "t.json", [task(image=address)])])
    assert [image.image for image in found.images] == [name]


def test_the_image_may_have_any_key_of_the_data(tmp_path):
    one = task()
    one["data"] = {"patient": "17", "scan": "/data/upload/1/a.PNG", "age": 30}
    found = read(FORMAT, [write_json(tmp_path / "t.json", [one])])
    assert [image.image for image in found.images] == ["/data/upload/1/a.PNG"]
    one["data"]["second"] = "/data/upload/1/b.png"
    assert "expected the path or address of one image" in problems(tmp_path, one)[0]
    one["data"] = {"image": "data:image/png;base64,AAAA"}
    assert "expected the path or address of one image" in problems(tmp_path, one)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 5}, "the value 5, expected an object"),
        ({"value": {"polygonlabels": []}}, "the labels [], expected one for each region"),
        ({"value": {"polygonlabels": ["a", "b"]}}, "the labels ['a', 'b'], expected one"),
        ({"value": {"polygonlabels": ["a"]}}, "x is None, expected a number"),
        (
            {"value": {"polygonlabels": ["a"], "points": 3}},
            "the points 3, expected a list of pairs",
        ),
        ({"value": {"polygonlabels": ["a"], "points": [[0, 0], [1, 1]]}}, "2 points, expected at"),
        ({"value": {"polygonlabels": ["a"], "points": [[0, 0], [1, 1], [0, "x"]]}}, "not pairs of"),
        ({"value": {"polygonlabels": ["a"], "x": float("nan")}}, "x is nan, expected a number"),
        ({"image_rotation": 90}, "the image is turned by 90 degrees; turn it back"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, change, message):
    (problem,) = problems(tmp_path, task(RECTANGLE, {**POLYGON, **change}))
    assert problem.startswith("task 1, region 2 (") and message in problem
    assert problem.endswith("; correct it in Label Studio")


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (MASK[:-3], "damaged or cut"),
        ([], "damaged or cut"),
        (["x"], "damaged or cut"),
        ([256] * 20, "damaged or cut"),
        (None, "damaged or cut"),
        ([255, 255, 255, 255, *MASK[4:]], "a brush of 4294967295 values, expected 4 x 3 x 2"),
        ([0, 0, 0, 24, 57, 27, 255, 255, 255, 255, 255], "runs do not add up"),
    ],
)
def test_damaged_brushes(tmp_path, rle, message):
    value = {**BRUSH["value"], "rle": rle}
    assert message in problems(tmp_path, task({**BRUSH, "value": value}))[0]


def test_the_same_image_in_two_tasks(tmp_path):
    assert problems(tmp_path, task(POLYGON), task(RECTANGLE)) == [
        f"describes the image '/data/upload/1/abcd1234-a b.png', which {tmp_path / 't.json'} "
        "describes, too; keep one of the two"
    ]


def test_regions_on_images_of_several_sizes(tmp_path):
    (problem,) = problems(tmp_path, task(POLYGON, {**RECTANGLE, "original_width": 9}))
    assert problem.startswith("task 1: regions on images of several sizes")


@pytest.mark.parametrize("width", [0, -3, 1.5, "3", 10**400])
def test_an_image_of_no_possible_size(tmp_path, width):
    (problem,) = problems(tmp_path, task({**POLYGON, "original_width": width}))
    assert problem.startswith("task 1: an image of ") and "whole numbers of 1 or more" in problem


def test_json_min_is_refused_with_advice(tmp_path):
    short = [
        {
            "image": "/data/upload/1/a.png",
            "id": 1,
            "label": [{"points": [[0, 0], [1, 0], [1, 1]], "polygonlabels": ["cell"]}],
            "annotator": 1,
            "annotation_id": 1,
        }
    ]
    assert problems(tmp_path, *short) == [
        "no `data`: this is JSON-MIN or another short form; export the project as JSON"
    ]
    assert FORMAT.recognises(tmp_path / "t.json", json.dumps(short).encode())


@pytest.mark.parametrize("content", [b"", b"[", b"[" * 100_000, b"\x00\xff" * 99, b'[{"data": 1'])
def test_a_file_that_is_no_json_is_one_problem(tmp_path, content):
    (tmp_path / "t.json").write_bytes(content)
    assert len(read(FORMAT, [tmp_path / "t.json"]).problems) == 1
    assert not FORMAT.recognises(tmp_path / "t.json", content)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=damaged(TASKS))
def test_a_damaged_file_never_raises(tmp_path, content):
    read(FORMAT, [write_json(tmp_path / "t.json", content)])


def test_only_label_studio_is_recognised(tmp_path):
    def is_ours(content, name="t.json"):
        return FORMAT.recognises(tmp_path / name, json.dumps(content).encode())

    assert is_ours(TASKS) and is_ours([{"id": 1, "data": {"image": "a"}}])
    start = json.dumps([task(region("brushlabels", {"rle": [0] * 99_999}))]).encode()[:65536]
    assert FORMAT.recognises(tmp_path / "t.json", b"\xef\xbb\xbf" + start)
    assert not is_ours(TASKS, "t.txt") and not is_ours(TASKS[0])
    assert not is_ours([{"image": "a.jpg", "annotations": [{"label": "x", "coordinates": {}}]}])
    assert not is_ours([{"image_id": 1, "category_id": 2, "segmentation": []}])
