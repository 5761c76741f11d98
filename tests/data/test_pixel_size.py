"""The size of a pixel, as files of images say it; what programs always write does not count."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from dst_cbc.data.pixel_size import pixel_size

PIXELS = np.zeros((5, 7), np.uint8)


def tiff(path, pixels=PIXELS, **options):
    tifffile.imwrite(path / "a.tif", pixels, photometric="minisblack", **options)
    return path / "a.tif"


def ome(width, height, **units):
    said = {"PhysicalSizeX": width, "PhysicalSizeY": height, **units}
    return {"ome": True, "metadata": {"axes": "YX", **said}}


def imagej(unit, *resolution):
    return {"imagej": True, "resolution": resolution, "metadata": {"unit": unit}}


@pytest.mark.parametrize(
    "options, size",
    [
        (ome(0.25, 0.5), (0.25, 0.5)),  # micrometres are OME's default
        (ome(250, 0.5, PhysicalSizeXUnit="nm", PhysicalSizeYUnit="µm"), (0.25, 0.5)),
        (ome(0.4, 0.4, PhysicalSizeXUnit="mm", PhysicalSizeYUnit="mm"), (400, 400)),
        (imagej("micron", 4, 2), (0.25, 0.5)),
        (imagej("um", 4, 4), (0.25, 0.25)),
        (imagej("\\u00B5m", 4, 4), (0.25, 0.25)),
        (imagej("cm", 50, 50), (200, 200)),  # a ruler in a photograph, by Set Scale
        (imagej("inch", 1270, 1270), (20, 20)),
        ({"resolution": (20_000, 40_000), "resolutionunit": "CENTIMETER"}, (0.5, 0.25)),
        ({"resolution": (1270, 1270), "resolutionunit": "INCH"}, (20, 20)),
    ],
)
def test_a_tiff_says_the_size_of_a_pixel(options, size, tmp_path):
    assert pixel_size(tiff(tmp_path, **options)) == pytest.approx(size)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resolution": (72, 72), "resolutionunit": "INCH"},
        {"resolution": (300, 300), "resolutionunit": "INCH"},
        {"resolution": (118.11, 118.11), "resolutionunit": "CENTIMETER"},  # 300 per inch
        {"resolution": (1270, 72), "resolutionunit": "INCH"},
        {"resolution": (20_000, 20_000), "resolutionunit": "NONE"},
        imagej("inch", 72, 72),
        imagej("pixel", 4, 4),
        imagej("micron", 0, 4),
        ome(0, 0.5),
        ome(250, 250, PhysicalSizeXUnit="pixel", PhysicalSizeYUnit="pixel"),
        {
            "description": "<OME><Image><Pixels PhysicalSizeX='0.5' PhysicalSizeY='",
            "metadata": None,
        },
        {"description": "<OME><Image/></OME>", "metadata": None},
    ],
)
def test_a_size_that_is_absent_damaged_or_a_default_of_programs_is_unknown(options, tmp_path):
    path = tiff(tmp_path, **options)
    assert tifffile.imread(path).shape == PIXELS.shape
    assert pixel_size(path) is None


@pytest.mark.parametrize("suffix, dpi, size", [
    ("png", 50_800, (0.5, 0.5)), ("png", 72, None), ("png", 300, None),
    ("jpg", 1270, None), ("bmp", 1270, None),
])  # fmt: skip
def test_a_png_says_it_too_and_formats_of_photographs_do_not(suffix, dpi, size, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / f"a.{suffix}", dpi=(dpi, dpi))
    found = pixel_size(tmp_path / f"a.{suffix}")
    assert found == (pytest.approx(size) if size else None)


def test_the_pages_of_a_stack_have_the_size_of_its_first(tmp_path):
    stack = np.zeros((3, 5, 7), np.uint8)
    path = tiff(tmp_path, stack, imagej=True, resolution=(4, 4), metadata={"unit": "um"})
    assert [pixel_size(path / f"000{page}") for page in (1, 3)] == [(0.25, 0.25)] * 2


def test_a_file_that_has_changed_is_read_again(tmp_path):
    assert pixel_size(tiff(tmp_path, **imagej("um", 4, 4))) == (0.25, 0.25)
    assert pixel_size(tiff(tmp_path, **imagej("micron", 2, 2))) == (0.5, 0.5)
