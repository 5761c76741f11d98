"""YOLO's segmentation labels are read with the names of their classes; what is wrong is listed."""

from pathlib import Path

import numpy as np
import pytest
from annotation_checks import corners, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dst_cbc.data.annotations.shapes import PEEK
from dst_cbc.data.annotations.yolo import FORMAT

LABELS = "1 0 0 0.5 0 0.5 0.25\n\n0 0.25 0.5 1.5 0.5 1.5 1 0.25 1 0.25 0.5\r\n"
NAMES = "train: ../train/images\nnc: 2\nnames: [cell, dirt]\n"


def write(folder: Path, files: dict[str, str]) -> list[Path]:
    """Write files, the content of each by its path below the folder, and return their paths."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode())
    return [folder / name for name in files]


def problems(folder, labels=LABELS, names=NAMES):
    """What is wrong with one label file and the names beside it."""
    write(folder, {"data.yaml": names})
    (file,) = write(folder, {"a.txt": labels})
    return [line.removeprefix(f"{file}: ") for line in FORMAT.read([file]).problems]


def test_lines_are_objects_with_the_names_of_their_classes(tmp_path):
    files = write(tmp_path, {"labels/a.txt": LABELS, "labels/empty.txt": "", "data.yaml": NAMES})
    result = read(FORMAT, files)
    assert (result.problems, result.notices) == ([], [])
    assert list(result.classes.items()) == [("cell", None), ("dirt", None)]
    image, empty = result.images
    assert (image.image, image.size, image.relative) == ("images/a", None, True)
    assert (empty.image, empty.shapes) == ("images/empty", [])
    assert [shape.label for shape in image.shapes] == ["dirt", "cell"]
    assert [corners(shape.polygons[0]) for shape in image.shapes] == [
        [[[0, 0], [0.5, 0], [0.5, 0.25]]],
        [[[0.25, 0.5], [1.5, 0.5], [1.5, 1], [0.25, 1]]],
    ]


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("labels/train", "labels/val"), ["images/train/a", "images/val/a"]),
        (("train/labels", "valid/labels"), ["set/train/images/a", "set/valid/images/a"]),
        (("labels/train",), ["train/a"]),
        (("labels",), ["images/a"]),
    ],
)
def test_an_image_is_named_by_the_path_of_its_labels(tmp_path, folders, names):
    labels = write(tmp_path / "set", {f"{folder}/a.txt": LABELS for folder in folders})
    write(tmp_path / "set", {"data.yaml": NAMES})
    assert [image.image for image in read(FORMAT, labels).images] == names


@pytest.mark.parametrize(
    "names",
    [
        {"data.yaml": "path: .\nnames:\n  0: cell\n  1: dirt\n"},
        {"dataset.yaml": "names: ['cell', 'dirt']"},
        {"train/data.yaml": NAMES},
        {"train/labels/classes.txt": "cell\r\ndirt\r\n\r\n"},
        {"classes.txt": "\ufeffcell\ndirt"},
        {"data.yaml": NAMES, "classes.txt": "other\nwrong"},
        {"data.yaml": "names: [wrong, other]", "train/data.yaml": NAMES},
    ],
)
def test_where_the_names_of_the_classes_stand(tmp_path, names):
    write(tmp_path, names)
    result = read(FORMAT, write(tmp_path, {"train/labels/a.txt": LABELS}))
    assert not result.problems and list(result.classes) == ["cell", "dirt"]


def test_a_file_with_names_may_have_any_name(tmp_path):
    result = read(FORMAT, write(tmp_path, {"labels/a.txt": LABELS, "fields.yaml": NAMES}))
    assert not result.problems and list(result.classes) == ["cell", "dirt"]


def test_two_files_with_names_in_one_folder(tmp_path):
    files = write(tmp_path, {"a.txt": LABELS, "fields.yaml": NAMES, "data.yaml": NAMES})
    assert read(FORMAT, files).problems == [
        f"{files[2]}: {files[1]} names classes, too; keep one of them there"
    ]


def test_names_stand_at_most_four_folders_above(tmp_path):
    (file,) = write(tmp_path, {"above/labels/train/one/two/a.txt": LABELS})
    write(tmp_path, {"above/data.yaml": NAMES})
    assert not read(FORMAT, [file]).problems
    (tmp_path / "above/data.yaml").rename(tmp_path / "data.yaml")
    assert FORMAT.read([file]).problems == [
        f"{file.parent}: no data.yaml, dataset.yaml, classes.txt there or up to four folders "
        "above; copy there the file that names the classes"
    ]


def test_names_without_labels(tmp_path):
    (file,) = write(tmp_path, {"data.yaml": NAMES})
    assert FORMAT.read([file]).problems == [
        f"{file}: no labels are given; give the folder that holds them, too"
    ]


def test_boxes_are_no_areas_and_make_one_line(tmp_path):
    assert problems(tmp_path, "0 0.5 0.5 0.25 0.25\n" * 9) == [
        "lines of 5 numbers are boxes, which do not say which pixels are of the class; draw "
        "outlines, or export for segmentation instead of detection"
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0 0 1 0 1 1", "line 2: the class 2, which "),
        ("-1 0 0 1 0 1 1", "line 2: the class -1, which "),
        ("0 0 0 1 0 1 1 1", "line 2: 7 coordinates, expected an even count: x y x y …"),
        ("0 0 0", "line 2: 1 points, expected at least 3"),
        ("0", "line 2: 0 points, expected at least 3"),
        ("0 0 0 1 0 1 x", "line 2: found '0 0 0 1 0 1 x', expected the number of a class and x"),
        ("0.5 0 0 1 0 1 1", "line 2: found '0.5 0 0 1 0 1 1', expected the number of a class"),
        ("0 0 0 1 0 1 nan", "line 2: the coordinate nan, expected shares of the image's width and"),
        ("0 0 0 640 0 1 1", "line 2: the coordinate 640, expected shares of the image's width and"),
        ("0 0 0 1e999 0 1 1", "line 2: the coordinate inf, expected shares of"),
        (f"{'9' * 5000} 0 0 1 0 1 1", "expected the number of a class"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, line, message):
    (problem,) = problems(tmp_path, f"0 0 0 1 0 1 1\n{line}\n0 0 0 1 0 1 1\n")
    assert message in problem


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("names: 5", "`names` is 5, expected a list, or number: name"),
        ("nc: 2", "`names` is None, expected a list, or number: name"),
        ("names: {a: cell}", "`names` is {'a': 'cell'}, expected a list, or number: name"),
        ("names: [yes, cell]", "the name True of class 0, expected text, in quotes"),
        ("names: [cell, dirt]\nkpt_shape: [17, 3]", "its labels are boxes and key points"),
        ("names: [cell, ", "not valid YAML"),
        ("names: !!python/object:os.system []", "not valid YAML"),
        ("names: &a [*a, *a]", "found more than"),
        ("[]", "found a list"),
    ],
)
def test_what_is_wrong_with_the_names(tmp_path, names, message):
    found = problems(tmp_path, "0 0 0 1 0 1 1", names)
    assert any(line.startswith(f"{tmp_path / 'data.yaml'}: ") for line in found)
    assert message in "\n".join(found)


def test_files_that_are_no_text_are_listed_at_once(tmp_path):
    files = write(tmp_path, {"a.txt": LABELS, "b.txt": "", "c.txt": "0 1\n", "data.yaml": NAMES})
    files[1].write_bytes(b"\xff\xfe" * 9)
    files[2].unlink()
    result = FORMAT.read(files)
    assert len(result.problems) == 2 and len(result.images) == 3
    assert result.problems[0].startswith(f"{files[1]}: byte 1 is not UTF-8 text")
    assert str(files[2]) in result.problems[1]


def test_labels_beside_and_apart_from_an_image(tmp_path):
    files = write(tmp_path, {"images/a.txt": LABELS, "labels/a.txt": LABELS, "data.yaml": NAMES})
    (problem,) = read(FORMAT, files).problems
    assert problem.startswith(f"{files[1]}: describes the image 'test_labels")


def test_a_polygon_of_many_points(tmp_path):
    points = np.random.default_rng(1).random((200_000, 2)).round(6)
    write(tmp_path, {"data.yaml": NAMES})
    (file,) = write(tmp_path, {"a.txt": "0 " + " ".join(map(str, points.ravel().tolist()))})
    (shape,) = read(FORMAT, [file]).images[0].shapes
    np.testing.assert_array_equal(shape.polygons[0][0], points)


LINE = st.lists(
    st.one_of(
        st.sampled_from(["0", "1", "0.5", "-1", "nan", "1e9", "x", "\x00", "\x85", "٣", "1_0"])
    ),
    max_size=9,
).map(" ".join)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.lists(LINE, max_size=4).map("\n".join), names=st.sampled_from([NAMES, "", "names: 1"])
)
def test_damaged_files_never_raise(tmp_path, labels, names):
    read(FORMAT, write(tmp_path, {"a.txt": labels, "data.yaml": names}))


def recognised(path: Path, content: bytes) -> bool:
    return FORMAT.recognises(path, content[:PEEK])


def test_only_labels_and_their_names_are_recognised(tmp_path):
    a, names = tmp_path / "labels/a.txt", tmp_path / "data.yaml"
    assert recognised(a, LABELS.encode()) and recognised(a, b"\xef\xbb\xbf\n0 1 0 1 0 1 0\n")
    assert recognised(a, b"0 0.5 0.5 0.1 0.1") and recognised(names, NAMES.encode())
    assert recognised(a, ("0 " + "0.123456 " * 99_999).encode())
    # So that the message says what is wrong with its first number.
    assert recognised(a, b"0.0 1 0 1 0 1 0") and recognised(a, b"-1 1 0 1 0 1 0")
    assert not recognised(a, b"Read me") and not recognised(a, b"images/train/a.jpg\n")
    assert not recognised(a, b"0 cell\n1 dirt") and not recognised(a, b"\x00\xff" * 99)
    assert not recognised(a.with_name("classes.txt"), b"0 1 2 3 4 5 6")
    assert not recognised(a.with_suffix(".csv"), LABELS.encode())
    assert not recognised(names, b"images: ../x\nlabels: ../y\nnames_of: 1")


def test_an_empty_file_is_of_labels_beside_names(tmp_path):
    (empty,) = write(tmp_path, {"labels/train/a.txt": ""})
    assert not recognised(empty, b"")
    write(tmp_path, {"data.yaml": NAMES})
    assert recognised(empty, b"") and recognised(empty, b" \n")
