"""Annotation files in a folder: which of them count, and what becomes of the others."""

import json

import numpy as np
import pytest
from roifile import ImagejRoi

from dst_cbc.data.annotations.matching import matched
from dst_cbc.data.annotations.sources import read
from dst_cbc.runtime.errors import DataError

CORNERS = [[1, 1], [5, 1], [5, 5]]
LABELME = {"imagePath": "a.png", "shapes": [{"label": "cell", "points": CORNERS}]}
GEOMETRY = {"type": "Polygon", "coordinates": [CORNERS]}
QUPATH = {"type": "Feature", "geometry": GEOMETRY, "properties": {"classification": "cell"}}
COCO = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []}
FILES = {
    "a.json": json.dumps(LABELME).encode(),
    "a.geojson": json.dumps(QUPATH).encode(),
    "a.txt": b"0 0.1 0.1 0.5 0.1 0.5 0.5\n",
    "a.roi": ImagejRoi.frompoints(np.array(CORNERS)).tobytes(),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damaged", [b"", b"\x00\xff", b"0 nan 0 1 1"])
def test_a_file_with_the_name_of_an_image_must_be_readable(tmp_path, name, damaged):
    """An empty text file is no damage for YOLO: it says that its image has no objects."""
    suffix = name.removeprefix("a")
    if suffix == ".txt":
        (tmp_path / "data.yaml").write_text("names: [cell]\nnc: 1\n")
    for stem, content in (("a", FILES[name]), ("b", damaged), ("notes", damaged)):
        (tmp_path / f"{stem}{suffix}").write_bytes(content)
    found = read(tmp_path)[1]
    assert not found.problems
    by_id, problems, _ = matched(found, {"a": "a.png", "b": "b.png"}, False, tmp_path)
    assert by_id["a"].shapes
    if (suffix, damaged) == (".txt", b""):
        assert not problems and not by_id["b"].shapes
    else:
        (problem,) = problems
        assert problem.startswith(f"{tmp_path / 'b'}{suffix}: has the name of an image, but is")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"all\.json: no such file or folder of annotations"):
        read(tmp_path / "all.json")


def test_beside_one_file_for_all_images_others_may_have_names_of_images(tmp_path):
    (tmp_path / "all.json").write_text(json.dumps(COCO))
    (tmp_path / "b.json").write_text("{}")
    assert not matched(read(tmp_path)[1], {"a": "a.png", "b": "b.png"}, False, tmp_path)[1]
