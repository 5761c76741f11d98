"""What the values of the user's masks mean: classes, no class, or nothing that can be learnt."""

import io
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dst_cbc.own_images import experiment_text, inspection
from dst_cbc.own_images.class_list import read_class_list
from dst_cbc.own_images.classes import class_table
from dst_cbc.own_images.draft import Machine, make
from dst_cbc.own_images.inspection import common_folder, with_names
from dst_cbc.own_images.mask_shapes import Shapes, measured
from dst_cbc.own_images.mask_values import MaskSeen
from dst_cbc.runtime.errors import DataError
from dst_cbc.settings.data import PairSettings

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

    def look(masks, listed=None):
        for folder in ("images", "masks"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
            (tmp_path / folder).mkdir()
        for number, mask in enumerate(masks):
            mask = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
            Image.new("L", mask.size, number).save(tmp_path / f"images/m{number:02}.png")
            mask.save(tmp_path / f"masks/m{number:02}.png")
        root, settings = common_folder(tmp_path / "images", tmp_path / "masks")
        return inspection.inspect(root, with_names(root, settings), 1, listed)

    return look


def of_masks(*masks):
    """An inspection of masks of numbers that no file holds."""
    seen = []
    for mask in masks:
        counts = zip(*(part.tolist() for part in np.unique(mask, return_counts=True)), strict=True)
        shapes = measured(mask, False)
        seen.append(MaskSeen("a mask", "8-bit grey", dict(counts), False, {}, shapes))
    pairs = [(f"i{n}", f"i{n}.png", "m.png") for n in range(len(masks))]
    pixels = sum((Counter(one.pixels) for one in seen), Counter())
    images = sum((Counter({*one.pixels}) for one in seen), Counter())
    return inspection.Inspection(
        Path(), PairSettings(labels="m"), pairs, pixels, images, False, {},
        Counter({(48, 40): len(masks)}), Counter({"8-bit grey": len(masks)}), Counter(), (), seen,
    )  # fmt: skip


def resized(mask, factor, filter=Image.Resampling.BILINEAR):
    image = Image.fromarray(mask)
    return np.array(image.resize([round(side * factor) for side in image.size], filter))


def through_jpeg(mask):
    content = io.BytesIO()
    Image.fromarray(mask).save(content, "JPEG", quality=85)
    return np.array(Image.open(content))


def proposal(found, listed=None):
    pairs = found.pairs + [(f"more{n}", "i", "m") for n in range(4)]
    return make("p", replace(found, pairs=pairs), None, Machine(False, 1, 1), listed)


def said(found):
    return "\n".join(experiment_text.describe(proposal(found)))


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


# --------------------------------------------------------------------------- smoothing


def scenes(seed, large, small):
    """Six masks of discs and rectangles of some values; half of them have one small square."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :128]
    masks = []
    for number in range(6):
        mask = np.zeros((96, 128), np.uint8)
        for value in [*rng.choice(large, 5), *large]:
            centre, radius = rng.uniform(0, (96, 128)), rng.uniform(9, 20)
            down, right = abs(y - centre[0]), abs(x - centre[1])
            disc = down**2 + right**2 <= radius**2
            mask[disc if rng.random() < 0.5 else (down <= radius) & (right <= 0.7 * radius)] = value
        if number % 2:
            top, left = rng.integers(0, (80, 112))
            mask[top : top + 14, left : left + 14] = small
        masks.append(mask)
    return masks


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([10, 20, 254]).flatmap(
        lambda most: st.lists(st.integers(1, most), min_size=2, max_size=5, unique=True)
    ),
    st.sampled_from([None, 0.5, 0.7, 2, 3]),
)
def test_the_classes_are_those_that_were_drawn_smoothed_or_not(seed, values, factor):
    masks = scenes(seed, values[1:], values[0])
    drawn = {value for mask in masks for value in np.unique(mask).tolist()}
    found = of_masks(*(resized(mask, factor) if factor else mask for mask in masks))
    table = class_table(found)
    assert {*table.labels} == drawn
    assert {*found.pixels} <= drawn | {*table.ignore}
    if not factor:
        assert table.ignore == [] and "smoothed" not in str(table.warnings)


def test_places_of_values_counted_by_hand():
    sharp, smooth = np.uint8([[0, 0, 0, 9, 9, 9]] * 4), np.uint8([[0, 0, 0, 5, 9, 9, 9]] * 4)
    assert measured(sharp, False) == Shapes({0: 12, 9: 12}, {}, 4, 0)
    assert measured(smooth, False) == Shapes({0: 12, 9: 12}, {5: 4}, 0, 4)
    assert measured(smooth.astype(np.int32) << 16, True).between == {5 << 16: 4}
    assert measured(smooth // 5, False) == Shapes({0: 12, 1: 16}, {}, 0, 0, numbered=1)


def test_no_value_is_ignored_because_it_is_rare():
    dots = np.zeros((60, 60), np.uint8)
    dots[20:50, 20:50] = 40
    for value in range(1, 21):
        dots[3 + 7 * (value % 2) :, 2 * value :][:2, :1] = value
    table = class_table(of_masks(dots, dots))
    assert [*table.labels] == [0, *range(1, 21), 40] and table.ignore == []


def test_thin_classes_between_others_at_some_edges_stay_classes():
    mask = np.repeat(np.uint8([0, 9] * 5), 8)[None].repeat(40, 0)
    mask[:, 7], mask[:, 23] = 4, 5
    table = class_table(of_masks(mask))
    assert [*table.labels] == [0, 4, 5, 9] and "smoothed" not in str(table.warnings)


def test_smooth_edges_are_warned_of_and_ignored_with_all_values_that_others_may_have():
    table = class_table(of_masks(*(resized(mask, 0.6) for mask in scenes(0, [200], 200))))
    assert [*table.labels] == [0, 200]
    assert table.ignore == [value for value in range(256) if value not in (0, 200)]
    (warning,) = [text for text in table.warnings if "smoothed" in text]
    assert "besides 0, 200 they hold" in warning and "`ignore`" in warning
    assert "nearest neighbour" in warning and "by chance" not in warning


def test_masks_that_were_jpeg_have_the_two_classes_of_before():
    table = class_table(of_masks(*(through_jpeg(mask) for mask in scenes(0, [255], 255))))
    assert [*table.labels] == [0, 255] and "smoothed" in str(table.warnings)


def test_smoothed_lines_of_which_no_pixel_is_sure_are_refused():
    lines = np.zeros((80, 80), np.uint8)
    for left in range(5, 70, 11):
        lines[np.arange(3, 77), left + np.arange(74) // 15] = 255
    with pytest.raises(DataError, match=r"smoothed .*: only 0 fill areas, and \d+ values.*> 127"):
        class_table(of_masks(resized(lines, 0.93), resized(lines, 1.12)))


def test_numbers_that_were_resized_smoothly_get_the_same_warning():
    masks = scenes(1, [1, 2], 2)
    assert "smoothed" not in str(class_table(of_masks(*masks)).warnings)
    for factor in (0.5, 2):
        table = class_table(of_masks(*(resized(mask, factor) for mask in masks)))
        assert [*table.labels] == [0, 1, 2] and table.ignore == []
        (warning,) = [text for text in table.warnings if "smoothed" in text]
        assert "% of the pixels lie on edges between lower and higher values" in warning


def test_a_drawn_outline_stays_a_class_and_is_warned_of():
    y, x = np.mgrid[:60, :60]
    distance = np.hypot(y - 30, x - 30)
    mask = np.uint8(distance < 20) + np.uint8(distance < 18)
    table = class_table(of_masks(mask, mask))
    assert [*table.labels] == [0, 1, 2] and table.ignore == []
    assert "value 1 lies only in lines of 1 or 2 pixels" in str(table.warnings)


def test_colours_with_smooth_edges_are_told_from_the_classes(looked_at):
    def smooth(mask):
        image = rgb(mask, BLACK, (230, 25, 75), (60, 180, 75))
        return image.resize((64, 48), Image.Resampling.LANCZOS)

    masks = [mask // 2 for mask in scenes(2, [2, 4], 4)]
    table = class_table(looked_at(map(smooth, masks)))
    assert [*table.labels] == ["#000000", "#3cb44b", "#e6194b"]
    assert len(table.ignore) > 16 and "#000000" not in table.ignore


def test_more_smoothed_colours_than_a_file_can_list_are_refused():
    mask = np.zeros((160, 1200), np.uint16)
    mask[80:] = 5000
    mask[80] = 300 + np.arange(1200) * 7 % 1200
    with pytest.raises(DataError, match=r"only 0, 5000 fill areas, and 1200 values lie on edges"):
        class_table(of_masks(mask))


# --------------------------------------------------------------------------- 255


def bordered(value, width):
    """A mask with a square of a value in a border of 255."""
    mask = np.zeros((60, 60), np.uint8)
    mask[20 - width : 40 + width, 20 - width : 40 + width] = 255
    mask[20:40, 20:40] = value
    return mask


IGNORE, KEEP = "write `255: NAME` under `labels`", "write `ignore: [255]`"
FOREGROUND = {0: "background", 255: "foreground"}


@pytest.mark.parametrize(
    "masks, labels, words",
    [
        ([square([255])] * 3, FOREGROUND, ("3 of 3 masks", "in areas", KEEP)),
        (
            [square([1]), square([255]), square([])],
            {0: "background", 1: "foreground", 255: "foreground"},
            ("no mask holds both 1 and 255", "1 of 3 masks", KEEP),
        ),
        (
            [square([128, 255])] * 3,
            {0: "background", 128: "class 128", 255: "class 255"},
            ("like the other greys", KEEP),
        ),
        (
            [square([85, 255]), bordered(85, 2)] * 2,
            {0: "background", 85: "class 85", 255: "class 255"},
            ("greys of 2 bits", KEEP),
        ),
        (
            [square(range(15 * n, 15 * n + 90, 15)) for n in (1, 7, 12)],
            {0: "background"} | {15 * n: f"class {15 * n}" for n in range(1, 18)},
            ("like the other greys", KEEP),
        ),
        (
            [square([255])] * 3 + [square([255, 7])],
            {0: "background", 7: "class 7", 255: "class 255"},
            ("the only object in most masks", "4 of 4 masks", KEEP),
        ),
        (
            [bordered(100, 5)] * 3,
            {0: "background", 100: "foreground"},
            ("in borders of at most 6 pixels around objects", "13.89%", IGNORE),
        ),
        (
            [square([1, 2, 255, 255]), square([1, 255])] * 3,
            {0: "background", 1: "class 1", 2: "class 2"},
            ("in areas, not in borders", "beside small numbers", IGNORE),
        ),
        (
            [bordered(1, 5), square([1, 1, 1, 1, 255, 255, 255])] * 2,
            {0: "background", 1: "foreground"},
            ("in areas (67% of it in borders", IGNORE),
        ),
    ],
)  # fmt: skip
def test_255_is_never_read_without_a_warning(masks, labels, words):
    table = class_table(of_masks(*masks))
    assert table.labels == labels
    assert table.ignore == ([] if 255 in labels else [255])
    (warning,) = [text for text in table.warnings if text.startswith("value 255: ")]
    for part in words:
        assert part in warning
    assert table.classes == dict.fromkeys(labels.values()) | table.classes


def test_255_between_larger_numbers_and_among_colours_is_a_value_like_any_other(looked_at):
    deep = square([1, 2]).astype(np.uint16) * 255
    table = class_table(of_masks(deep, deep))
    assert [*table.labels] == [0, 255, 510] and "255:" not in str(table.warnings)
    found = looked_at([rgb(square([1]), BLACK, (0, 0, 255))])
    assert "255:" not in str(class_table(found).warnings)


def test_the_experiment_file_says_what_was_chosen_above_the_labels(looked_at):
    proposed = proposal(looked_at([square([255])] * 6))
    text = experiment_text.text(proposed, "data", "a command")
    comment = text[text.index("# value 255: ") : text.index("\nlabels:")]
    assert "delete the line `255:" in comment and "`ignore: [255]`" in comment
    assert all(line.startswith("# ") and len(line) <= 100 for line in comment.splitlines())
    assert yaml.safe_load(text)["labels"] == {0: "background", 255: "foreground"}


# --------------------------------------------------------------------------- objects, many classes


def test_values_that_number_objects_are_refused_with_what_to_export(looked_at):
    masks = [square(range(1, 1 + count)) for count in (2, 5, 0, 3, 7)]
    words = r"2 in .*m00\.png and 7 in .*m04\.png\. Export masks of classes: .*> 0"
    with pytest.raises(DataError, match=words):
        class_table(looked_at(masks))


@pytest.mark.parametrize(
    "counted",
    [
        [(1, 2, 3, 4, 5)] * 3 + [(1, 2, 3, 4)],
        [(1, 2), (1, 2, 3, 4), (2, 3), (1, 3, 4), (1, 2, 3)],
        [(1, 2, 1, 2), (1, 2, 3, 1, 2, 3), (1, 1), (1, 2, 3, 4, 4, 3, 2, 1)],
    ],
)
def test_classes_of_one_piece_or_in_all_masks_are_not_taken_for_objects(counted):
    table = class_table(of_masks(*map(square, counted)))
    assert [*table.labels] == [0, *range(1, 1 + max(map(max, counted)))]


@pytest.fixture
def listed(tmp_path):
    """Function that writes a file of classes and reads it."""

    def read(text):
        (tmp_path / "classes.txt").write_text(text)
        return read_class_list(tmp_path / "classes.txt")

    return read


def test_a_hundred_and_fifty_classes_are_ordinary_when_they_are_listed(listed):
    rows = np.repeat(np.arange(151, dtype=np.uint8), 40).reshape(151, 40)
    found = of_masks(rows, rows, rows)
    with pytest.raises(DataError, match=r"151 different values.*--classes FILE"):
        class_table(found)
    text = "".join(f"{value} thing {value}\n" for value in range(1, 151)) + "0 ignore\n"
    table = class_table(found, listed(text))
    assert table.labels == {value: f"thing {value}" for value in range(1, 151)}
    assert [*table.classes] == [*table.labels.values()] and table.ignore == [0]
    assert table.warnings == []
    assert "120 more values" in str(experiment_text.describe(proposal(found, listed(text))))


def test_a_list_may_have_a_title_either_order_and_several_values_of_a_class(listed):
    text = "Pixel Value, Class\n0, background\n\nroad 7\n8: road\n9\ttraffic light 2\n"
    assert listed(text).names == {0: "background", 7: "road", 8: "road", 9: "traffic light 2"}
    colours = listed("#000000 background\n#C80000 red car\n")
    assert colours.coloured and colours.names == {0: "background", 0xC80000: "red car"}


@pytest.mark.parametrize(
    "text, words",
    [
        ("0 a\nb\n", r"classes\.txt, line 2: found 'b'; expected one line for each mask value"),
        ("0 a\n1 b\n" + 300 * "," + "7", "line 3: found ',,,"),
        ("0 a\n1 b\n0 c\n", "line 3: value 0 has a line already"),
        ("0 a\n1 b;c\n", "line 2: found value '1' and name 'b;c'; expected a number of 0 to 65535"),
        ("0 a\n70000 b\n", "line 2: found value '70000' and name 'b'"),
        ("0 a\n#ff0000 b\n", "numbers and colours; expected"),
        ("0 a\n1 a\n255 ignore\n", "lists 1 classes; expected 2 to 255"),
    ],
)
def test_a_line_that_is_no_value_and_name_is_named(listed, text, words):
    with pytest.raises(DataError, match=words):
        listed(text)


def test_a_list_must_have_every_value_and_classes_without_pixels_are_named(listed):
    found = of_masks(*[square([1, 2])] * 3)
    with pytest.raises(DataError, match=r"classes\.txt: has no line for 2, 4\.22% of the pixels"):
        class_table(found, listed("0 a\n1 b\n"))
    table = class_table(found, listed("0 a\n1 b\n2 c\n3 d\n"))
    assert table.labels[3] == "d" and table.warnings == ["1 listed classes are in no mask: 'd'"]


def test_a_list_decides_between_numbers_and_colours(looked_at, listed):
    masks = [indexed(square([1]), BLACK, RED), indexed(square([1]), BLACK, GREEN)]
    names = listed("#000000 a\n#c80000 b\n#00c800 c\n")
    assert looked_at(masks, names).pixels == {0: 2 * 40 * 48 - 162, 0xC80000: 81, 0x00C800: 81}
    assert looked_at(masks, listed("0 a\n1 b\n")).pixels[1] == 162
    with pytest.raises(DataError, match=r"classes\.txt: lists numbers, but 1 masks hold colours"):
        looked_at([rgb(square([1]), BLACK, RED)], listed("0 a\n1 b\n"))
    with pytest.raises(DataError, match=r"no such file; expected one line for each mask value"):
        read_class_list(Path("nowhere.txt"))
