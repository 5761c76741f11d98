"""`objects.csv`: the connected pixels of each class, measured in the masks as they are."""

import tracemalloc
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from skimage.measure import label, regionprops

from dst_cbc.inference import objects
from dst_cbc.inference.folders import Outputs
from dst_cbc.inference.objects import classes_of_objects, measure, write_objects
from dst_cbc.runtime import signals
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.tables import read_csv, stream_csv

MASK = np.array(
    [
        [1, 1, 0, 0, 2],
        [0, 0, 1, 0, 2],
        [0, 0, 0, 0, 0],
        [1, 0, 2, 2, 0],
    ],
    np.uint8,
)
CLASSES = {1: "cell", 2: "=fibre"}
# class, area, x, y, left, top, width, height
FOUND = [
    ("cell", 3, 1.0, 0.33, 0, 0, 3, 2),  # two pixels touch at a corner
    ("=fibre", 2, 4.0, 0.5, 4, 0, 1, 2),
    ("cell", 1, 0.0, 3.0, 0, 3, 1, 1),
    ("=fibre", 2, 2.5, 3.0, 2, 3, 2, 1),
]
MEASURED = ["class", "area_px", "x", "y", "left", "top", "width", "height"]


def cells(rows, *columns):
    return [tuple(row[column] for column in columns or MEASURED) for row in rows]


def test_objects_touch_also_at_corners_and_are_listed_from_top_to_bottom():
    assert cells(measure(MASK, CLASSES)) == FOUND
    assert cells(measure(MASK, {2: "=fibre"})) == [FOUND[1], FOUND[3]]
    assert cells(measure(MASK, CLASSES, least=2)) == [FOUND[0], FOUND[1], FOUND[3]]
    assert measure(np.zeros((3, 4), np.uint8), CLASSES) == []
    assert cells(measure(np.ones((3, 4), np.uint8), CLASSES)) == [("cell", 12, 1.5, 1, 0, 0, 4, 3)]


def test_the_confidence_of_an_object_is_the_mean_of_its_pixels():
    confidence = np.zeros(MASK.shape, np.uint8)
    confidence[0, :2], confidence[1, 2], confidence[3, 0] = 255, 102, 51
    found = measure(MASK, CLASSES, 1, confidence)
    assert cells(found, "confidence") == [(0.8,), (0.0,), (0.2,), (0.0,)]
    assert cells(measure(MASK, CLASSES), "confidence") == [(None,)] * 4


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)),
    st.integers(0, 255),
)
def test_objects_are_those_of_another_library(mask, seed):
    confidence = np.random.default_rng(seed).integers(0, 256, mask.shape, np.uint8)
    expected = []
    for number, name in CLASSES.items():
        for one in regionprops(label(mask == number, connectivity=2), confidence):
            (y, x), (top, left, bottom, right) = one.centroid, one.bbox
            place = (x, y, left, top, right - left, bottom - top, one.intensity_mean / 255)
            expected.append((name, one.area, *np.round(place, 3)))
    with patch.object(objects, "_STRIPE", 8):  # so small images have several stripes
        found = measure(mask, CLASSES, 1, confidence)
    found = sorted(cells(found, *MEASURED, "confidence"))
    assert [one[:2] for one in found] == [one[:2] for one in sorted(expected)]
    values = [np.array([one[2:] for one in sorted(rows)]) for rows in (found, expected)]
    np.testing.assert_allclose(*values, atol=0.006)


def test_each_class_but_the_background_is_of_objects_unless_some_are_named():
    names = ["sky", "Background", "cell"]
    assert classes_of_objects(names, []) == {0: "sky", 2: "cell"}
    assert classes_of_objects(names, ["cell", "Background"]) == {1: "Background", 2: "cell"}
    with pytest.raises(DataError, match="no class 'celll'; its classes are sky, Background, cell"):
        classes_of_objects(names, ["celll"])


@pytest.fixture
def segmented(tmp_path):
    """A pass of two images, one of which says its pixel size; returns images and outputs."""
    (tmp_path / "images/b").mkdir(parents=True)
    outputs = Outputs(tmp_path / "out", confidence=False, overlay=False)
    images = {"-a": tmp_path / "images/-a.tif", "b/c": tmp_path / "images/b/c.png"}
    size = {"resolution": (20_000, 10_000), "resolutionunit": "CENTIMETER"}  # 0.5 x 1 micrometres
    tifffile.imwrite(images["-a"], MASK, photometric="minisblack", **size)
    Image.fromarray(MASK).save(images["b/c"])
    for id in images:
        outputs.mask(id).parent.mkdir(parents=True)
        Image.fromarray(MASK).save(outputs.mask(id))
    return images, outputs


def table(outputs):
    return read_csv(outputs.folder / "objects.csv", objects.COLUMNS)


def test_one_table_has_the_objects_of_all_images_and_areas_where_the_pixel_size_is_known(segmented):
    images, outputs = segmented
    assert not write_objects(images, outputs, CLASSES, 1)
    rows = table(outputs)
    assert cells(rows, "image", "object") == [
        (image, str(number)) for image in ("-a.tif", "b/c.png") for number in (1, 2, 3, 4)
    ]
    expected = [tuple(map(str, one)) for one in FOUND]
    assert cells(rows) == 2 * expected
    micrometres = ("area_um2", "pixel_width_um", "pixel_height_um", "confidence")
    assert cells(rows, *micrometres) == [
        *[(area, "0.5", "1.0", "") for area in ("1.5", "1.0", "0.5", "1.0")], *[("",) * 4] * 4,
    ]  # fmt: skip
    # A spreadsheet must not run a name as a formula.
    first = (outputs.folder / "objects.csv").read_text().splitlines()[2]
    assert first.startswith("'-a.tif,2,'=fibre,2,")


def test_a_mask_that_was_corrected_counts_as_it_is_now(segmented):
    images, outputs = segmented
    write_objects(images, outputs, CLASSES, 1)
    drawn = np.where(MASK == 1, 0, MASK).astype(np.uint16)
    Image.fromarray(drawn).save(outputs.mask("-a"))
    assert not write_objects(images, outputs, CLASSES, 2)
    assert cells(table(outputs), "image", "class") == [
        *[("-a.tif", "=fibre")] * 2, ("b/c.png", "cell"), *[("b/c.png", "=fibre")] * 2,
    ]  # fmt: skip


def test_a_mask_that_cannot_be_measured_is_named_and_the_others_are(segmented):
    images, outputs = segmented
    for drawn, said in (
        (MASK[:3], r"-a\.png: size \(5, 3\), but its image has \(5, 4\); correct it"),
        (MASK[..., None] * np.uint8([1, 2, 3]), r"-a\.png: colours, expected class numbers"),
    ):
        Image.fromarray(drawn).save(outputs.mask("-a"))
        (problem,) = write_objects(images, outputs, CLASSES, 1).items()
        with pytest.raises(DataError, match=said):
            raise DataError(problem[1])
        assert problem[0] == "-a" and len(table(outputs)) == 4
    (outputs.mask("-a").parents[1] / "confidence/b").mkdir(parents=True)
    Image.fromarray(MASK.T).save(outputs.folder / "confidence/b/c.png")
    problems = write_objects({"b/c": images["b/c"]}, replace(outputs, confidence=True), CLASSES, 1)
    assert "confidence/b/c.png: size (4, 5)" in problems["b/c"]


def test_a_stopped_pass_leaves_the_table_of_before(segmented, monkeypatch):
    images, outputs = segmented
    write_objects(images, outputs, CLASSES, 1)
    before = (outputs.folder / "objects.csv").read_bytes()
    Image.fromarray(MASK * 0).save(outputs.mask("-a"))
    monkeypatch.setattr(signals, "_asked_by", None)
    measured = objects.measure

    def stop_after(*arguments):
        signals._asked_by = "SIGTERM"
        return measured(*arguments)

    monkeypatch.setattr(objects, "measure", stop_after)
    with pytest.raises(signals.Stopped, match=r"objects\.csv is not finished; run the same"):
        write_objects(images, outputs, CLASSES, 1)
    assert {path.name for path in outputs.folder.iterdir()} == {"masks", "objects.csv"}
    assert (outputs.folder / "objects.csv").read_bytes() == before


def test_a_table_of_many_objects_is_not_held_in_memory(tmp_path):
    rows = ({"image": "a.png", "object": number} for number in range(50_000))
    tracemalloc.start()
    stream_csv(tmp_path / "objects.csv", objects.COLUMNS, rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "objects.csv").stat().st_size > 1e6 > 4 * peak
    assert len(read_csv(tmp_path / "objects.csv", objects.COLUMNS)) == 50_000
