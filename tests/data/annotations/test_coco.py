"""COCO JSON is read as the format's own library reads it; what is wrong in a file is listed."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from annotation_checks import corners, damaged, read, rows, write_json
from hypothesis import HealthCheck, given, settings

from dst_cbc.data.annotations.coco import FORMAT, decoded

# 4 x 5 pixels by columns: a square of 3 x 3 whose middle pixel is a hole.
SQUARE = {"size": [4, 5], "counts": [5, 3, 1, 1, 1, 1, 1, 3, 4]}
COCO = {
    "info": {"description": "three shapes"},
    "images": [
        {"id": 1, "file_name": "a.png", "width": 5, "height": 4},
        {"id": 2, "file_name": "empty.png", "width": 5, "height": 4},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 7,
            "segmentation": [[0, 0, 2, 0, 2, 3], [3, 1, 9, 1, 9, 2, 3, 2, 3, 1]],
            "iscrowd": 0,
        },
        {"id": 2, "image_id": 1, "category_id": 3, "segmentation": SQUARE, "iscrowd": 0},
        {"id": 3, "image_id": 1, "category_id": 3, "segmentation": SQUARE, "iscrowd": 1},
    ],
    "categories": [
        {"id": 7, "name": "cell", "color": [255, 0, 16]},
        {"id": 3, "name": "dirt", "supercategory": "thing"},
    ],
}


def changed(*path, to):
    """A copy of COCO with another value at the place."""
    content = json.loads(json.dumps(COCO))
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return content


def test_polygons_masks_and_crowds(tmp_path):
    result = read(FORMAT, [write_json(tmp_path / "c.json", COCO)])
    assert not result.problems
    assert result.notices == ["1 crowds (`iscrowd`: 1) have no class: their pixels are ignored"]
    assert list(result.classes.items()) == [("cell", "#ff0010"), ("dirt", None)]
    image, empty = result.images
    assert (image.image, image.size, image.relative) == ("a.png", (5, 4), False)
    assert (empty.image, empty.shapes) == ("empty.png", [])
    two, hole, crowd = image.shapes
    assert two.label == "cell" and not two.ignored
    # Each ring is an area of its own, so that two that overlap are united.
    assert [corners(polygon) for polygon in two.polygons] == [
        [[[0, 0], [2, 0], [2, 3]]],
        [[[3, 1], [9, 1], [9, 2], [3, 2]]],
    ]
    assert (hole.label, hole.ignored, crowd.ignored) == ("dirt", False, True)
    assert rows(hole.mask.pixels()) == ["00000", "01110", "01010", "01110"]


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [  # of pycocotools 2.0.10
        ("031O0O0140LO", (4, 5), ["11001", "11101", "10100", "01001"]),
        ("0<", (3, 4), ["1111"] * 3),
        ("6", (2, 3), ["000"] * 2),
    ],
)
def test_compressed_run_lengths_of_pycocotools(tmp_path, text, size, expected):
    content = changed("annotations", 1, "segmentation", to={"size": [*size], "counts": text})
    content["images"][0] |= {"height": size[0], "width": size[1]}
    del content["annotations"][2]
    shape = read(FORMAT, [write_json(tmp_path / "c.json", content)]).images[0].shapes[1]
    assert rows(shape.mask.pixels()) == expected


def test_long_and_negative_numbers_of_compressed_run_lengths():
    assert decoded("f01k20VM020T30QO0jM").tolist() == [
        22, 1, 91, 1, 1, 1, 3, 1, 103, 1, 72, 1, 2,
    ]  # fmt: skip


def test_a_file_of_datumaro_whose_masks_are_all_marked_as_crowds(tmp_path):
    # Its exporter writes `"iscrowd": int(mask is not None)`, and CVAT uses it.
    result = read(FORMAT, [Path(__file__).parent / "files/datumaro_coco.json"])
    assert (result.problems, result.notices) == ([], [])
    (image,) = result.images
    assert (image.image, image.size) == ("sub/a.jpg", (6, 4))
    polygon, mask = image.shapes
    assert corners(polygon.polygons[0]) == [[[1, 1], [5, 1], [5, 3.5]]]
    assert (mask.label, mask.ignored) == ("dirt", False)
    assert rows(mask.mask.pixels()) == ["000000", "011100", "010100", "011100"]


def test_ids_may_be_text(tmp_path):
    content = json.loads(json.dumps(COCO))
    for one in content["annotations"]:
        one |= {"image_id": str(one["image_id"]), "category_id": float(one["category_id"])}
    result = read(FORMAT, [write_json(tmp_path / "c.json", content)])
    assert not result.problems and len(result.images[0].shapes) == 3


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ([0, 255, 16], "#00ff10"),
        ("#00FF10", "#00ff10"),
        ("green", None),
        ([0, 256, 0], None),
        ([1, 2], None),
    ],
)
def test_colours(tmp_path, colour, expected):
    file = write_json(tmp_path / "c.json", changed("categories", 0, "color", to=colour))
    assert read(FORMAT, [file]).classes["cell"] == expected


def roboflow(tmp_path, *folders, name="a.png"):
    content = changed("images", 0, "file_name", to=name)
    del content["images"][1]
    content["categories"][1]["supercategory"] = "Cells"
    content["categories"].insert(0, {"id": 0, "name": "Cells", "supercategory": "none"})
    return [write_json(tmp_path / folder / "_annotations.coco.json", content) for folder in folders]


def test_folders_tell_images_of_several_files_apart(tmp_path):
    result = read(FORMAT, roboflow(tmp_path, "train", "valid"))
    assert not result.problems
    assert [image.image for image in result.images] == ["train/a.png", "valid/a.png"]


def test_one_file_keeps_the_names_that_it_gives(tmp_path):
    result = read(FORMAT, roboflow(tmp_path, "train"))
    assert [image.image for image in result.images] == ["a.png"]


def test_the_group_of_all_categories_is_no_class(tmp_path):
    assert list(read(FORMAT, roboflow(tmp_path, "train")).classes) == ["cell", "dirt"]


def test_two_files_for_one_image(tmp_path):
    files = [write_json(tmp_path / name, COCO) for name in ("one.json", "two.json")]
    result = read(FORMAT, files)
    assert len(result.images) == 2
    assert result.problems[0] == (
        f"{files[1]}: describes the image 'a.png', which {files[0]} describes, too; keep one of "
        "the two"
    )


def test_boxes_are_no_areas_and_make_one_line(tmp_path):
    content = json.loads(json.dumps(COCO))
    for one in content["annotations"]:
        one["segmentation"], one["bbox"] = [], [0, 0, 2, 2]
    content["annotations"] *= 2
    file = write_json(tmp_path / "c.json", content)
    (problem,) = read(FORMAT, [file]).problems
    assert problem == (
        f"{file}: annotation 1 ('cell' in a.png), annotation 2 ('dirt' in a.png), annotation 3 "
        "('dirt' in a.png) and 3 more: a box without `segmentation`, which does not say which "
        "pixels are of the class; draw outlines or masks instead. Where boxes are areas, export "
        "another format, such as Label Studio's JSON or CVAT's XML; correct or delete it"
    )


def test_what_covers_no_area_is_counted(tmp_path):
    content = changed("annotations", 0, "segmentation", to=[[0, 0, 1, 1], [0, 0, 2, 0, 2, 3]])
    content["annotations"][1] |= {"segmentation": [], "keypoints": [1, 1, 2]}
    result = read(FORMAT, [write_json(tmp_path / "c.json", content)])
    assert not result.problems
    assert [len(shape.polygons) for shape in result.images[0].shapes] == [1, 0]
    assert result.notices[0] == (
        "left out: polygons with fewer than three points (1), annotations with key points (1), "
        "because they cover no area"
    )


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        (("annotations", 0, "image_id"), 9, "annotation 1: the image_id 9, which no image has"),
        (("annotations", 0, "category_id"), None, "annotation 1: the category_id None, which no"),
        (("annotations", 0, "segmentation"), [[0, 1, 2, 3, 4, 5, 6]], "an odd count of numbers"),
        (("annotations", 0, "segmentation"), [[0, 1, 2, 3, 4, float("nan")]], "the point (4, nan)"),
        (("annotations", 0, "segmentation"), [[0, 1, 2, 3, 4, 1e9]], "the point (4, 1e+09)"),
        (("annotations", 0, "segmentation"), [1, 2, 3, 4, 5, 6], "expected lists of numbers x, y"),
        (("annotations", 0, "segments_info"), [], "COCO's panoptic form"),
        (("annotations", 1, "segmentation", "size"), [5, 4], "expected [4, 5], the height and"),
        (("annotations", 1, "segmentation", "counts"), [5, 3], "run lengths of 8 pixels in all"),
        (("annotations", 1, "segmentation", "counts"), [[5], [3, 4]], "not whole numbers"),
        (("annotations", 1, "segmentation", "counts"), "0 <", "the text that pycocotools writes"),
        (("annotations", 1, "segmentation", "counts"), "", "the text that pycocotools writes"),
        (("annotations", 1, "segmentation", "counts"), "PP", "the text that pycocotools writes"),
        (("annotations", 1, "segmentation", "counts"), "0P", "the text that pycocotools writes"),
        (("annotations", 1, "segmentation", "counts"), "P" * 9 + "0", "more than 40 bits"),
        (("images", 1, "id"), 1, "image 2: the id 1, expected one for each image"),
        (("images", 1, "file_name"), "a.png", "describes the image 'a.png', which"),
        (("images", 1, "file_name"), "\ud800", "expected the name of its image"),
        (("images", 1, "width"), -5, "image 2: an image of -5 x 4 pixels, expected whole numbers"),
        (("categories", 1, "id"), 7, "category 2: the id 7, expected one for each category"),
        (("categories", 1, "name"), " ", "category 2: the name ' ', expected the name of a class"),
        (("images",), {}, "`images` is {}, expected a list"),
        (("annotations", 0), 5, "entry 1 of `annotations`: found 5, expected an object"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, path, to, message):
    file = write_json(tmp_path / "c.json", changed(*path, to=to))
    assert message in "\n".join(read(FORMAT, [file]).problems)


def test_everything_wrong_is_listed_at_once(tmp_path):
    content = changed("annotations", 0, "image_id", to=9)
    content["annotations"][1]["category_id"] = 9
    files = [write_json(tmp_path / "c.json", content), tmp_path / "d.json"]
    files[1].write_bytes(b"\xff{")
    problems = read(FORMAT, files).problems
    assert len(problems) == 3 and problems[2].startswith(f"{files[1]}: byte 1 is not UTF-8")


def test_of_many_different_problems_twenty_are_listed(tmp_path):
    content = json.loads(json.dumps(COCO))
    content["annotations"] = [{"image_id": number} for number in range(10, 40)]
    file = write_json(tmp_path / "c.json", content)
    problems = read(FORMAT, [file]).problems
    assert len(problems) == 21 and problems[20] == f"{file}: and 10 more problems"


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\x00\xff" * 99, b'{"images": 1'])
def test_a_file_that_is_no_json_is_one_problem(tmp_path, content):
    (tmp_path / "c.json").write_bytes(content)
    assert len(read(FORMAT, [tmp_path / "c.json"]).problems) == 1
    assert not FORMAT.recognises(tmp_path / "c.json", content)


def test_a_missing_file_is_a_problem(tmp_path):
    (problem,) = FORMAT.read([tmp_path / "c.json"]).problems
    assert str(tmp_path / "c.json") in problem


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=damaged(COCO))
def test_a_damaged_file_never_raises(tmp_path, content):
    read(FORMAT, [write_json(tmp_path / "c.json", content)])


def test_a_polygon_of_a_million_points(tmp_path):
    angles = np.linspace(0, 2 * np.pi, 1_000_000, endpoint=False)
    points = (np.stack([np.cos(angles), np.sin(angles)], 1) * 100 + 100).round(3)
    content = changed("annotations", 0, "segmentation", to=[points.ravel().tolist()])
    file = write_json(tmp_path / "c.json", content)
    shape = read(FORMAT, [file]).images[0].shapes[0]
    np.testing.assert_array_equal(shape.polygons[0][0], points)


def test_run_lengths_take_no_more_memory_than_their_text(tmp_path):
    content = changed("annotations", 1, "segmentation", to={"size": [20_000, 20_000]})
    content["annotations"][1]["segmentation"]["counts"] = [0, 400_000_000]
    content["images"][0] |= {"width": 20_000, "height": 20_000}
    del content["annotations"][2]
    file = write_json(tmp_path / "c.json", content)
    tracemalloc.start()
    assert not FORMAT.read([file]).problems
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_only_coco_is_recognised(tmp_path):
    def is_coco(content, name="c.json"):
        return FORMAT.recognises(tmp_path / name, json.dumps(content).encode())

    assert is_coco(COCO) and is_coco({"images": [], "annotations": [], "categories": []})
    assert is_coco({"images": COCO["images"]}) and is_coco(COCO, "C.JSON")
    assert FORMAT.recognises(tmp_path / "c.json", b"\xef\xbb\xbf" + json.dumps(COCO).encode())
    assert FORMAT.recognises(tmp_path / "c.json", json.dumps(COCO, indent=2).encode()[:150])
    assert not is_coco(COCO, "c.txt") and not is_coco([COCO])
    assert not is_coco({"version": "5.4", "shapes": [], "imagePath": "a.png"})
    assert not is_coco({"type": "FeatureCollection", "features": []})
    assert not is_coco({"categories": {"label": {}}, "items": [{"annotations": [{"id": 1}]}]})
