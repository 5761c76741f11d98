"""QuPath's GeoJSON becomes shapes, or a list of everything that is wrong."""

import json
from pathlib import Path

import pytest
from annotation_checks import corners, damaged, read, write_json
from hypothesis import given, settings

from dst_cbc.data.annotations.qupath import FORMAT


def square(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(geometry, classification=None, **properties):
    if classification is not None:
        properties["classification"] = classification
    return {
        "type": "Feature",
        "id": "5a8b0e5c-2f9f-4a8c-9c9e-0d1b2f3a4c5d",
        "geometry": geometry,
        "properties": {"objectType": "annotation", **properties},
    }


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


TUMOR = {"name": "Tumor", "color": [200, 0, 0]}
SLIDE = collection(
    # With a hole.
    feature(polygon(square(1, 1, 9, 7), square(2, 2, 5, 5)), TUMOR, isLocked=True),
    # Over the tumor, and over the border; named by one number, as QuPath 0.2 wrote colours.
    feature(polygon(square(8, 3, 14, 9)), {"name": "Stroma", "colorRGB": -6895466}),
    # Two parts.
    feature(
        {
            "type": "MultiPolygon",
            "coordinates": [[square(0, 0, 1, 1)], [square(3, 8, 4, 9), square(3.2, 8.2, 3.5, 8.5)]],
        },
        {"names": ["Tumor", "Positive"], "color": [250, 62, 62]},
    ),
)


def shapes_of(folder, *features):
    found = read(FORMAT, [write_json(folder / "a.geojson", collection(*features))])
    assert found.problems == []
    return found.images[0].shapes, found.notices


def test_a_polygon_with_a_hole_an_overlap_and_two_parts(tmp_path):
    file = write_json(tmp_path / "slide 3.geojson", SLIDE)
    assert FORMAT.recognises(file, file.read_bytes())
    found = read(FORMAT, [file])
    (image,) = found.images
    tumor, stroma, positive = image.shapes
    assert (image.image, image.size, found.problems, found.notices) == ("slide 3", None, [], [])
    assert found.classes == {
        "Tumor": "#c80000",
        "Stroma": "#96c896",
        "Tumor: Positive": "#fa3e3e",
    }
    assert [one.label for one in image.shapes] == list(found.classes)
    assert corners(tumor.polygons[0]) == [square(1, 1, 9, 7)[:4], square(2, 2, 5, 5)[:4]]
    assert corners(stroma.polygons[0]) == [square(8, 3, 14, 9)[:4]]
    assert [corners(rings) for rings in positive.polygons] == [
        [square(0, 0, 1, 1)[:4]],
        [square(3, 8, 4, 9)[:4], square(3.2, 8.2, 3.5, 8.5)[:4]],
    ]


def test_a_list_of_features_and_a_single_feature_are_read_too(tmp_path):
    files = [
        write_json(tmp_path / "list.json", SLIDE["features"]),
        write_json(tmp_path / "one.tif.geojson", SLIDE["features"][0]),
    ]
    assert all(FORMAT.recognises(file, file.read_bytes()) for file in files)
    found = read(FORMAT, files)
    assert [(one.image, len(one.shapes)) for one in found.images] == [("list", 3), ("one.tif", 1)]


def test_objects_without_a_class_or_an_area_are_counted_and_left_out(tmp_path):
    area = polygon(square(1, 1, 2, 2))
    cell = feature(area, TUMOR, objectType="cell")
    cell["nucleusGeometry"] = polygon(square(1.2, 1.2, 1.5, 1.5))
    shapes, notices = shapes_of(
        tmp_path,
        cell,
        feature(area, name="ROI 1"),
        feature({"type": "MultiPoint", "coordinates": [[1, 1], [2, 2]]}, TUMOR),
        feature({"type": "LineString", "coordinates": [[1, 1], [2, 2]]}, TUMOR),
        feature(area, objectType="tmaCore", isMissing=False),
        feature(None, objectType="root"),
        feature(area, {"name": "Region*", "color": [0, 0, 180]}),
    )
    assert [one.label for one in shapes] == ["Tumor"]
    assert corners(shapes[0].polygons[0]) == [square(1, 1, 2, 2)[:4]]
    assert notices == [
        "left out: nuclei (1), because their cells are drawn whole",
        "left out: objects (1), because they have no class",
        "left out: points (1), lines (1), because they cover no area",
        "left out: cores (1), because a core of a tissue microarray is no object of a class",
        "left out: objects (1), because Region* is a frame around what is labeled",
    ]


def test_the_class_ignore_has_no_class(tmp_path):
    file = write_json(
        tmp_path / "a.geojson",
        collection(feature(polygon(square(1, 1, 2, 2)), {"name": "Ignore*", "color": [1, 1, 1]})),
    )
    found = read(FORMAT, [file])
    assert found.images[0].shapes[0].ignored and found.classes == {}


def test_without_any_class_nothing_can_be_drawn(tmp_path):
    files = [
        write_json(tmp_path / name, collection(feature(polygon(square(1, 1, 2, 2)), name="cell")))
        for name in ("a.geojson", "b.geojson")
    ]
    assert read(FORMAT, files).problems == [
        f"{files[0]}: no object has a class; give the objects classes in QuPath, and export them "
        "again"
    ]
    labeled = write_json(tmp_path / "c.geojson", SLIDE)
    assert read(FORMAT, [*files, labeled]).problems == []


def test_an_image_without_objects_has_no_shapes(tmp_path):
    found = read(FORMAT, [write_json(tmp_path / "a.geojson", collection())])
    assert [(one.image, one.shapes) for one in found.images] == [("a", [])]
    assert found.problems == []


def test_objects_inside_of_objects_and_collections_of_geometries(tmp_path):
    child = feature(polygon(square(2, 2, 3, 3)), {"name": "Cell"})
    parent = feature(polygon(square(1, 1, 9, 9)), TUMOR, childObjects=[child])
    both = {
        "type": "GeometryCollection",
        "geometries": [polygon(square(4, 4, 5, 5)), {"type": "Point", "coordinates": [1, 1]}],
    }
    shapes, notices = shapes_of(tmp_path, parent, feature(both, TUMOR))
    assert [(one.label, len(one.polygons)) for one in shapes] == [
        ("Tumor", 1), ("Tumor", 1), ("Cell", 1)
    ]  # fmt: skip
    assert notices == ["left out: points (1), because they cover no area"]


NESTED = "a GeometryCollection without a list of other geometries"
WRONG = {
    "the geometry None, expected one of GeoJSON": None,
    "the geometry {'type': 3}, expected one of GeoJSON": {"type": 3},
    "the geometry 'Curve', expected a Polygon or a MultiPolygon": {"type": "Curve"},
    "the coordinates None, expected a list of rings of points": {"type": "Polygon"},
    "the coordinates [], expected a list of rings of points": polygon(),
    "the coordinates [3], expected a list of rings of points": polygon(3),
    "2 points, expected at least 3 and at most 5,000,000": polygon([[1, 1], [2, 2]]),
    "points that are not pairs of numbers": polygon([[1, 1], [2, "x"], [3, 3]]),
    "points of shape (3,), expected pairs of numbers": polygon([[1, 1, 0]] * 3),
    "the point (1e+09, 2), expected numbers of at most 1e+06": polygon([[1, 1], [1e9, 2], [3, 3]]),
    NESTED: {"type": "GeometryCollection"},
    "the plane {'c': -1, 't': 0, 'z': 4} of a stack, expected an image of one plane; write the "
    "plane to an image of its own, and export its objects there": {
        **polygon(square(1, 1, 2, 2)),
        "plane": {"c": -1, "z": 4, "t": 0},
    },
}


@pytest.mark.parametrize("wrong", WRONG)
def test_each_fault_of_an_object_is_named_with_its_place(tmp_path, wrong):
    features = [*SLIDE["features"], feature(WRONG[wrong], {"name": "Cell"})]
    file = write_json(tmp_path / "a.geojson", collection(*features))
    assert read(FORMAT, [file]).problems == [f"{file}: object 4 ('Cell'): {wrong}"]


def test_coordinates_on_the_earth_are_refused(tmp_path):
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    file = write_json(tmp_path / "a.geojson", {**SLIDE, "crs": crs})
    assert read(FORMAT, [file]).problems == [
        f"{file}: coordinates on the Earth (`crs`), expected pixels of an image; make masks of "
        "them, such as by gdal_rasterize"
    ]


def deep(levels):
    inside: object = polygon(square(1, 1, 2, 2))
    for _ in range(levels):
        inside = {"type": "GeometryCollection", "geometries": [inside]}
    return json.dumps(collection(feature(inside, TUMOR)))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not readable as JSON"),
        (json.dumps(SLIDE)[:500], "not readable as JSON"),
        ("[" * 200_000, "not readable as JSON"),
        ('{"type": "FeatureCollection", "features": {}}', "no list `features`"),
        ("3", "no list `features`"),
        ('["Feature"]', "object 1 ('Feature'): found no GeoJSON feature with properties"),
        (deep(300), f"object 1 ('Tumor'): {NESTED}"),
    ],
)
def test_a_damaged_file_is_one_problem_beside_a_good_one(tmp_path, text, what):
    (bad := tmp_path / "bad.geojson").write_text(text)
    found = read(FORMAT, [bad, write_json(tmp_path / "good.geojson", SLIDE)])
    assert len(found.images[-1].shapes) == 3
    assert len(found.problems) == 1 and found.problems[0].startswith(f"{bad}: {what}")


@pytest.mark.parametrize("start", [b"", b"{}", b'{"type": "Topology"}', b"<Feature>", b"\xff["])
def test_other_files_are_not_recognised(start):
    assert not FORMAT.recognises(Path("a.json"), start)


@settings(max_examples=200)
@given(content=damaged(SLIDE))
def test_whatever_is_damaged_read_returns(tmp_path_factory, content):
    read(FORMAT, [write_json(tmp_path_factory.mktemp("qupath") / "a.geojson", content)])
