"""`resampling: torch` against the formulas of bilinear and nearest interpolation, written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dst_cbc.data.augmentation import draw_interpolation, whole
from dst_cbc.data.interpolation import Interpolation
from dst_cbc.settings.training import AugmentationSettings
from reference import Script, bilinear, nearest

FILL = (7, 8, 9)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


SIDES = st.integers(1, 12)


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 9))
def test_an_image_is_bilinear_between_pixel_centres(height, width, new_height, new_width, seed):
    image = picture(height, width, seed)
    new = (new_height, new_width)
    found = Interpolation(new, new).image(image, FILL)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, bilinear(image.astype(float), *new), atol=1e-3)


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_mask_takes_the_pixel_at_the_position_rounded_down(height, width, new_height, new_width):
    new = (new_height, new_width)
    label = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    np.testing.assert_array_equal(Interpolation(new, new).label(label), nearest(label, *new))
    values = label.astype(np.float32)
    np.testing.assert_array_equal(Interpolation(new, new).values(values), nearest(values, *new))


def test_a_mask_is_not_aligned_with_pixel_centres():
    """By hand: of 4 pixels, two remain: 0 and 2. The nearest centres would be 1 and 3."""
    row = np.array([[0, 1, 2, 3]], np.uint8)
    assert Interpolation((1, 2), (1, 2)).label(row).tolist() == [[0, 2]]


def test_a_window_is_cut_out_and_mirrored():
    image, label = picture(5, 7), np.arange(35, dtype=np.uint8).reshape(5, 7)
    cut = Interpolation((8, 9), (3, 4), top=2, left=5, mirror=True)
    expected = bilinear(image.astype(float), 8, 9)[2:5, 5:9][:, ::-1]
    np.testing.assert_allclose(cut.image(image, FILL), expected, atol=1e-3)
    np.testing.assert_array_equal(cut.label(label), nearest(label, 8, 9)[2:5, 5:9][:, ::-1])


def test_a_window_beyond_the_image_is_filled():
    image, label = picture(4, 5), np.ones((4, 5), np.uint8)
    padded = whole((4, 5), (4, 5), (6, 8), "torch")
    found = padded.image(image, (0, 0, 0))
    np.testing.assert_array_equal(found[:4, :5], image)
    assert (found[4:] == 0).all() and (found[:, 5:] == 0).all()
    mask = padded.label(label)
    assert (mask[:4, :5] == 1).all() and (mask[4:] == 255).all() and (mask[:, 5:] == 255).all()


@pytest.mark.parametrize("chance, mirror", [(0.49, True), (0.5, False)])
def test_sides_place_and_flip_are_drawn_in_the_order_of_the_released_code(chance, mirror):
    settings = AugmentationSettings(size=((6, 8), (12, 16)), flip=0.5)
    script = Script(9, 11, 2, 1, chance)
    assert draw_interpolation((6, 8), settings, script) == Interpolation(
        (9, 11), (6, 8), top=2, left=1, mirror=mirror
    )
    # Both bounds included: sides, then the pixel at which the crop begins.
    assert script.bounds == [(6, 12), (8, 16), (0, 3), (0, 3)]
