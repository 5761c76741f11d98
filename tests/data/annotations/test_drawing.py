"""Masks drawn from shapes: pixel by pixel."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from dst_cbc.data.annotations.drawing import area, draw
from dst_cbc.data.annotations.shapes import Shape, box, ellipse, ring, runs
from dst_cbc.settings.data import IGNORED

NUMBERS = {"a": 1, "b": 2}


def drawn(*shapes, size=(6, 6), unannotated=0, relative=False):
    return draw(shapes, size, NUMBERS, unannotated, relative).tolist()


def test_a_shape_with_a_hole_an_overlap_and_one_over_the_border_become_this_mask():
    frame = Shape("a", [[box(0, 0, 5, 5), box(1, 1, 3, 3)]])
    corner = Shape("b", [[ring([(3, 3), (9, 3), (9, 9), (3, 9)])]])
    left = Shape("b", [[box(-4, 4, 1, 6)]])
    assert drawn(corner, frame, left) == [
        [1, 1, 1, 1, 1, 0],
        [1, 0, 0, 1, 1, 0],
        [1, 0, 0, 1, 1, 0],
        # The corner, 36 pixels with what lies outside, is larger than the frame, of 21.
        [1, 1, 1, 1, 1, 2],
        [2, 1, 1, 1, 1, 2],
        [2, 0, 0, 2, 2, 2],
    ]


def test_a_pixel_belongs_to_a_shape_if_its_centre_lies_inside():
    assert drawn(Shape("a", [[box(0.4, 0.6, 2.6, 1.4)]]), size=(4, 2)) == [[0] * 4, [0] * 4]
    assert drawn(Shape("a", [[box(0.4, 0.4, 2.6, 0.6)]]), size=(4, 2)) == [[1, 1, 1, 0], [0] * 4]
    diagonal = ring([(0, 0.1), (4, 0), (4, 4.1)])
    assert drawn(Shape("a", [[diagonal]]), size=(4, 4)) == [
        [1, 1, 1, 1],
        [0, 1, 1, 1],
        [0, 0, 1, 1],
        [0, 0, 0, 1],
    ]


def test_an_island_in_a_hole_is_part_of_the_shape():
    rings = [box(0, 0, 5, 5), box(1, 1, 4, 4), box(2, 2, 3, 3)]
    assert drawn(Shape("a", [rings]), size=(5, 5))[2] == [1, 0, 1, 0, 1]


def test_the_polygons_of_one_shape_are_united():
    both = Shape("a", [[box(0, 0, 3, 1)], [box(1, 0, 5, 1)]])
    assert drawn(both, size=(6, 1)) == [[1, 1, 1, 1, 1, 0]]


def test_the_largest_is_drawn_first_and_a_higher_order_later():
    small, large = Shape("a", [[box(0, 0, 1, 1)]]), Shape("b", [[box(0, 0, 3, 1)]])
    assert drawn(small, large, size=(3, 1)) == drawn(large, small, size=(3, 1)) == [[1, 2, 2]]
    above = Shape("b", [[box(0, 0, 3, 1)]], order=1)
    assert drawn(above, small, size=(3, 1)) == [[2, 2, 2]]


def test_ignored_shapes_and_pixels_without_a_shape_have_no_class():
    crowd = Shape("a", [[box(0, 0, 1, 1)]], ignored=True)
    assert drawn(crowd, size=(3, 1)) == [[IGNORED, 0, 0]]
    assert drawn(Shape("b", [[box(0, 0, 1, 1)]]), size=(3, 1), unannotated=IGNORED) == [
        [2, IGNORED, IGNORED]
    ]


def test_run_lengths_are_placed_and_cut_at_the_border():
    by_rows = runs([1, 3], 2, 2)
    assert drawn(Shape("a", mask=by_rows), size=(3, 3)) == [[0, 1, 0], [1, 1, 0], [0, 0, 0]]
    by_columns = runs([1, 1, 1, 1], 2, 2, by_columns=True, left=2, top=-1)
    assert drawn(Shape("a", mask=by_columns), size=(3, 2)) == [[0, 0, 1], [0, 0, 0]]
    outside = runs([0, 4], 2, 2, left=9, top=9)
    assert drawn(Shape("a", mask=outside), size=(3, 1)) == [[0, 0, 0]]


def test_relative_coordinates_are_shares_of_width_and_height():
    half = Shape("a", [[box(0, 0, 0.5, 1)]])
    assert drawn(half, size=(4, 2), relative=True) == [[1, 1, 0, 0]] * 2


def test_areas_leave_holes_out():
    assert area(Shape("a", [[box(0, 0, 5, 5), box(1, 1, 3, 3)]])) == 21
    assert area(Shape("a", [[box(0, 0, 2, 2)]], mask=runs([1, 3], 2, 2))) == 7
    assert abs(area(Shape("a", [[ellipse(5, 5, 3, 2, 30)]])) - 6 * np.pi) < 0.1


@given(
    st.lists(
        st.tuples(st.integers(-20, 80), st.integers(-20, 80)), min_size=3, max_size=12, unique=True
    )
)
def test_polygons_are_drawn_as_another_library_draws_them(corners):
    # A corner at a centre may be counted to either side, so all are moved off.
    moved = np.array(corners) / 2 + 0.13
    mask = draw([Shape("a", [[ring(moved)]])], (32, 32), NUMBERS, 0)
    other = polygon2mask((32, 32), moved[:, ::-1] - 0.5)
    assert np.count_nonzero((mask == 1) != other) == 0
