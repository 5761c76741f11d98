import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from dst_cbc.files import DataError
from dst_cbc.images import (
    indexed_png,
    label_lookup,
    open_image,
    open_label,
    palette,
    write_indexed_png,
)

COLOURS = {"sky": "#0000ff", "road": "#808080", "car": "#ff0000"}
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_an_rgb_image_comes_as_its_pixels(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(path, lossless=True)
    np.testing.assert_array_equal(np.asarray(open_image(path)), PIXELS)


def test_grey_palette_and_alpha_become_rgb(tmp_path):
    grey = Image.fromarray(PIXELS[..., 0])
    indexed = grey.copy()
    indexed.putpalette([1, 2, 3] * 256)
    alpha = Image.fromarray(PIXELS).convert("RGBA")
    for name, image in (("grey", grey), ("indexed", indexed), ("alpha", alpha)):
        image.save(tmp_path / f"{name}.png")
        assert open_image(tmp_path / f"{name}.png").mode == "RGB"
    np.testing.assert_array_equal(
        np.asarray(open_image(tmp_path / "grey.png")), PIXELS[..., :1].repeat(3, 2)
    )
    assert (np.asarray(open_image(tmp_path / "indexed.png")) == (1, 2, 3)).all()
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "alpha.png")), PIXELS)


@pytest.mark.parametrize("mode", ["I;16", "F", "CMYK", "1"])
def test_an_image_of_another_depth_is_refused_by_name_and_mode(mode, tmp_path):
    path = tmp_path / "a.tif"
    Image.new(mode, (4, 4)).save(path)
    with pytest.raises(DataError, match=r"a\.tif: image of mode"):
        open_image(path)


def test_a_missing_file_is_named(tmp_path, folder_dataset):
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        open_image(tmp_path / "none.png")
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        open_label(tmp_path / "none.png", label_lookup(folder_dataset))


def test_a_folder_in_place_of_an_image_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be decoded"):
        open_image(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_refused(content, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
        open_image(path)


def encoded(suffix):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, {"jpg": "JPEG"}.get(suffix, suffix.upper()))
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_an_image_cut_off_anywhere_is_refused_or_whole(suffix, tmp_path):
    content, path = encoded(suffix), tmp_path / f"a.{suffix}"
    for length in range(0, len(content) - 20, max(1, len(content) // 60)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=rf"a\.{suffix}: cannot be decoded"):
            open_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
@given(position=st.floats(0, 1), value=st.binary(min_size=1, max_size=4))
def test_a_damaged_image_is_decoded_or_refused_and_nothing_else(
    tmp_path_factory, suffix, position, value
):
    content = bytearray(encoded(suffix))
    start = int(position * (len(content) - len(value)))
    content[start : start + len(value)] = value
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    path.write_bytes(content)
    try:
        open_image(path)
    except DataError as error:
        assert path.name in str(error)


def test_a_mask_comes_as_class_numbers(tmp_path, folder_dataset):
    dataset = folder_dataset.model_copy(
        update={"labels": {0: "road", 7: "sky", 9: "sky"}, "ignore": (3, 255)}
    )
    Image.fromarray(np.array([[0, 7, 9, 3, 255]], np.uint8)).save(tmp_path / "m.png")
    label = open_label(tmp_path / "m.png", label_lookup(dataset))
    assert label.mode == "L"
    np.testing.assert_array_equal(np.asarray(label), [[1, 0, 0, 255, 255]])


def test_a_mask_with_a_palette_is_read_by_its_indexes(tmp_path, folder_dataset):
    mask = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    mask.putpalette([9, 9, 9] * 256)
    mask.save(tmp_path / "m.png")
    label = open_label(tmp_path / "m.png", label_lookup(folder_dataset))
    np.testing.assert_array_equal(np.asarray(label), [[0, 1, 2]])


def test_a_mask_value_without_a_class_is_refused_with_every_such_value(tmp_path, folder_dataset):
    Image.fromarray(np.array([[0, 9, 1, 4, 9]], np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png: mask values \[4, 9\] are neither"):
        open_label(tmp_path / "m.png", label_lookup(folder_dataset))


@pytest.mark.parametrize("shape, dtype", [((4, 4, 3), np.uint8), ((4, 4), np.uint16)])
def test_a_mask_of_colours_or_16_bits_is_refused(shape, dtype, tmp_path, folder_dataset):
    Image.fromarray(np.zeros(shape, dtype)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png: mask of mode"):
        open_label(tmp_path / "m.png", label_lookup(folder_dataset))


def test_the_lookup_knows_classes_ignored_and_unknown_values(folder_dataset):
    lookup = label_lookup(folder_dataset)
    assert lookup.shape == (256,) and lookup[:3].tolist() == [0, 1, 2]
    assert lookup[255] == 255 and (lookup[3:255] == -1).all()


def test_255_is_a_class_where_the_experiment_says_so(folder_dataset):
    dataset = folder_dataset.model_copy(update={"labels": {0: "sky", 255: "car"}, "ignore": ()})
    lookup = label_lookup(dataset)
    assert lookup[255] == 2 and lookup[1] == -1


def test_the_palette_has_the_colours_in_order_and_white_for_ignored():
    table = palette(list(COLOURS.values()))
    assert len(table) == 768
    assert table[:9] == [0, 0, 255, 128, 128, 128, 255, 0, 0]
    assert table[-3:] == [255, 255, 255] and not any(table[9:-3])


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_an_indexed_png_gives_back_its_numbers(classes):
    png = indexed_png(classes, palette(list(COLOURS.values())))
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.mode) == ("PNG", "P")
    np.testing.assert_array_equal(np.asarray(image), classes)


def test_an_indexed_png_of_a_part_of_an_array_is_that_part(tmp_path):
    classes = np.arange(60, dtype=np.uint8).reshape(6, 10)
    write_indexed_png(tmp_path / "a.png", classes[::2, 1::3], COLOURS)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), classes[::2, 1::3])
