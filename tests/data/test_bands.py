"""`bands` chooses the channels of an image; every channel that is not used is said."""

import re

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dst_cbc.data.images import MOST_PIXELS, decode, open_image
from dst_cbc.data.index import check, window_of
from dst_cbc.data.layouts.layout import Record
from dst_cbc.runtime.errors import DataError
from dst_cbc.settings.data import DatasetStage

RANDOM = np.random.default_rng(0)


def write(path, channels, dtype=np.uint8, **options):
    """Write a TIFF of random channels, by default interleaved and all unspecified."""
    pixels = RANDOM.integers(0, np.iinfo(dtype).max + 1, (6, 9, channels), dtype)
    planar = options.get("planarconfig") == "separate"
    stored = np.moveaxis(pixels, 2, 0) if planar else pixels
    extra = {"extrasamples": ["unspecified"] * (channels - 1)} if channels > 1 else {}
    kind = {"photometric": "minisblack", "planarconfig": "contig", **extra, **options}
    tifffile.imwrite(path, stored if channels > 1 else stored[..., 0], **kind)
    return pixels


def stored(image):
    return np.asarray(image.image) if image.deep is None else image.deep


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "channels, kind",
    [*((n, "minisblack") for n in (2, 3, 4, 5, 64)), *((n, "rgb") for n in (3, 4, 5, 6, 64))],
)
def test_one_or_three_channels_of_a_tiff_are_chosen(channels, kind, dtype, planes, tmp_path):
    extra = {"extrasamples": ["unspecified"] * (channels - (3 if kind == "rgb" else 1))}
    options = {"photometric": kind, "planarconfig": planes, **extra}
    pixels = write(tmp_path / "a.tif", channels, dtype, **options)
    for bands in ((channels,), (channels, 1, 2)):
        chosen = pixels[..., [band - 1 for band in bands]]
        found = decode(tmp_path / "a.tif", bands=bands)
        np.testing.assert_array_equal(stored(found), chosen[..., 0] if len(bands) == 1 else chosen)
        seen = np.asarray(open_image(tmp_path / "a.tif", (0, 65535), bands=bands))
        eight = chosen if dtype == np.uint8 else np.rint(chosen / 257)
        np.testing.assert_array_equal(seen, np.broadcast_to(eight, (6, 9, 3)))


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [5, 6, 7, 64])
def test_more_than_four_channels_need_a_choice(channels, dtype, photometric, tmp_path):
    extra = channels - (3 if photometric == "rgb" else 1)
    kind = {"photometric": photometric, "extrasamples": ["unspecified"] * extra}
    write(tmp_path / "a.tif", channels, dtype, **kind)
    said = rf"a\.tif: {channels} channels, expected at most 4, or a choice .*`bands: \[4, 3, 2\]`"
    with pytest.raises(DataError, match=said):
        decode(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"but `bands` names channel 65|64 channels|channel 60"):
        decode(tmp_path / "a.tif", bands=(60 if channels < 64 else 65,))


def test_an_image_of_more_than_64_channels_is_refused(tmp_path):
    write(tmp_path / "a.tif", 65)
    for bands in (None, (1,)):
        with pytest.raises(DataError, match=r"a\.tif: 65 channels, more than 64"):
            decode(tmp_path / "a.tif", bands=bands)


def test_all_channels_together_are_bounded_before_they_are_read(tmp_path, monkeypatch):
    write(tmp_path / "a.tif", 64)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("read"))
    monkeypatch.setattr("dst_cbc.data.images.MOST_PIXELS", 54)
    with pytest.raises(DataError, match=r"a\.tif: 3456 bytes in 64 channels, more than 432"):
        decode(tmp_path / "a.tif", bands=(1,))
    assert MOST_PIXELS > 54


@pytest.mark.parametrize(
    "mode, bands, expected",
    [
        ("RGB", (3, 2, 1), lambda rgba: rgba[..., 2::-1]),
        ("RGBA", (4,), lambda rgba: rgba[..., 3]),
        ("LA", (2,), lambda rgba: rgba[..., 3]),
        ("L", (1, 1, 1), lambda rgba: rgba[..., [3, 3, 3]]),
    ],
)
def test_channels_of_a_png_are_chosen_alike(mode, bands, expected, tmp_path):
    rgba = RANDOM.integers(0, 256, (5, 7, 4), np.uint8)
    alpha = Image.fromarray(rgba[..., 3])
    made = {"RGB": Image.fromarray(rgba[..., :3]), "RGBA": Image.fromarray(rgba), "L": alpha}
    made["LA"] = Image.merge("LA", (alpha, alpha))
    made[mode].save(tmp_path / "a.png")
    found = decode(tmp_path / "a.png", bands=bands)
    np.testing.assert_array_equal(stored(found), expected(rgba))


def test_a_palette_has_the_channels_of_its_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png")
    found = decode(tmp_path / "a.png", bands=(3, 1, 1))
    assert stored(found).tolist() == [[[30, 10, 10], [60, 40, 40]]]


@pytest.mark.parametrize(
    "channels, options, said",
    [
        (1, {}, ""),
        (3, {"photometric": "rgb", "extrasamples": []}, ""),
        (2, {}, "channel 2 of the image is not used (to use it: `bands: [2]`)"),
        (4, {}, "channel 4 of the image is not used (to use it: `bands: [4, 3, 2]`)"),
        (
            4, {"photometric": "rgb", "extrasamples": ["unspecified"]},
            "channel 4 of the image is not used (to use it: `bands: [4, 3, 2]`)",
        ),
        (
            4, {"photometric": "rgb", "extrasamples": ["unassalpha"]},
            "alpha channel of the image is not used",
        ),
        (2, {"extrasamples": ["unassalpha"]}, "alpha channel of the image is not used"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_channel_that_is_not_used_is_said(channels, options, said, dtype, tmp_path):
    pixels = write(tmp_path / "a.tif", channels, dtype, **options)
    found = decode(tmp_path / "a.tif")
    assert found.unused == said
    shown = stored(found)
    count = 3 if channels > 2 else 1
    np.testing.assert_array_equal(shown.reshape(6, 9, -1)[..., :count], pixels[..., :count])


@given(st.integers(1, 8), st.data())
def test_used_and_unused_channels_add_up(tmp_path_factory, channels, data):
    band = st.integers(1, channels)
    bands = data.draw(st.one_of(st.tuples(band), st.tuples(band, band, band)))
    path = tmp_path_factory.mktemp("bands") / "a.tif"
    write(path, channels)
    unused = decode(path, bands=bands).unused
    found = re.match(rf"(\d+) of {channels} channels of the image are not used", unused)
    assert (int(found[1]) if found else 0) + len(set(bands)) == channels


def test_the_check_counts_what_is_not_used_and_measures_the_chosen_channels(
    tmp_path, folder_dataset, capsys
):
    records = []
    for number, subset in enumerate(("train", "train", "val")):
        Image.fromarray(np.zeros((6, 9), np.uint8)).save(tmp_path / f"{number}m.png")
        pixels = np.full((6, 9, 2), 60000, np.uint16)
        pixels[..., 1] = 1000 * (number + 1)
        tifffile.imwrite(
            tmp_path / f"{number}.tif", pixels, photometric="minisblack", planarconfig="contig"
        )
        records.append(Record(str(number), f"{number}.tif", f"{number}m.png", subset))
    rows = check(tmp_path, records, folder_dataset)
    assert window_of(rows) == (60000, 60001)
    said = "notice: channel 2 of the image is not used (to use it: `bands: [2]`): 3 files\n"
    assert capsys.readouterr().out == said
    rows = check(tmp_path, records, folder_dataset.model_copy(update={"bands": (2,)}))
    assert window_of(rows) == (1000, 2000)
    said = "notice: 1 of 2 channels of the image are not used (`bands`): 3 files\n"
    assert capsys.readouterr().out == said


def test_the_settings_name_one_or_three_channels_and_are_as_before_without(folder_dataset):
    kept = folder_dataset.canonical()
    assert "bands" not in kept
    for bands in ([4], [4, 3, 2], ["DAPI"], ["GFP", 2, "DAPI"]):
        chosen = DatasetStage.model_validate_json(kept).model_copy(update={"bands": tuple(bands)})
        assert DatasetStage.model_validate_json(chosen.canonical()) == chosen
    for wrong in ([], [1, 2], [1, 2, 3, 4], [0], [65], [" "], ["a\nb"]):
        with pytest.raises(ValueError, match=r"one channel \(grey\) or three|greater|less|pattern"):
            DatasetStage.model_validate({**folder_dataset.model_dump(), "bands": wrong})


def test_a_missing_channel_is_named_for_each_image(tmp_path, folder_dataset):
    write(tmp_path / "a.tif", 3)
    dataset = folder_dataset.model_copy(update={"bands": (4, 3, 2)})
    said = r"a\.tif: 3 channels, but `bands` names channel 4; name channels that every image has"
    with pytest.raises(DataError, match=said):
        check(tmp_path, [Record("a", "a.tif", "", "train")], dataset)
