import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dst_cbc.data.augmentation import Warp, draw_warp, jitter, whole
from dst_cbc.settings.training import AugmentationSettings

FILL = (7, 8, 9)
STILL = AugmentationSettings(scale=(1, 1), flip=0)


class Script:
    """A random generator whose `uniform` and `random` return the given numbers, in order of use."""

    def __init__(self, scale=1.0, angle=0.0, mirror=0.999, y=0.0, x=0.0):
        self.values = [scale, angle, mirror, y, x]

    def uniform(self, low, high):
        return self.values.pop(0)

    def random(self):
        return self.values.pop(0)


def warp_of(image, crop, flip=0.0, **draws):
    settings = AugmentationSettings(scale=(0.1, 10), rotation=180, flip=flip)
    size = (image.height, image.width)
    return draw_warp(size, crop, settings, Script(**draws))


def coordinates(height=6, width=8):
    """An image whose red is 10 x and whose green is 10 y."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([10 * x, 10 * y, 0 * x + 50], -1).astype(np.uint8))


def numbers(height=6, width=8):
    """A mask in which every pixel has another value."""
    return Image.fromarray(np.arange(height * width, dtype=np.uint8).reshape(height, width))


def warped(warp, image):
    return warp.image(np.asarray(image), FILL)


def labeled(warp, label):
    return warp.label(np.asarray(label))


def test_without_augmentation_a_crop_of_the_full_size_is_the_image():
    warp = draw_warp((6, 8), (6, 8), STILL, np.random.default_rng(0))
    np.testing.assert_array_equal(warped(warp, coordinates()), np.asarray(coordinates()))
    np.testing.assert_array_equal(labeled(warp, numbers()), np.asarray(numbers()))


def test_a_flip_mirrors_left_and_right_only():
    warp = warp_of(numbers(), (6, 8), flip=1)
    np.testing.assert_array_equal(warped(warp, coordinates()), np.asarray(coordinates())[:, ::-1])
    np.testing.assert_array_equal(labeled(warp, numbers()), np.asarray(numbers())[:, ::-1])


@pytest.mark.parametrize("drawn, flipped", [(0.29, True), (0.31, False)])
def test_a_flip_has_the_probability_of_the_settings(drawn, flipped):
    warp = warp_of(numbers(), (6, 8), flip=0.3, mirror=drawn)
    expected = np.asarray(numbers())[:, ::-1] if flipped else np.asarray(numbers())
    np.testing.assert_array_equal(labeled(warp, numbers()), expected)


@pytest.mark.parametrize("y, x, top, left", [(0, 0, 0, 0), (1, 1, 2, 3), (0.5, 0, 1, 0)])
def test_a_crop_is_a_window_of_the_image(y, x, top, left):
    warp = warp_of(numbers(), (4, 5), y=y, x=x)
    window = np.s_[top : top + 4, left : left + 5]
    np.testing.assert_array_equal(labeled(warp, numbers()), np.asarray(numbers())[window])
    np.testing.assert_array_equal(warped(warp, coordinates()), np.asarray(coordinates())[window])


def test_scale_two_shows_each_pixel_of_a_mask_twice():
    warp = warp_of(numbers(), (12, 16), scale=2)
    doubled = np.asarray(numbers()).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(labeled(warp, numbers()), doubled)


def test_scale_two_interpolates_coordinates_between_pixel_centres():
    warp = warp_of(coordinates(), (12, 16), scale=2)
    seen = warped(warp, coordinates()).astype(float)
    inside = np.s_[2:-2, 2:-2]
    y, x = np.mgrid[0:12, 0:16]
    expected_x, expected_y = 10 * ((x + 0.5) / 2 - 0.5), 10 * ((y + 0.5) / 2 - 0.5)
    assert np.abs(seen[..., 0] - expected_x)[inside].max() <= 1
    assert np.abs(seen[..., 1] - expected_y)[inside].max() <= 1


def test_a_rotation_by_90_degrees_turns_image_and_mask_alike():
    square = numbers(6, 6)
    settings = AugmentationSettings(scale=(1, 1), rotation=90, flip=0)
    warp = draw_warp((6, 6), (6, 6), settings, Script(angle=90.0))
    turned = labeled(warp, square)
    assert any(np.array_equal(turned, np.rot90(np.asarray(square), k)) for k in (1, 3))
    k = 1 if np.array_equal(turned, np.rot90(np.asarray(square))) else 3
    image = coordinates(6, 6)
    np.testing.assert_allclose(
        warped(warp, image).astype(int), np.rot90(np.asarray(image), k).astype(int), atol=1
    )


def test_a_rotation_turns_around_the_centre_of_the_window():
    image = numbers(9, 9)
    for angle in (30, -77, 145):
        warp = warp_of(image, (3, 3), angle=angle, y=0.5, x=0.5)
        assert labeled(warp, image)[1, 1] == np.asarray(image)[4, 4]


def test_a_rotation_by_minus_an_angle_is_undone_by_a_flip_on_a_symmetric_image():
    symmetric = np.asarray(numbers(8, 8)).copy()
    symmetric[:, 4:] = symmetric[:, 3::-1]
    image = Image.fromarray(symmetric)
    plus = labeled(warp_of(image, (8, 8), angle=30), image)
    minus = labeled(warp_of(image, (8, 8), angle=-30), image)
    np.testing.assert_array_equal(plus, minus[:, ::-1])


def test_lengths_and_angles_survive_every_warp():
    rng = np.random.default_rng(0)
    settings = AugmentationSettings(scale=(0.5, 2), rotation=180, flip=0.5)
    for _ in range(50):
        a, b, _, d, e, _ = draw_warp((50, 60), (20, 30), settings, rng).affine
        size = math.hypot(a, d)
        assert math.hypot(b, e) == pytest.approx(size)
        assert a * b + d * e == pytest.approx(0, abs=1e-9)
        assert 0.5 <= 1 / size <= 2


def test_outside_the_image_are_fill_and_ignored():
    warp = warp_of(numbers(), (10, 12), y=0.5, x=0.5)
    image, label = warped(warp, coordinates()), labeled(warp, numbers())
    inside = np.zeros((10, 12), bool)
    inside[2:8, 2:10] = True
    np.testing.assert_array_equal(label[inside].reshape(6, 8), np.asarray(numbers()))
    assert (label[~inside] == 255).all()
    np.testing.assert_array_equal(image[inside].reshape(6, 8, 3), np.asarray(coordinates()))
    assert (image[~inside] == FILL).all()


def test_an_indexed_mask_keeps_its_numbers_and_is_ignored_outside():
    mask = numbers()
    mask.putpalette([3, 200, 90] * 256)
    warp = warp_of(mask, (10, 12), y=0.5, x=0.5)
    np.testing.assert_array_equal(labeled(warp, mask), labeled(warp, numbers()))


@given(st.integers(0, 1000), st.integers(4, 40), st.integers(4, 40))
def test_a_larger_image_fills_the_window(seed, height, width):
    settings = AugmentationSettings(scale=(1, 2), flip=0.5)
    warp = draw_warp((height, width), (4, 4), settings, np.random.default_rng(seed))
    ones = Image.fromarray(np.ones((height, width), np.uint8))
    assert (labeled(warp, ones) == 1).all()


@given(st.integers(0, 1000), st.integers(3, 16), st.integers(3, 16))
def test_a_smaller_image_lies_whole_inside_the_window(seed, height, width):
    settings = AugmentationSettings(scale=(1, 1), flip=0.5)
    warp = draw_warp((height, width), (16, 16), settings, np.random.default_rng(seed))
    ones = Image.fromarray(np.ones((height, width), np.uint8))
    assert (labeled(warp, ones) == 1).sum() >= (height - 1) * (width - 1)


@given(st.integers(0, 300))
def test_image_and_mask_are_warped_alike(seed):
    """The mask is the image above a threshold, both before and after the warp."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:60, 0:60]
    centre = rng.uniform(20, 40, 2)
    disc = np.hypot(y - centre[0], (x - centre[1]) / 1.6) < 12
    image = Image.fromarray(np.where(disc[..., None], 250, 10).repeat(3, -1).astype(np.uint8))
    label = Image.fromarray(disc.astype(np.uint8))
    settings = AugmentationSettings(scale=(0.7, 1.6), rotation=45, flip=0.5)
    warp = draw_warp((60, 60), (48, 40), settings, rng)
    seen = warped(warp, image)[..., 0] > 130
    mask = labeled(warp, label)
    inside = mask != 255
    assert (seen != mask)[inside].mean() < 0.01


def test_every_position_of_a_crop_is_drawn():
    tops = set()
    for seed in range(200):
        warp = draw_warp((6, 8), (4, 8), STILL, np.random.default_rng(seed))
        tops.add(int(labeled(warp, numbers())[0, 0]) // 8)
    assert tops == {0, 1, 2}


def test_the_same_generator_gives_the_same_warp_and_another_one_another():
    settings = AugmentationSettings(rotation=20)
    draw = lambda seed: draw_warp((50, 60), (9, 9), settings, np.random.default_rng(seed))  # noqa: E731
    assert draw(1) == draw(1) != draw(2)


def test_a_warp_says_its_size_and_where_points_come_from():
    warp = Warp((2, 3), (1, 0, 1, 0, 1, 2))
    np.testing.assert_array_equal(labeled(warp, numbers()), np.asarray(numbers())[2:4, 1:4])


class Sides(Script):
    """Like `Script`; `integers` returns the given sides of the resized image."""

    def __init__(self, *sides, **draws):
        super().__init__(**draws)
        self.sides, self.values = list(sides), self.values[1:]

    def integers(self, low, high, endpoint):
        assert endpoint
        return self.sides.pop(0)


def sized(low, high, **settings):
    return AugmentationSettings(size=(low, high), **{"flip": 0, **settings})


def test_with_a_size_height_and_width_are_resized_each_for_itself():
    warp = draw_warp((6, 8), (12, 24), sized((1, 1), (99, 99)), Sides(12, 24))
    expected = np.asarray(numbers()).repeat(2, 0).repeat(3, 1)
    np.testing.assert_array_equal(labeled(warp, numbers()), expected)


def test_with_a_size_the_crop_is_a_window_of_the_resized_image():
    warp = draw_warp((6, 8), (4, 5), sized((1, 1), (99, 99)), Sides(12, 24, y=1, x=0.0))
    expected = np.asarray(numbers()).repeat(2, 0).repeat(3, 1)[8:, :5]
    np.testing.assert_array_equal(labeled(warp, numbers()), expected)


def test_with_a_size_the_resized_image_is_turned_and_mirrored():
    settings = sized((1, 1), (99, 99), rotation=90)
    turned = labeled(draw_warp((3, 6), (6, 6), settings, Sides(6, 6, angle=90.0)), numbers(3, 6))
    doubled = np.asarray(numbers(3, 6)).repeat(2, 0)
    assert any(np.array_equal(turned, np.rot90(doubled, k)) for k in (1, 3))
    settings = sized((1, 1), (99, 99), flip=1)
    mirrored = labeled(draw_warp((3, 6), (6, 6), settings, Sides(6, 6, mirror=0.0)), numbers(3, 6))
    np.testing.assert_array_equal(mirrored, doubled[:, ::-1])


def test_both_sides_take_every_value_of_their_bounds_in_every_combination():
    settings = sized((3, 4), (4, 6))
    seen = set()
    for seed in range(200):
        a, _, _, _, e, _ = draw_warp((6, 8), (3, 4), settings, np.random.default_rng(seed)).affine
        seen.add((round(6 / e, 6), round(8 / a, 6)))
    assert seen == {(height, width) for height in (3, 4) for width in (4, 5, 6)}


def test_with_a_size_the_scale_does_not_count():
    draw = lambda scale: draw_warp(  # noqa: E731
        (6, 8), (4, 5), sized((12, 16), (12, 16), scale=scale), np.random.default_rng(1)
    )
    assert draw((3, 3)) == draw((1, 1))


def test_the_same_warp_of_a_raster_of_another_size_shows_the_same_scene():
    warp = warp_of(numbers(), (12, 16), scale=2)
    twice = np.asarray(numbers()).repeat(2, 0).repeat(2, 1)
    same = warp.of((12, 16), (6, 8))
    np.testing.assert_array_equal(same.label(twice), labeled(warp, numbers()))
    # By hand: half the size, one pixel further to the right, is two of the other's pixels.
    moved = Warp((2, 3), (1, 0, 1, 0, 1, 0)).of((12, 16), (6, 8))
    assert moved.affine == (2, 0, 2, 0, 2, 0)


@pytest.mark.parametrize("size", [((5, 4), (4, 6)), ((3, 7), (4, 6))])
def test_a_size_whose_bounds_are_the_wrong_way_round_is_refused(size):
    with pytest.raises(ValueError, match="first number must not be above the second"):
        AugmentationSettings(size=size)


def test_a_whole_image_in_a_larger_window_is_in_its_upper_left_corner():
    warp = whole((6, 8), (12, 8), (14, 11))
    expected = np.full((14, 11), 255)
    expected[:12, :8] = np.asarray(numbers()).repeat(2, 0)
    np.testing.assert_array_equal(labeled(warp, numbers()), expected)
    image = warped(whole((6, 8), (6, 8), (9, 9)), coordinates())
    np.testing.assert_array_equal(image[:6, :8], np.asarray(coordinates()))
    assert (image[6:] == FILL).all() and (image[:, 8:] == FILL).all()


def random_image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)


def test_without_jitter_the_pixels_stay():
    image = random_image()
    random = np.random.default_rng(0)
    np.testing.assert_array_equal(jitter(image, AugmentationSettings(), random), image)
    assert random.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("key", ["brightness", "contrast", "saturation", "hue", "noise"])
def test_each_kind_of_jitter_changes_the_pixels_and_repeats(key):
    settings = AugmentationSettings(**{key: 0.4})
    image = random_image()
    first = jitter(image, settings, np.random.default_rng(3))
    again = jitter(image, settings, np.random.default_rng(3))
    assert first.dtype == np.uint8 and first.shape == (40, 50, 3)
    np.testing.assert_array_equal(first, again)
    assert (first != np.asarray(image)).any()
    assert (first != jitter(image, settings, np.random.default_rng(4))).any()


def test_brightness_multiplies_within_its_range():
    grey = np.full((4, 4, 3), 100, np.uint8)
    settings = AugmentationSettings(brightness=0.4)
    seen = [jitter(grey, settings, np.random.default_rng(s))[0, 0, 0] for s in range(60)]
    assert 60 <= min(seen) < 75 and 125 < max(seen) <= 140


def test_saturation_and_hue_leave_grey_alone():
    grey = np.full((4, 4, 3), 100, np.uint8)
    settings = AugmentationSettings(saturation=0.9, hue=0.4)
    assert (jitter(grey, settings, np.random.default_rng(1)) == 100).all()


def jittered(key, drawn, *pixels):
    """Pixels after one kind of jitter, whose random number is `drawn`."""
    image = np.array([pixels], np.uint8)
    return jitter(image, AugmentationSettings(**{key: 0.5}), Script(drawn))[0].tolist()


def test_each_kind_of_jitter_by_hand():
    assert jittered("brightness", 0.5, (200, 100, 10)) == [[100, 50, 5]]
    assert jittered("contrast", 0.5, (200, 200, 200), (100, 100, 100)) == [[175] * 3, [125] * 3]
    ((red, green, blue),) = jittered("saturation", 0.0, (200, 100, 10))
    assert red == green == blue and 100 < red < 140
    ((red, green, blue),) = jittered("hue", 1 / 3, (255, 0, 0))
    assert green == 255 and max(red, blue) < 10
    ((red, green, blue),) = jittered("hue", -1 / 3, (255, 0, 0))
    assert blue == 255 and max(red, green) < 10


def test_noise_has_a_deviation_between_zero_and_the_largest():
    grey = np.full((100, 100, 3), 128, np.uint8)
    settings = AugmentationSettings(noise=0.1)
    found = []
    for seed in range(40):
        seen = jitter(grey, settings, np.random.default_rng(seed)).astype(float)
        assert abs(seen.mean() - 128) < 1
        found.append(seen.std() / 255)
    assert max(found) < 0.103 and max(found) > 0.08 and min(found) < 0.02


def test_noise_stays_between_black_and_white():
    white = np.full((50, 50, 3), 255, np.uint8)
    seen = jitter(white, AugmentationSettings(noise=0.5), np.random.default_rng(5))
    assert seen.max() == 255 and (seen == 255).mean() > 0.4
