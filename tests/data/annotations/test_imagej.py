"""ROIs of ImageJ become shapes, or a list of everything that is wrong."""

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from annotation_checks import corners, read
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi

from dst_cbc.data.annotations import imagej
from dst_cbc.data.annotations.imagej import FORMAT

FILES = Path(__file__).parent / "files"
TRIANGLE = [[1, 1], [9, 1], [9, 7]]
PIXELS = {
    "rect": 100,
    "traced": 8,
    "poly": 3729,
    "hole": 7600,
    "parts": 8308,
    "ellipse": 7066,
    "rotrect": 5250,
    "round": 2316,
    "bigoval": 28288,
}
"""Pixels of the masks that ImageJ 1.54 makes of the ROIs in the file."""


def polygon(points=TRIANGLE, name="cell", kind=ROI_TYPE.POLYGON, **values):
    return roi_of(ImagejRoi.frompoints(points), kind, name, **values)


def rectangle(left, top, right, bottom, name="cell", kind=ROI_TYPE.RECT, **values):
    place = {"left": left, "top": top, "right": right, "bottom": bottom}
    return roi_of(ImagejRoi(), kind, name, **place, **values)


def composite(*path, name="cell"):
    path = np.array(path, np.float32)
    size = {"shape_roi_size": len(path), "multi_coordinates": path}
    return roi_of(ImagejRoi(), ROI_TYPE.RECT, name, **size)


def roi_of(roi, kind, name, **values):
    roi.roitype, roi.name = kind, name
    for key, value in values.items():
        setattr(roi, key, value)
    return roi


def zip_of(path, *rois, names=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    names = names or [f"{number:04}-0000.roi" for number in range(len(rois))]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, one in zip(names, rois, strict=True):
            archive.writestr(name, one.tobytes() if isinstance(one, ImagejRoi) else one)
    return path


def shapes_of(folder, *rois):
    found = read(FORMAT, [zip_of(folder / "a.zip", *rois)])
    assert found.problems == []
    return found.images[0].shapes


def drawn(shape, height=200, width=220):
    """Pixels whose centres are inside of a shape, bool (height, width)."""
    mask = np.zeros((height, width), np.uint8)
    for rings in shape.polygons:
        closed = [np.concatenate([ring, ring[:1]]).tolist() for ring in rings]
        rasterize([({"type": "Polygon", "coordinates": closed}, 1)], out=mask)
    return mask.astype(bool)


def test_a_polygon_a_composite_with_a_hole_and_a_rectangle_over_the_border(tmp_path):
    ring = composite(
        *(0, 2, 3, 1, 5, 3, 1, 5, 6, 1, 2, 6, 1, 2, 3, 4),
        *(0, 3, 4, 1, 4, 4, 1, 4, 5, 1, 3, 5, 4),
        name="tree-1",
    )
    rois = [polygon(name="plot"), ring, rectangle(8, 3, 14, 9, name="tree-2")]
    file = zip_of(tmp_path / "field_RoiSet.zip", *rois)
    assert FORMAT.recognises(file, file.read_bytes())
    found = read(FORMAT, [file])
    (image,) = found.images
    plot, tree, other = image.shapes
    assert (image.image, image.size, found.problems, found.notices) == ("field", None, [], [])
    assert found.classes == {"plot": None, "tree": None}
    assert [one.label for one in image.shapes] == ["plot", "tree", "tree"]
    assert corners(plot.polygons[0]) == [TRIANGLE]
    assert corners(tree.polygons[0]) == [
        [[2, 3], [5, 3], [5, 6], [2, 6]],
        [[3, 4], [4, 4], [4, 5], [3, 5]],
    ]
    assert corners(other.polygons[0]) == [[[8, 3], [14, 3], [14, 9], [8, 9]]]


def test_rois_of_imagej_cover_the_pixels_that_imagej_says():
    found = read(FORMAT, [FILES / "field-RoiSet.zip"])
    (image,) = found.images
    masks = {shape.label: drawn(shape) for shape in image.shapes}
    assert image.image == "field"
    assert {label: mask.sum() for label, mask in masks.items()} == PIXELS
    # The rectangle of 10 x 10 pixels at (0, 0).
    assert masks["rect"][:10, :10].all()
    assert corners(image.shapes[1].polygons[0]) == [
        [[10, 10], [13, 10], [13, 12], [11, 12], [11, 14], [10, 14]]
    ]


def test_coordinates_between_pixels_and_before_the_image(tmp_path):
    sub = np.array([[1.25, 1.5], [9.75, 1.5], [9.75, 7.25]])
    shapes = shapes_of(tmp_path, polygon(sub), polygon(np.array(TRIANGLE) - 5))
    assert corners(shapes[0].polygons[0]) == [sub.tolist()]
    assert corners(shapes[1].polygons[0]) == [[[-4, -4], [4, -4], [4, 2]]]


def test_an_oval_and_a_rectangle_between_pixels(tmp_path):
    options = {"options": ROI_OPTIONS.SUB_PIXEL_RESOLUTION, "version": 228}
    place = {"xd": 1.5, "yd": 2.25, "widthd": 4.0, "heightd": 2.5}
    oval, other, rect = shapes_of(
        tmp_path,
        rectangle(2, 4, 8, 8, kind=ROI_TYPE.OVAL),
        rectangle(0, 0, 1, 1, kind=ROI_TYPE.OVAL, **options, **place),
        rectangle(0, 0, 1, 1, **options, **place),
    )
    for shape, low, high in ((oval, (2, 4), (8, 8)), (other, (1.5, 2.25), (5.5, 4.75))):
        np.testing.assert_allclose(shape.polygons[0][0].min(0), low, atol=1e-9)
        np.testing.assert_allclose(shape.polygons[0][0].max(0), high, atol=1e-9)
    assert corners(rect.polygons[0]) == [[[1.5, 2.25], [5.5, 2.25], [5.5, 4.75], [1.5, 4.75]]]


def test_a_fitted_curve_goes_through_its_corners(tmp_path):
    square = [[20, 20], [60, 20], [60, 60], [20, 60]]
    (shape,) = shapes_of(tmp_path, polygon(square, options=ROI_OPTIONS.SPLINE_FIT))
    curve = shape.polygons[0][0]
    for corner in square:
        assert np.hypot(*(curve - corner).T).min() < 1e-6
    # The circle through the corners has the area 800 pi, the square has 1600.
    assert 2400 < drawn(shape).sum() < 2700


@pytest.mark.parametrize(("most", "polygons"), [(3, [1, 2]), (2, [3])])
def test_parts_of_a_composite_that_are_apart_are_polygons_of_their_own(
    tmp_path, monkeypatch, most, polygons
):
    def box(left, top, right, bottom):
        return (0, left, top, 1, right, top, 1, right, bottom, 1, left, bottom, 4)

    # With very many parts, to compare each with each would take too much memory.
    monkeypatch.setattr(imagej, "_MOST_APART", most)
    path = (*box(0, 0, 2, 2), *box(5, 5, 6, 6), *box(4, 4, 8, 8), 0, 9, 9)
    (shape,) = shapes_of(tmp_path, composite(*path))
    assert sorted(map(len, shape.polygons)) == polygons
    assert drawn(shape, 10, 10).sum() == 2 * 2 + 4 * 4 - 1


def test_curves_of_a_composite(tmp_path):
    # A quarter of a circle of radius 40 around (10, 10), as Java draws it; and a parabola.
    k = 40 * 0.5522847498
    path = (0, 10, 10, 1, 50, 10, 3, 50, 10 + k, 10 + k, 50, 10, 50, 4)
    quarter, arch = shapes_of(tmp_path, composite(*path), composite(0, 0, 0, 2, 20, 40, 40, 0, 4))
    assert abs(drawn(quarter).sum() - np.pi * 400) < 12
    assert arch.polygons[0][0][:, 1].max() == 20


@pytest.mark.parametrize(
    ("name", "group", "label"),
    [
        ("nucleus", 0, "nucleus"),
        ("nucleus-12", 0, "nucleus"),
        ("nucleus 3-1", 0, "nucleus"),
        ("cell #4", 0, "cell"),
        ("cell (4)", 0, "cell"),
        ("CD4", 0, "CD4"),
        ("0012-0345", 0, "foreground"),
        ("0003-0012-0345", 0, "foreground"),
        ("5f0c1f38-2d3c-4c70-9a51-0d6b5f3f3a11", 0, "foreground"),
        ("", 0, "foreground"),
        ("0012-0345", 3, "group 3"),
        ("nucleus", 1, "group 1"),
    ],
)
def test_the_class_of_a_roi(tmp_path, name, group, label):
    file = zip_of(tmp_path / "a.zip", polygon(name=name, group=group))
    assert list(read(FORMAT, [file]).classes) == [label]


def test_many_classes_that_only_differ_in_a_number_are_said(tmp_path):
    names = ["cell1", "cell2", "cell10", "CD4", "CD8", "leaf-1", "leaf-2", "leaf-3"]
    grouped = [polygon(group=number) for number in (1, 2, 3)]
    rois = [polygon(name=name) for name in names]
    found = read(FORMAT, [zip_of(tmp_path / "a.zip", *rois, *grouped)])
    assert len(found.classes) == 9
    assert found.notices == [
        "3 classes are called cell and a number; if they are one class, rename the ROIs to cell-1, "
        "cell-2, ..."
    ]


def test_a_roi_that_is_saved_alone_has_the_name_of_its_file(tmp_path):
    (file := tmp_path / "leaf.roi").write_bytes(polygon(name="leaf").tobytes())
    assert FORMAT.recognises(file, file.read_bytes())
    found = read(FORMAT, [file])
    assert (found.images[0].image, found.classes) == ("leaf", {"foreground": None})


@pytest.mark.parametrize(
    ("path", "image"),
    [
        ("x/leaf.zip", "x/leaf"),
        ("x/leaf_RoiSet.zip", "x/leaf"),
        ("x/RoiSet_leaf.zip", "x/leaf"),
        ("x/leaf-rois.zip", "x/leaf"),
        ("x/leaf.tif.roi.zip", "x/leaf.tif"),
        ("x/heroic.zip", "x/heroic"),
        ("x/RoiSet.zip", "x"),
    ],
)
def test_the_name_of_the_image(tmp_path, path, image):
    files = [zip_of(tmp_path / path, polygon()), zip_of(tmp_path / "y/other.zip", polygon())]
    found = read(FORMAT, files)
    assert [one.image for one in found.images] == [image, "y/other"]


def test_positions_in_a_stack_are_its_pages(tmp_path):
    rois = [polygon(name=name, position=page) for name, page in (("a", 3), ("b", 1), ("c", 3))]
    found = read(FORMAT, [zip_of(tmp_path / "stack.zip", *rois)])
    assert [(one.image, [shape.label for shape in one.shapes]) for one in found.images] == [
        ("stack/0001", ["b"]),
        ("stack/0003", ["a", "c"]),
    ]
    frames = [polygon(c_position=2, z_position=1, t_position=2)]
    found = read(FORMAT, [zip_of(tmp_path / "frames.zip", *frames)])
    assert [one.image for one in found.images] == ["frames/0002"]


def test_a_channel_or_the_first_page_is_no_stack(tmp_path):
    rois = [polygon(c_position=3, z_position=1, t_position=1), polygon(position=1), polygon()]
    found = read(FORMAT, [zip_of(tmp_path / "a.zip", *rois)])
    assert [(one.image, len(one.shapes)) for one in found.images] == [("a", 3)]


def test_positions_that_do_not_say_the_page_are_problems(tmp_path):
    mixed = zip_of(tmp_path / "mixed.zip", polygon(), polygon(position=2))
    both = zip_of(tmp_path / "both.zip", polygon(z_position=2, t_position=2))
    assert read(FORMAT, [mixed, both]).problems == [
        f"{mixed}: 1 ROIs without a position in the stack, and others with one; give each its "
        "position in ImageJ: ROI Manager, More, Properties",
        f"{both}: ROI 1 ('0000-0000'): slice 2 of frame 2; expected a stack of slices or of "
        "frames; split the stack in ImageJ, and save the ROIs of each part",
    ]


def test_rois_without_an_area_and_other_files_are_counted_and_left_out(tmp_path):
    rois = [
        polygon(kind=ROI_TYPE.POINT),
        polygon(kind=ROI_TYPE.POLYLINE),
        rectangle(0, 0, 1, 1, kind=ROI_TYPE.LINE),
        polygon(kind=ROI_TYPE.ANGLE),
        rectangle(0, 0, 9, 9, subtype=ROI_SUBTYPE.TEXT),
        polygon(),
        b"a picture",
        b"what macOS adds",
    ]
    names = [*(f"{number}.roi" for number in range(6)), "a.png", "__MACOSX/._1.roi"]
    found = read(FORMAT, [zip_of(tmp_path / "a.zip", *rois, names=names)])
    assert len(found.images[0].shapes) == 1
    assert found.notices == [
        "left out: points (1), lines (2), angles (1), texts and pictures (1), because they cover "
        "no area",
        "left out: files (2), because they are no ROIs",
    ]


def test_all_faults_of_a_file_are_listed_at_once(tmp_path):
    good = polygon().tobytes()
    nowhere = polygon(np.array(TRIANGLE, np.float32))
    nowhere.subpixel_coordinates[1, 1] = np.nan
    rois = [
        polygon(),
        good[:70],
        b"Iout" + bytes(60),
        polygon([[1, 1], [2, 2]]),
        nowhere,
        composite(1, 2, 3),
        composite(0, 2, 3, 1, 4),
        composite(7, 2, 3),
        polygon(name="x" * 256),
        rectangle(0, 0, 9, 9, kind=ROI_TYPE.NOROI),
    ]
    file = zip_of(tmp_path / "a.zip", *rois)
    problems = [line.removeprefix(f"{file}: ") for line in read(FORMAT, [file]).problems]
    assert problems == [
        "ROI 2 ('0001-0000'): not readable as a ROI of ImageJ (buffer is too small for requested "
        "array); export it again",
        "ROI 3 ('0002-0000'): 0 points, expected at least 3 and at most 5,000,000",
        "ROI 4 ('0003-0000'): 2 points, expected at least 3 and at most 5,000,000",
        "ROI 5 ('0004-0000'): the point (9, nan), expected numbers of at most 1e+06",
        "ROI 6 ('0005-0000'), ROI 7 ('0006-0000'), ROI 8 ('0007-0000'): a composite whose path is "
        "damaged; save it again",
        "ROI 9 ('0008-0000'): a name of 256 letters, expected at most 255",
        "ROI 10 ('0009-0000'): the type 6, which is not known here; draw a polygon",
    ]


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(imagej, "MOST_BYTES", 2_000_000)
    file = zip_of(tmp_path / "a.zip", polygon(), bytes(50_000_000))
    tracemalloc.start()
    found = read(FORMAT, [file])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.problems == [f"{file}: unpacks to more than 2,000,000 bytes"]
    assert peak < 10_000_000


def test_too_many_rois_are_refused_before_they_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(imagej, "MOST_ROIS", 3)
    file = zip_of(tmp_path / "a.zip", *[polygon()] * 4)
    assert read(FORMAT, [file]).problems == [
        f"{file}: more than 3 ROIs; save them to several files"
    ]
    assert read(FORMAT, [zip_of(tmp_path / "b.zip", *[polygon()] * 3)]).problems == []


def test_a_damaged_archive_is_one_problem_beside_a_good_one(tmp_path):
    good = zip_of(tmp_path / "good.zip", polygon(), polygon())
    for number, content in enumerate((b"", b"PK\x03\x04", good.read_bytes()[:-30])):
        (bad := tmp_path / f"bad{number}.zip").write_bytes(content)
        found = read(FORMAT, [bad, good])
        assert [one.image for one in found.images][-1] == "good"
        assert len(found.problems) == 1
        assert found.problems[0].startswith(f"{bad}: not readable as a zip archive of ROIs")


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.roi", b""),
        ("a.roi", b"Iou"),
        ("a.zip", b""),
        ("a.zip", b"PK\x03\x04" + bytes(26) + b"a.png"),
    ],
)
def test_other_files_are_not_recognised(name, start):
    assert not FORMAT.recognises(Path(name), start)


KINDS = {
    "polygon": polygon(options=ROI_OPTIONS.SPLINE_FIT),
    "between pixels": polygon(np.array(TRIANGLE) + 0.5, position=2),
    "oval": rectangle(1, 2, 30, 40, kind=ROI_TYPE.OVAL),
    "composite": composite(0, 0, 0, 1, 9, 0, 3, 9, 9, 8, 8, 0, 9, 4),
}


@settings(max_examples=300)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    changes=st.lists(st.tuples(st.integers(4, 250), st.binary(min_size=1, max_size=4)), min_size=1),
)
def test_whatever_bytes_are_damaged_read_returns(tmp_path_factory, kind, changes):
    content = bytearray(KINDS[kind].tobytes())
    for at, new in changes:
        content[at : at + len(new)] = new
    (file := tmp_path_factory.mktemp("roi") / "a.roi").write_bytes(content)
    read(FORMAT, [file])
