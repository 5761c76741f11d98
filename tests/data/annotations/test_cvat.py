"""Files of "CVAT for images" become shapes, or a list of everything that is wrong."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from annotation_checks import corners, read, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from dst_cbc.data.annotations.cvat import FORMAT

FILES = Path(__file__).parent / "files"
FIELD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <job>
      <labels>
        <label><name>tree</name><color>#33DDFF</color><type>any</type></label>
        <label><name>plot</name><color>blue</color></label>
        <label><name>leg</name><color>#000000</color><parent>animal</parent></label>
        <label><name>never drawn</name><color>#102030</color></label>
      </labels>
    </job>
  </meta>
  <image id="0" name="plots/field.jpg" width="12" height="10">
    <polygon label="plot" occluded="1" points="1.00,1.00;9.00,1.00;9.00,7.00" z_order="-1">
      <attribute name="crop">wheat</attribute>
    </polygon>
    <mask label="tree" rle="0, 4, 1, 4" left="2" top="3" width="3" height="3" z_order="2"></mask>
    <box label="tree" xtl="8.00" ytl="3.00" xbr="14.00" ybr="9.00"></box>
  </image>
  <image id="1" name="empty.jpg" width="12" height="10"></image>
</annotations>
"""


def file_of(folder, *elements, name="a.xml"):
    """A file of one image of these elements."""
    inside = "".join(elements)
    text = f'<annotations><image name="a.jpg" width="9" height="9">{inside}</image></annotations>'
    (file := folder / name).write_text(text)
    return file


def shapes_of(folder, *elements):
    found = read(FORMAT, [file_of(folder, *elements)])
    assert found.problems == []
    return found.images[0].shapes


def problems_of(file):
    return [line.removeprefix(f"{file}: ") for line in read(FORMAT, [file]).problems]


def test_a_polygon_a_mask_with_a_hole_and_a_box_over_the_border(tmp_path):
    (file := tmp_path / "annotations.xml").write_text(FIELD)
    assert FORMAT.recognises(file, FIELD.encode())
    found = read(FORMAT, [file])
    assert (found.problems, found.notices) == ([], [])
    # The label with a parent is a part of a skeleton.
    assert found.classes == {"tree": "#33ddff", "plot": None, "never drawn": "#102030"}
    field, empty = found.images
    assert [(one.image, one.size) for one in found.images] == [
        ("plots/field.jpg", (12, 10)),
        ("empty.jpg", (12, 10)),
    ]
    plot, ring, tree = field.shapes
    assert [(one.label, one.order) for one in field.shapes] == [
        ("plot", -1), ("tree", 2), ("tree", 0)
    ]  # fmt: skip
    assert corners(plot.polygons[0]) == [[[1, 1], [9, 1], [9, 7]]]
    assert rows(ring.mask.pixels()) == ["111", "101", "111"]
    assert (ring.mask.left, ring.mask.top) == (2, 3)
    assert corners(tree.polygons[0]) == [[[8, 3], [14, 3], [14, 9], [8, 9]]]
    assert list(empty.shapes) == []


def test_a_file_that_datumaro_wrote():
    found = read(FORMAT, [FILES / "cvat.xml"])
    field, empty = found.images
    assert (field.image, empty.image, field.size) == ("plots/a.jpg", "b.jpg", (12, 10))
    assert found.classes == {"field": None, "tree": None}
    assert found.notices == ["left out: lines (1), points (1), because they cover no area"]
    assert [(one.label, one.order) for one in field.shapes] == [
        ("field", 0), ("tree", 2), ("tree", 1)
    ]  # fmt: skip
    mask = field.shapes[2].mask.pixels()
    assert rows(mask[3:7, 2:7]) == ["11111", "10001", "10001", "11111"]
    assert mask.sum() == 14


def test_boxes_and_ellipses_turn_clockwise(tmp_path):
    box, ellipse = shapes_of(
        tmp_path,
        '<box label="a" xtl="2" ytl="4" xbr="6" ybr="6" rotation="90.00"/>',
        '<ellipse label="a" cx="4" cy="5" rx="3" ry="1" rotation="45.00"/>',
    )
    # The left upper corner goes to the right.
    assert corners(box.polygons[0]) == [[[5, 3], [5, 7], [3, 7], [3, 3]]]
    across = 3 / np.sqrt(2)
    # The right end of the ellipse goes down.
    np.testing.assert_allclose(ellipse.polygons[0][0][0], [4 + across, 5 + across])


def test_shapes_without_an_area_and_tags_are_counted_and_left_out(tmp_path):
    parts = '<points label="leg" points="1,1" outside="0"/>'
    file = file_of(
        tmp_path,
        f'<skeleton label="animal">{parts}{parts}</skeleton><polyline label="a" points="1,1;2,2"/>',
        '<cuboid label="a" xtl1="1"/><tag label="sunny"/>',
        '<box label="a" xtl="1" ytl="1" xbr="2" ybr="2"/>',
    )
    found = read(FORMAT, [file])
    assert len(found.images[0].shapes) == 1
    assert found.notices == [
        "left out: skeletons (1), lines (1), cuboids (1), tags (1), because they cover no area"
    ]


WRONG = {
    '<box label="a" xtl="1" ytl="1" xbr="2"/>': "no `ybr`",
    '<box label="a" xtl="1" ytl="x" xbr="2" ybr="2"/>': "`ytl` with 'x', expected a number",
    '<box label="a" xtl="1" ytl="nan" xbr="2" ybr="2"/>': "the point (1, nan), expected numbers of "
    "at most 1e+06",
    '<polygon label="a" points="1,1;2,2"/>': "2 points, expected at least 3 and at most 5,000,000",
    '<polygon label="a" points="1,1;2,2;3"/>': "points that are not pairs of numbers",
    '<polygon label="a" points=""/>': "`points` with '', expected a number",
    '<mask label="a" rle="1,2" left="0" top="0" width="2" height="2"/>': "run lengths of 3 pixels "
    "in all, expected 4",
    '<mask label="a" rle="1,-2,5" left="0" top="0" width="2" height="2"/>': "run lengths that are "
    "not whole numbers of 0 or more",
    '<mask label="a" rle="1.5" left="0" top="0" width="2" height="2"/>': "`rle` with '1.5', "
    "expected a whole number",
    '<mask label="a" rle="4" left="0" top="0" width="99999999" height="99999999"/>': "a mask of "
    "99999999 x 99999999 pixels at (0, 0)",
    '<star label="a"/>': "the element 'star', which is not known here; draw a polygon",
    '<box label="a" xtl="1" ytl="1" xbr="2" ybr="2" z_order="up"/>': "`z_order` with 'up', "
    "expected a whole number",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_each_fault_of_a_shape_is_named_with_its_place(tmp_path, wrong):
    good = '<box label="a" xtl="1" ytl="1" xbr="2" ybr="2"/>'
    file = file_of(tmp_path, good, wrong)
    assert problems_of(file) == [f"image 'a.jpg', shape 2 ('a'): {WRONG[wrong]}"]


def test_faults_of_images_are_listed_at_once(tmp_path):
    image = '<image name="a.jpg" width="9" height="9"/>'
    images = [image, '<image width="9" height="9"/>', '<image name="b" width="9"/>', image]
    images.append('<image name="d" width="0" height="9"/>')
    box = '<image name="c"><box xtl="1" ytl="1" xbr="2" ybr="2"/></image>'
    (file := tmp_path / "a.xml").write_text(f"<annotations>{''.join(images)}{box}</annotations>")
    assert problems_of(file) == [
        "image None: no name",
        "image 'b': an image of 9 x None pixels, expected whole numbers of 1 or more",
        f"describes the image 'a.jpg', which {file} describes, too; keep one of the two",
        "image 'd': an image of 0 x 9 pixels, expected whole numbers of 1 or more",
        "image 'c', shape 1 (None): the label None, expected the name of a class, without "
        "control characters",
    ]


def test_tracks_of_a_video_are_refused_with_advice(tmp_path):
    box = '<box frame="0" keyframe="1" xtl="1" ytl="1" xbr="2" ybr="2"/>'
    text = f'<annotations><track id="0" label="a">{box}</track></annotations>'
    (file := tmp_path / "a.xml").write_text(text)
    assert problems_of(file) == [
        'tracks of "CVAT for video"; export the task again as "CVAT for images 1.1"'
    ]


BOMB = '<!DOCTYPE a [<!ENTITY x "xxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<annotations>",
        FIELD[:700],
        FIELD.replace("tree", "tr&ee", 1),
        f"{BOMB}<annotations>&y;</annotations>",
        f"{OUTSIDE}<annotations>&x;</annotations>",
        '<!DOCTYPE annotations SYSTEM "a.dtd"><annotations></annotations>',
    ],
)
def test_a_damaged_or_hostile_file_is_one_problem_beside_a_good_one(tmp_path, text):
    (bad := tmp_path / "bad.xml").write_text(text)
    good = file_of(tmp_path, '<box label="a" xtl="1" ytl="1" xbr="2" ybr="2"/>', name="good.xml")
    found = read(FORMAT, [bad, good])
    assert [image.file for image in found.images][-1] == good
    assert len(found.problems) == 1 and found.problems[0].startswith(f"{bad}: ")


def test_elements_that_are_deep_in_each_other_are_refused(tmp_path):
    (file := tmp_path / "a.xml").write_text("<annotations>" + "<a>" * 1000)
    assert problems_of(file) == ["more than 100 elements in each other"]


def test_a_polygon_of_a_million_points(tmp_path):
    points = ";".join(["1.5,1.5;9.5,1.5;9.5,7.5;1.5,7.5"] * 250_000)
    (one,) = shapes_of(tmp_path, f'<polygon label="a" points="{points}"/>')
    assert len(one.polygons[0][0]) == 1_000_000


@pytest.mark.parametrize(
    "start",
    [b"", b"<annotation><folder>VOC</folder>", b"<annotationsx>", b"{}", b"\xff<annotations>"],
)
def test_other_files_are_not_recognised(start):
    assert not FORMAT.recognises(Path("a.xml"), start)


VALUES = ("", "x", "-1", "nan", "1e400", "9" * 5000, "1,1", "0", "\ud7ff", "..", "3.5")


@st.composite
def damaged_xml(draw):
    """FIELD with one to three of its elements or values replaced, removed or moved."""
    root = ElementTree.fromstring(FIELD)
    for _ in range(draw(st.integers(1, 3))):
        parents = [one for one in root.iter() if len(one)]
        parent = draw(st.sampled_from(parents)) if parents else root
        kind = draw(st.integers(0, 4))
        if len(parent) == 0:
            continue
        child = parent[draw(st.integers(0, len(parent) - 1))]
        if kind == 0:
            parent.remove(child)
        elif kind == 1:
            root.append(child)
        elif kind == 2:
            child.tag = draw(st.sampled_from(["image", "box", "mask", "label", "name", "x"]))
        elif kind == 3:
            child.text = draw(st.sampled_from(VALUES))
        elif child.attrib:
            key = draw(st.sampled_from(sorted(child.attrib)))
            child.attrib[draw(st.sampled_from([key, "x"]))] = draw(st.sampled_from(VALUES))
    return ElementTree.tostring(root)


@settings(max_examples=150)
@given(content=damaged_xml())
def test_whatever_is_damaged_read_returns(tmp_path_factory, content):
    (file := tmp_path_factory.mktemp("cvat") / "a.xml").write_bytes(content)
    read(FORMAT, [file])
