"""What the values of the user's masks mean: classes, no class, or nothing that can be learnt."""

import numpy as np
import pytest
from PIL import Image

from dst_cbc.own_images import experiment_text, inspection
from dst_cbc.own_images.classes import class_table
from dst_cbc.own_images.draft import Machine, make
from dst_cbc.own_images.inspection import common_folder, with_names
from dst_cbc.runtime.errors import DataError

BLACK, RED, BLUE, GREEN = (0, 0, 0), (200, 0, 0), (0, 0, 200), (0, 200, 0)


def square(values, size=(40, 48)):
    """A mask of zeros with a square of 9 x 9 pixels for each value."""
    mask = np.zeros(size, np.uint8)
    for place, value in enumerate(values):
        y, x = 3 + 18 * (place % 2), 2 + 11 * (place // 2)
        mask[y : y + 9, x : x + 9] = value
    return mask


def indexed(mask, *palette):
    image = Image.fromarray(mask).convert("P")
    image.putpalette([channel for colour in palette for channel in colour])
    return image


def rgb(mask, *colours):
    return Image.fromarray(np.array(colours, np.uint8)[mask])


@pytest.fixture
def looked_at(tmp_path):
    """Function that writes masks, each with an image, and inspects both folders."""

    def look(masks):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir()
        for number, mask in enumerate(masks):
            mask = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
            Image.new("L", mask.size).save(tmp_path / f"images/m{number:02}.png")
            mask.save(tmp_path / f"masks/m{number:02}.png")
        root, settings = common_folder(tmp_path / "images", tmp_path / "masks")
        return inspection.inspect(root, with_names(root, settings))

    return look


def said(found):
    return "\n".join(experiment_text.describe(make("p", found, None, Machine(False, 1, 1))))


# --------------------------------------------------------------------------- palettes


def test_the_palette_s_colours_are_shown_and_become_those_of_the_classes(looked_at):
    found = looked_at([indexed(square([1, 2]), BLACK, RED, BLUE)] * 4)
    assert class_table(found).classes == {
        "background": "#000000", "class 1": "#c80000", "class 2": "#0000c8",
    }  # fmt: skip
    assert "class 'class 2': value 2 (palette: #0000c8)" in said(found)
    assert "contradict" not in said(found)


def test_palettes_that_number_the_same_colours_otherwise_are_read_by_colour(looked_at):
    one, other = indexed(square([1, 2]), BLACK, RED, BLUE), indexed(square([2]), BLACK, BLUE, RED)
    table = class_table(looked_at([one, other] * 3))
    assert table.labels == {
        "#000000": "background", "#0000c8": "colour 0000c8", "#c80000": "colour c80000",
    }  # fmt: skip
    (warning,) = [text for text in table.warnings if "contradict" in text]
    assert "value 2 is #0000c8 in " in warning and "and #c80000 in " in warning
    assert "m00.png" in warning and "m01.png" in warning


@pytest.mark.parametrize(
    "others, colours",
    [
        ([indexed(square([1]), BLACK, GREEN)], 3),
        ([indexed(square([1]), BLACK, BLUE), square([1])], 4),
    ],
)
def test_palettes_that_contradict_each_other_either_way_are_refused(looked_at, others, colours):
    words = (
        rf"value 1 is #c80000 in .*m00\.png, and #00.*m01\.png. By value there are 2 classes, by "
        f"colour {colours}"
    )
    with pytest.raises(DataError, match=words):
        looked_at([indexed(square([1]), BLACK, RED), *others])


def test_indexed_masks_among_rgb_masks_are_read_by_their_palettes(looked_at):
    masks = [rgb(square([1, 2]), BLACK, RED, BLUE), indexed(square([1]), BLACK, BLUE)]
    found = looked_at([*masks, rgb(square([]), BLACK)])
    assert found.pixels == {0: 3 * 40 * 48 - 3 * 81, 0xC80000: 81, 0x0000C8: 2 * 81}


@pytest.mark.parametrize(
    "mask, held",
    [
        (square([1]), r"\(8-bit grey\) holds 0, 1;"),
        (indexed(square([1]), BLACK, GREEN), r"\(palette\) holds 0, 1, shown as #000000, #00c800;"),
    ],
)
def test_masks_of_numbers_among_rgb_masks_are_refused_with_both_meanings(looked_at, mask, held):
    words = rf"m00\.png {held} .*m01\.png \(8-bit RGB\) holds #000000, #c80000"
    with pytest.raises(DataError, match=words):
        looked_at([mask, rgb(square([1]), BLACK, RED)])
