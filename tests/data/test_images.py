import io
import os
import struct
import zlib
from functools import partial

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import EpsImagePlugin, ExifTags, Image, ImageOps, TiffImagePlugin

from damage import flip
from dst_cbc.data import images
from dst_cbc.data.images import (
    MOST_PIXELS,
    decode,
    decode_mask,
    measured_window,
    open_image,
    size_of,
)
from dst_cbc.data.layouts.voc import CLASSES as VOC_CLASSES
from dst_cbc.data.masks import (
    indexed_png,
    label_table,
    numbers_of,
    open_label,
    palette,
    read_label,
    write_indexed_png,
)
from dst_cbc.runtime.errors import Changed, DataError
from dst_cbc.runtime.files import sha256, sha256_file

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


@pytest.mark.parametrize("mode", ["I", "F", "CMYK", "LAB"])
def test_an_image_of_another_kind_is_refused_by_name_and_mode(mode, tmp_path):
    path = tmp_path / "a.tif"
    Image.new(mode, (4, 4)).save(path)
    with pytest.raises(DataError, match=r"a\.tif: image of mode"):
        open_image(path)


def test_a_missing_file_is_named(tmp_path, folder_dataset):
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        open_image(tmp_path / "none.png")
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        open_label(tmp_path / "none.png", label_table(folder_dataset))


DEEP = PIXELS.astype(np.uint16) * 250


@pytest.mark.parametrize("name", ["a.bmp", "a.png", "a.jpg", "deep.png", "deep.tif"])
def test_a_file_with_another_digest_is_refused(name, tmp_path):
    path = tmp_path / name
    if name == "deep.png":
        path.write_bytes(imagecodecs.png_encode(DEEP))
    elif name == "deep.tif":
        tifffile.imwrite(path, DEEP, photometric="rgb")
    else:
        Image.fromarray(PIXELS).save(path)
    before, digest = open_image(path, (0, 65535)).tobytes(), sha256_file(path)
    assert open_image(path, (0, 65535), digest).tobytes() == before
    flip(path)
    with pytest.raises(Changed, match=rf"{name}: has changed since the data check.*{digest[:8]}"):
        open_image(path, (0, 65535), digest)


def test_a_bit_of_a_pixel_changes_the_image_silently_unless_its_digest_is_known(tmp_path):
    path = tmp_path / "a.bmp"
    Image.fromarray(PIXELS[:, :16]).save(path)
    digest = sha256_file(path)
    flip(path)
    assert (np.asarray(open_image(path)) != PIXELS[:, :16]).sum() == 1
    with pytest.raises(Changed):
        open_image(path, None, digest)


def test_a_damaged_or_missing_file_has_changed_if_its_digest_is_known(tmp_path, folder_dataset):
    path, table = tmp_path / "a.png", label_table(folder_dataset)
    digest = sha256(b"as it was at the data check")
    path.write_bytes(b"damaged")
    for read in (partial(open_image, path, None), partial(open_label, path, table)):
        with pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
            read()
        with pytest.raises(Changed, match=r"a\.png: has changed since the data check"):
            read(digest)
    path.unlink()
    with pytest.raises(Changed, match=r"a\.png: no such file"):
        open_image(path, None, digest)


def test_a_file_that_changes_while_it_is_decoded_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.bmp"
    Image.fromarray(PIXELS).save(path)
    digest, exif_transpose = sha256_file(path), ImageOps.exif_transpose

    def transpose(*arguments, **options):
        flip(path)
        return exif_transpose(*arguments, **options)

    monkeypatch.setattr(images.ImageOps, "exif_transpose", transpose)
    with pytest.raises(Changed):
        open_image(path, None, digest)


def test_a_folder_in_place_of_an_image_is_refused(tmp_path):
    with pytest.raises(DataError, match="found a folder, expected a regular file"):
        open_image(tmp_path)


def test_a_pipe_in_place_of_an_image_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (decode, size_of):
        with pytest.raises(DataError, match=r"a\.png: found a pipe"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_refused(content, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
        open_image(path)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
showpage
%%EOF
"""


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.eps"])
def test_no_program_runs_to_decode_a_file(name, tmp_path, monkeypatch):
    """Pillow lets Ghostscript draw an EPS, whatever the name of the file."""
    program = tmp_path / "bin/gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    path = tmp_path / name
    path.write_bytes(EPS)
    for read in (decode, size_of):
        with pytest.raises(DataError, match=rf"{name}: cannot be decoded"):
            read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["GIF", "ICO", "PPM", "TGA", "PCX", "ICNS", "JPEG2000", "DDS"])
def test_a_format_that_is_not_documented_is_refused_under_any_name(kind, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", kind)
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded: damaged, or no PNG"):
        decode(tmp_path / "a.png")


def header_only(path, **tags):
    """A TIFF of some 200 bytes: its header says more than it holds."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    known = {
        "width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262,
        "offsets": 273, "samples": 277, "rows": 278, "counts": 279, "planes": 284,
        "tile_width": 322, "tile_height": 323, "tile_offsets": 324, "tile_counts": 325,
        "format": 339,
    }  # fmt: skip
    found = {"width": 8, "height": 8, "bits": (16,) * 3, "compression": 1, "photometric": 2}
    found |= {"samples": 3, "planes": 1, "offsets": 8, "counts": 64, **tags}
    for name, value in found.items():
        directory[known[name]] = value
    with open(path, "wb") as file:
        file.write(b"II*\0\x08\0\0\0")
        directory.save(file)
    assert path.stat().st_size < 400


TILED = {"tile_offsets": 8, "tile_counts": 64}


@pytest.mark.parametrize(
    "tags, said",
    [
        ({"width": 80000, "height": 80000}, "more than 536870912 pixels"),
        # Pillow does not know this kind, so tifffile is asked.
        ({"width": 80000, "height": 80000, "photometric": 1}, "80000 x 80000 pixels in tiles"),
        (
            {"width": 80000, "height": 80000, "bits": 16, "samples": 1, "photometric": 1},
            "more than",
        ),
        ({"tile_width": 1 << 16, "tile_height": 1 << 16, **TILED}, "8 x 8 pixels in tiles of 4294"),
        ({"samples": 20000, "bits": (16,) * 40}, "20000 channels, more than 64"),
        ({"bits": (32,) * 3, "format": (3,) * 3}, "cannot be decoded|float32 pixels"),
    ],
)
def test_a_size_beyond_the_limit_is_refused_by_the_header(tags, said, tmp_path, monkeypatch):
    header_only(tmp_path / "a.tif", **tags)

    def never(*arguments, **options):
        raise SystemExit("asked for pixels")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", never)
    with pytest.raises(DataError, match=rf"a\.tif: .*({said})"):
        decode(tmp_path / "a.tif")


def test_a_compressed_bmp_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    """A kilobyte of it may hold 2^27 pixels, over which Pillow's decoder takes a minute."""
    header = struct.pack("<IiiHHIIiiII", 40, 1 << 14, 4, 1, 8, 1, 6, 0, 0, 2, 0)
    palette = bytes(8)
    start = 14 + len(header) + len(palette)
    content = b"BM" + struct.pack("<IHHI", start + 6, 0, 0, start) + header + palette
    (tmp_path / "a.bmp").write_bytes(content + b"\x01\x01\0\0\0\1")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"a\.bmp: a compressed BMP; write it without"):
        decode(tmp_path / "a.bmp")


def test_a_png_beyond_the_limit_is_refused_by_its_header(tmp_path):
    Image.new("1", (8, 8)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = struct.pack(">II", 1 << 15, MOST_PIXELS // (1 << 15) + 1)
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content)
    for read in (decode, size_of):
        with pytest.raises(
            DataError, match=rf"a\.png: more than {MOST_PIXELS} .*raise MOST_PIXELS in"
        ):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("error", [struct.error, IndexError, ZeroDivisionError, AssertionError])
def test_a_decoder_that_breaks_names_the_file(error, tmp_path, monkeypatch):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")

    def breaks(*arguments, **options):
        raise error

    monkeypatch.setattr(Image.Image, "load", breaks)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", breaks)
    with pytest.raises(DataError, match=rf"a\.png: cannot be decoded \({error.__name__}|error"):
        decode(tmp_path / "a.png")


def encoded(suffix):
    buffer = io.BytesIO()
    if suffix == "deep.png":
        return imagecodecs.png_encode(PIXELS.astype(np.uint16) * 257)
    if suffix.endswith("tif"):
        deep = PIXELS.astype(np.uint16 if suffix == "deep.tif" else np.uint8)
        tifffile.imwrite(buffer, deep, photometric="rgb", compression="zstd")
        return buffer.getvalue()
    Image.fromarray(PIXELS).save(buffer, {"jpg": "JPEG"}.get(suffix, suffix.upper()))
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "deep.png", "deep.tif", "tif"])
def test_an_image_cut_off_anywhere_is_refused_or_whole(suffix, tmp_path):
    content, path = encoded(suffix), tmp_path / f"a.{suffix}"
    for length in range(0, len(content) - 20, max(1, len(content) // 60)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=rf"a\.{suffix}: "):
            open_image(path, (0, 65535))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "deep.png", "deep.tif", "tif"])
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
        open_image(path, (0, 65535))
    except DataError as error:
        assert path.name in str(error)


def test_a_mask_comes_as_class_numbers(tmp_path, folder_dataset):
    dataset = folder_dataset.model_copy(
        update={"labels": {0: "road", 7: "sky", 9: "sky"}, "ignore": (3, 255)}
    )
    Image.fromarray(np.array([[0, 7, 9, 3, 255]], np.uint8)).save(tmp_path / "m.png")
    label = open_label(tmp_path / "m.png", label_table(dataset))
    assert label.mode == "L"
    np.testing.assert_array_equal(np.asarray(label), [[1, 0, 0, 255, 255]])


def test_a_mask_with_a_palette_is_read_by_its_indexes(tmp_path, folder_dataset):
    mask = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    mask.putpalette([9, 9, 9] * 256)
    mask.save(tmp_path / "m.png")
    label = open_label(tmp_path / "m.png", label_table(folder_dataset))
    np.testing.assert_array_equal(np.asarray(label), [[0, 1, 2]])


def test_a_mask_value_without_a_class_is_refused_with_every_such_value(tmp_path, folder_dataset):
    Image.fromarray(np.array([[0, 9, 1, 4, 9]], np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png: mask values \[4, 9\] are neither"):
        open_label(tmp_path / "m.png", label_table(folder_dataset))


def test_a_mask_of_16_bits_is_read_by_its_values(tmp_path, folder_dataset):
    dataset = folder_dataset.model_copy(update={"labels": {0: "road", 1000: "car"}})
    for name in ("m.png", "m.tif"):
        Image.fromarray(np.array([[0, 1000, 255]], np.uint16)).save(tmp_path / name)
        label = open_label(tmp_path / name, label_table(dataset))
        np.testing.assert_array_equal(np.asarray(label), [[1, 2, 255]])


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "LA"])
def test_a_mask_of_black_and_white_is_0_and_255_however_it_is_stored(
    mode, tmp_path, folder_dataset
):
    dataset = folder_dataset.model_copy(update={"labels": {0: "sky", 255: "car"}, "ignore": ()})
    Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert(mode).save(tmp_path / "m.png")
    label = open_label(tmp_path / "m.png", label_table(dataset))
    np.testing.assert_array_equal(np.asarray(label), [[0, 2, 2]])


def coloured(dataset):
    labels = {"#ff0000": "car", "#0000ff": "sky", "#0a0b0c": "sky", "#000000": "road"}
    return dataset.model_copy(update={"labels": labels, "ignore": ("#ffffff",)})


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "P"])
def test_a_mask_of_colours_is_read_by_the_colours_under_labels(kind, tmp_path, folder_dataset):
    colours = [(255, 0, 0), (0, 0, 255), (10, 11, 12), (0, 0, 0), (255, 255, 255)]
    mask = Image.fromarray(np.array([colours], np.uint8))
    mask = mask.quantize(8) if kind == "P" else mask.convert(kind)
    mask.save(tmp_path / "m.png")
    assert Image.open(tmp_path / "m.png").mode == kind
    label = open_label(tmp_path / "m.png", label_table(coloured(folder_dataset)))
    np.testing.assert_array_equal(np.asarray(label), [[2, 0, 0, 1, 255]])


def test_a_colour_without_a_class_is_refused_by_its_name(tmp_path, folder_dataset):
    pixels = np.array([[(255, 0, 0), (1, 2, 3), (255, 255, 254)]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png: mask values \['#010203', '#fffffe'\] are nei"):
        open_label(tmp_path / "m.png", label_table(coloured(folder_dataset)))


def test_colours_and_numbers_are_not_taken_for_each_other(tmp_path, folder_dataset):
    Image.fromarray(np.array([[(255, 0, 0)]], np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(DataError, match=r"rgb\.png: a mask of colours, but `labels` names numbers"):
        open_label(tmp_path / "rgb.png", label_table(folder_dataset))
    Image.fromarray(np.zeros((1, 1), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png: a 16-bit mask, but `labels` names colours"):
        open_label(tmp_path / "deep.png", label_table(coloured(folder_dataset)))


def test_a_mask_of_colours_under_numbers_is_refused_with_its_colours_and_what_to_set(
    tmp_path, folder_dataset
):
    pixels = np.array([[(255, 0, 0), (0, 0, 255)]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    reason = r"m\.png: a mask of colours.*found \['#0000ff', '#ff0000'\]; get masks of numbers, or "
    with pytest.raises(DataError, match=reason + r"list each .*`labels: {'#rrggbb': class}`"):
        open_label(tmp_path / "m.png", label_table(folder_dataset))


@pytest.fixture
def voc_dataset(folder_dataset):
    """Settings of VOC, whose masks are numbers by default."""
    labels = dict(enumerate(VOC_CLASSES))
    changes = {"format": "voc", "classes": VOC_CLASSES, "labels": labels}
    return folder_dataset.model_copy(update=changes)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_vocs_masks_are_read_by_its_colours_where_they_are_no_numbers(mode, tmp_path, voc_dataset):
    # Background, aeroplane, car (which is grey), TV monitor, and the border of an object.
    colours = [(0, 0, 0), (128, 0, 0), (128, 128, 128), (0, 64, 128), (224, 224, 192)]
    for name, pixels in (("all", colours), ("grey", [(0, 0, 0), (128, 128, 128)])):
        Image.fromarray(np.array([pixels], np.uint8)).convert(mode).save(tmp_path / f"{name}.png")
    table = label_table(voc_dataset)
    label, by_colour, _ = read_label(tmp_path / "all.png", table)
    assert np.asarray(label).tolist() == [[0, 1, 7, 20, 255]] and by_colour
    label, by_colour, _ = read_label(tmp_path / "grey.png", table)
    assert np.asarray(label).tolist() == [[0, 7]] and by_colour


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_vocs_masks_of_numbers_are_read_by_them_whatever_their_palette(mode, tmp_path, voc_dataset):
    mask = Image.fromarray(np.array([[0, 1, 20, 255]], np.uint8))
    if mode == "P":
        mask.putpalette(palette(list(VOC_CLASSES.values())))
    (mask if mode == "P" else mask.convert(mode)).save(tmp_path / "m.png")
    assert Image.open(tmp_path / "m.png").mode == mode
    label, by_colour, _ = read_label(tmp_path / "m.png", label_table(voc_dataset))
    assert np.asarray(label).tolist() == [[0, 1, 20, 255]] and not by_colour


def test_a_colour_that_voc_does_not_have_is_named_alone(tmp_path, voc_dataset):
    pixels = np.array([[(128, 0, 0), (224, 224, 192), (1, 2, 3)]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    reason = r"m\.png: a mask of colours.* no class has \['#010203'\]; get masks of numbers"
    with pytest.raises(DataError, match=reason):
        open_label(tmp_path / "m.png", label_table(voc_dataset))


def test_colours_under_labels_are_all_that_counts_also_for_voc(tmp_path, voc_dataset):
    own = {"labels": {"#800000": "cat"}, "ignore": ()}
    Image.fromarray(np.array([[(128, 0, 0)]], np.uint8)).save(tmp_path / "m.png")
    table = label_table(voc_dataset.model_copy(update=own))
    label, by_colour, _ = read_label(tmp_path / "m.png", table)
    assert np.asarray(label).tolist() == [[8]] and not by_colour


def test_the_table_knows_classes_ignored_and_unknown_values(folder_dataset):
    numbers = np.arange(1 << 16)
    classes = label_table(folder_dataset).classes_of(numbers)
    assert classes[:3].tolist() == [0, 1, 2] and classes[255] == 255
    assert (classes[3:255] == -1).all() and (classes[256:] == -1).all()


@given(st.lists(st.integers(0, 255), min_size=1, max_size=20))
def test_values_of_8_bits_are_what_the_same_of_16_are(folder_dataset, values):
    table = label_table(folder_dataset)
    bytes_ = table.classes_of(np.array([values], np.uint8))
    assert bytes_.tolist() == table.classes_of(np.array([values], np.uint16)).tolist()


def test_255_is_a_class_where_the_experiment_says_so(folder_dataset):
    dataset = folder_dataset.model_copy(update={"labels": {0: "sky", 255: "car"}, "ignore": ()})
    assert label_table(dataset).classes_of(np.array([255, 1])).tolist() == [2, -1]


# --------------------------------------------------------------------- 16 bits, TIFF, EXIF, alpha

DEEP = np.random.default_rng(1).integers(0, 1 << 16, (6, 9, 3), np.uint16)


def write_deep(path, pixels, **options):
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))
    else:
        tifffile.imwrite(path, pixels, **options)


RGB = {"photometric": "rgb"}


@pytest.mark.parametrize(
    "name, pixels, options",
    [
        ("grey.png", DEEP[..., 0], {}),
        ("grey.tif", DEEP[..., 0], {}),
        ("grey.tiff", DEEP[..., 0], {"byteorder": ">"}),
        ("packed.tif", DEEP[..., 0], {"compression": "lzw"}),
        ("rgb.png", DEEP, {}),
        ("rgb.tif", DEEP, RGB),
        ("packed-rgb.tif", DEEP, {**RGB, "compression": "zlib"}),
        ("big-endian.tif", DEEP, {**RGB, "byteorder": ">"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_all_16_bits_of_grey_and_rgb_are_read(name, pixels, options, tmp_path):
    write_deep(tmp_path / name, pixels, **options)
    decoded = decode(tmp_path / name)
    assert decoded.deep.dtype == np.uint16 and decoded.size == (9, 6) and not decoded.unused
    np.testing.assert_array_equal(decoded.deep, pixels)


def test_planes_of_a_16_bit_tiff_are_put_together(tmp_path):
    planes = np.ascontiguousarray(DEEP.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "a.tif", planes, **RGB, planarconfig="separate")
    np.testing.assert_array_equal(decode(tmp_path / "a.tif").deep, DEEP)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_alpha_of_16_bits_is_dropped_and_said(name, tmp_path):
    pixels = np.concatenate([DEEP, DEEP[..., :1]], 2)
    write_deep(tmp_path / name, pixels, **RGB, extrasamples=["unassalpha"])
    decoded = decode(tmp_path / name)
    assert decoded.unused == "alpha channel of the image is not used"
    np.testing.assert_array_equal(decoded.deep, DEEP)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd"])
def test_an_8_bit_tiff_is_read_whoever_can(compression, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **RGB, compression=compression)
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "a.tif")), PIXELS)


@pytest.mark.parametrize("planarconfig", ["separate", "contig"])
def test_where_pillow_stops_tifffile_goes_on(planarconfig, tmp_path):
    pixels = PIXELS if planarconfig == "contig" else PIXELS.transpose(2, 0, 1)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric="rgb", planarconfig=planarconfig, bigtiff=True,
        byteorder=">", compression="zstd",
    )  # fmt: skip
    with pytest.raises(OSError):
        Image.open(tmp_path / "a.tif").load()
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "a.tif")), PIXELS)


@pytest.mark.parametrize("compression", ["jpegxl", "lerc", "jpeg2000"])
def test_a_compression_that_holds_an_image_of_its_own_size_is_refused(compression, tmp_path):
    """A decoder of such a stream allocates what the stream says, whatever the header says."""
    deep = DEEP if compression == "jpeg2000" else PIXELS[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", deep, compression=compression)
    with pytest.raises(DataError, match=r"a\.tif: TIFF compression \d+, expected none, LZW"):
        decode(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_that_are_neither_8_nor_16_bits_are_refused(dtype, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS[..., 0].astype(dtype), compression="zstd")
    with pytest.raises(DataError, match=r"a\.tif: .*expected 8-bit or 16-bit grey"):
        decode(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.webp"])
def test_a_file_of_several_images_is_refused(name, tmp_path):
    pages = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"several (pages, 2|frames); expected one image"):
        decode(tmp_path / name)


DEEP_OR_NOT = {"8 bits": PIXELS, "16 bits": DEEP.repeat(4, 0), "grey": PIXELS[..., 0]}


@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
@pytest.mark.parametrize("pixels", DEEP_OR_NOT.values(), ids=DEEP_OR_NOT)
def test_a_tiff_with_its_reduced_copies_and_masks_is_its_first_page(pixels, compression, tmp_path):
    kind = {"photometric": "rgb" if pixels.ndim == 3 else "minisblack", "compression": compression}
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(pixels, **kind, tile=(16, 16))
        for step in (2, 4):
            tiff.write(pixels[::step, ::step], **kind, tile=(16, 16), subfiletype=1)
        inside = np.ones(pixels.shape[:2], bool)
        tiff.write(inside, photometric="mask", subfiletype=4)
        tiff.write(inside[::2, ::2], photometric="mask", subfiletype=5)
    found = decode(tmp_path / "a.tif")
    seen = np.asarray(found.image) if found.deep is None else found.deep
    np.testing.assert_array_equal(seen, pixels)
    assert size_of(tmp_path / "a.tif") == found.size


@pytest.mark.parametrize("kinds", [(0,), (1, 0), (1,) * 33])
def test_other_pages_are_refused_also_behind_a_reduced_copy(kinds, tmp_path):
    for pixels in (PIXELS[..., 0], DEEP[..., :2]):
        with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
            for kind in (0, *kinds):
                planes = {"planarconfig": "contig"} if pixels.ndim == 3 else {}
                tiff.write(
                    pixels, photometric="minisblack", subfiletype=kind, metadata=None, **planes
                )
        said = (
            "more than 32 reduced copies" if len(kinds) > 2 else r"several pages, 2; expected one"
        )
        with pytest.raises(DataError, match=rf"a\.tif: {said}"):
            decode(tmp_path / "a.tif")


def test_a_16_bit_image_is_seen_through_the_window_of_its_data_set(tmp_path):
    values = np.array([[0, 1000, 1510, 2020, 65535]], np.uint16)
    write_deep(tmp_path / "grey.png", values)
    seen = np.asarray(open_image(tmp_path / "grey.png", (1000, 2020)))
    np.testing.assert_array_equal(seen[..., 0], [[0, 0, 128, 255, 255]])
    assert seen.shape == (1, 5, 3) and (seen == seen[..., :1]).all()
    write_deep(tmp_path / "rgb.png", values.reshape(1, 5, 1).repeat(3, 2))
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "rgb.png", (1000, 2020))), seen)
    with pytest.raises(
        DataError, match=r"grey\.png: a 16-bit image, but .*--window BLACK WHITE for"
    ):
        open_image(tmp_path / "grey.png")


def test_the_measured_window_leaves_a_thousandth_of_the_pixels_on_either_side():
    counts = np.zeros(1 << 16, np.int64)
    counts[500:1500] = 100
    assert measured_window(counts) == (500, 1498)
    counts[7] = 101
    assert measured_window(counts) == (7, 1498)


def test_the_window_of_one_single_value_is_one_wide():
    counts = np.zeros(1 << 16, np.int64)
    counts[300] = 5
    assert measured_window(counts) == (300, 301)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_the_size_of_a_tiff_is_in_its_header_whoever_reads_it(
    planes, dtype, channels, tmp_path, monkeypatch
):
    pixels = np.zeros((6, 9, channels) if planes == "contig" else (channels, 6, 9), dtype)
    options = {"planarconfig": planes} if channels > 1 else {}
    if channels == 1:
        pixels = pixels.reshape(6, 9)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", **options)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("read"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("read"))
    assert size_of(tmp_path / "a.tif") == (9, 6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_the_size_of_an_image_is_that_of_the_turned_one(name, orientation, tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(PIXELS).save(tmp_path / name, exif=exif)
    Image.fromarray(PIXELS).save(tmp_path / f"without-{name}")
    size = decode(tmp_path / name).size
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("read"))
    assert size_of(tmp_path / name) == size
    assert size_of(tmp_path / f"without-{name}") == (17, 12)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["8-bit.png", "8-bit.tif", "16-bit.png"])
def test_an_image_is_turned_as_its_exif_orientation_says(name, orientation, tmp_path):
    path = tmp_path / name
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(PIXELS).save(path, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert (expected.shape != PIXELS.shape) == (orientation > 4)
    if name == "16-bit.png":
        # Insert the EXIF block of the 8-bit file into a 16-bit file, before its pixels.
        chunk = path.read_bytes().partition(b"eXIf")
        length = int.from_bytes(chunk[0][-4:])
        block = chunk[0][-4:] + b"eXIf" + chunk[2][: length + 4]
        deep = imagecodecs.png_encode(PIXELS.astype(np.uint16) * 257)
        start = deep.index(b"IDAT") - 4
        path.write_bytes(deep[:start] + block + deep[start:])
        assert decode(path).deep is not None
    np.testing.assert_array_equal(np.asarray(open_image(path, (0, 65535))), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_16_bit_tiff_is_turned_whoever_reads_it(channels, orientation, tmp_path):
    pixels = DEEP[..., :channels]
    kind = (
        {}
        if channels == 1
        else {"photometric": "rgb" if channels == 3 else "minisblack", "planarconfig": "contig"}
    )
    tag = (274, "H", 1, orientation, True)
    tifffile.imwrite(tmp_path / "a.tif", pixels.squeeze(), **kind, extratags=[tag])
    Image.fromarray((pixels[..., 0] >> 8).astype(np.uint8)).save(
        tmp_path / "8.tif", tiffinfo={274: orientation}
    )
    found = decode(tmp_path / "a.tif")
    first = found.deep[..., 0] if channels == 3 else found.deep
    np.testing.assert_array_equal(first >> 8, np.asarray(decode(tmp_path / "8.tif").image))
    assert found.turned == (orientation > 1) and size_of(tmp_path / "a.tif") == found.size


@pytest.mark.parametrize("name", ["8-bit.png", "8-bit.tif", "grey.jpg", "palette.png"])
def test_it_is_said_that_an_image_is_turned(name, tmp_path):
    exif = Image.Exif()
    image = Image.fromarray(PIXELS[..., 0] if "grey" in name else PIXELS)
    image = image.quantize() if "palette" in name else image
    for orientation in (None, 1, 3, 6):
        if orientation:
            exif[ExifTags.Base.Orientation] = orientation
        image.save(tmp_path / name, exif=exif)
        turned = orientation in (3, 6)
        for bands in (None, (1,)):
            found = decode(tmp_path / name, bands=bands)
            assert found.turned == turned
            assert (
                any("turned as its EXIF orientation says" in note for note in found.notes) == turned
            )


@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
@pytest.mark.parametrize("bits", [1, 8, 16])
def test_white_stored_as_0_becomes_white_at_every_depth(bits, compression, tmp_path):
    kind = {1: bool, 8: np.uint8, 16: np.uint16}[bits]
    most = (1 << bits) - 1
    stored = np.array([[0, 1, most - 1, most]]).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite", compression=compression)
    seen = np.asarray(open_image(tmp_path / "a.tif", (0, most)))[..., 0]
    other = 255 - np.rint(255 * (stored.astype(int) / most))
    np.testing.assert_array_equal(seen, other)


def test_a_mask_is_turned_too(tmp_path, folder_dataset):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.array([[0, 1, 2]], np.uint8)).save(tmp_path / "m.png", exif=exif)
    label = open_label(tmp_path / "m.png", label_table(folder_dataset))
    np.testing.assert_array_equal(np.asarray(label), [[0], [1], [2]])


def test_alpha_is_noticed(tmp_path):
    for mode, expected in (("RGBA", True), ("LA", True), ("RGB", False), ("L", False)):
        Image.fromarray(PIXELS).convert(mode).save(tmp_path / "a.png")
        assert decode(tmp_path / "a.png").unused.startswith("alpha") == expected


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


# ------------------------------------------------------------------------- masks of whole numbers


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("dtype", ["i2", "i4", "i8", "u4", "u8", "f2", "f4", "f8", ">i4", ">f8"])
@pytest.mark.parametrize("highest", [2, 100, 300, 65535])
def test_whole_numbers_of_any_type_are_a_mask(highest, dtype, compression, tmp_path):
    kind = np.dtype(dtype)
    most = np.finfo(kind).max if kind.kind == "f" else np.iinfo(kind).max
    # The largest whole number from which on float16 leaves some out.
    if highest > min(most, 2048 if kind.itemsize == 2 and kind.kind == "f" else most):
        return
    numbers = np.array([[0, 1, highest]])
    options = {"byteorder": ">"} if dtype[0] == ">" else {}
    tifffile.imwrite(tmp_path / "m.tif", numbers.astype(kind), compression=compression, **options)
    mask = decode_mask(tmp_path / "m.tif")
    assert numbers_of(mask).tolist() == numbers.tolist()
    assert (mask.deep is None) == (highest < 256)
    with pytest.raises(DataError, match=r"m\.tif: .*(mode|pixels)"):
        open_image(tmp_path / "m.tif", (0, 65535))


def test_a_mask_of_numbers_is_read_by_its_labels_whatever_their_type(tmp_path, folder_dataset):
    for dtype in (np.int32, np.int64, np.float32):
        tifffile.imwrite(tmp_path / "m.tif", np.array([[0, 2, 255]], dtype))
        label = open_label(tmp_path / "m.tif", label_table(folder_dataset))
        assert np.asarray(label).tolist() == [[0, 2, 255]]


@pytest.mark.parametrize(
    "values, said",
    [
        ([0, -1], "a mask with values from -1.* to 0.*, expected whole numbers from 0 to 65535"),
        ([0, 65536], "a mask with values from 0.* to 65536"),
        ([0, 1.5, 2.25], "a mask with the value 1.5, expected whole numbers; write the number"),
        ([0, float("nan")], "a mask with values from nan to nan"),
        ([0, float("inf")], "a mask with values from 0.* to inf"),
    ],
)
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64])
def test_numbers_that_mean_no_class_are_refused(dtype, values, said, tmp_path):
    if np.issubdtype(dtype, np.integer) and any(value % 1 != 0 for value in values):
        return
    tifffile.imwrite(tmp_path / "m.tif", np.array([values], dtype))
    with pytest.raises(DataError, match=rf"m\.tif: {said}"):
        decode_mask(tmp_path / "m.tif")


def test_a_mask_of_many_channels_is_refused_without_advice_about_bands(tmp_path):
    for dtype in (np.uint8, np.float32):
        pixels = np.zeros((4, 6, 5), dtype)
        tifffile.imwrite(
            tmp_path / "m.tif", pixels, photometric="minisblack", planarconfig="contig"
        )
        with pytest.raises(DataError, match=r"m\.tif: 5 channels; expected a mask of one channel"):
            decode_mask(tmp_path / "m.tif")
