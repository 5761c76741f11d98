import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from damage import checked
from dst_cbc.data.index import Row, write_index
from dst_cbc.data.masks import indexed_png, palette
from dst_cbc.report.contact_sheet import COLUMNS, ROWS, choose, contact_sheet, heat, write
from dst_cbc.runtime.errors import DataError
from dst_cbc.self_training.confidence import probabilities
from dst_cbc.self_training.predictions import Prediction, close_part, join_parts, new_part, store
from workflow import SCRIPTS

# Unsorted, so that a position in the list differs from the position among the sorted ids.
IDS = ["town/c", "a", "b"]
SKY, ROAD, CAR, WHITE, GREY = (0, 0, 255), (128, 128, 128), (255, 0, 0), (255,) * 3, (160,) * 3
COLOURS = {0: SKY, 1: ROAD, 2: CAR, 255: WHITE}
LEVELS = [0, 33000, 40000, 65535]


def quadrants(values, height=20, width=40):
    """Four values, one per quarter, so that a flipped or rotated image is noticed."""
    grid = np.array(values).reshape(2, 2, *np.shape(values)[1:])
    return grid.repeat(height // 2, 0).repeat(width // 2, 1)


def quarters(sheet, line, column, side=(240, 120)):
    """The colours at the centers of the four quarters of a tile of the sheet."""
    width, height = side
    left = 10 + column * (240 + 10)
    top = 10 + 2 * 20 + line * (20 + height + 10) + 20
    middles = [(1, 1), (3, 1), (1, 3), (3, 3)]
    return [sheet.getpixel((left + x * width // 4, top + y * height // 4)) for x, y in middles]


class Round:
    """A made-up round of three images; the values of image n of IDS are rolled by n."""

    def __init__(self, folder, dataset):
        self.folder, self.dataset = folder, dataset
        self.labels = folder / "12_0/dst-cbc/round3/pseudo_labels"
        self.predictions = folder / "predictions.h5"
        self.rows = []
        with new_part(folder, 0) as file:
            for n, id in enumerate(IDS):
                self.add(n, id, file)
        self.rows = checked(folder, self.rows)
        close_part(folder, 0, np.zeros((3, 65536), np.int64))
        join_parts(folder, 1, self.predictions, {})

    def add(self, n, id, file):
        row = Row(id, f"images/{id}.png", f"masks/{id}.png", 20, 40, "train", "", "")
        self.rows.append(row)
        self.write(row.image, quadrants(self.pixels(n)))
        self.write(row.label, quadrants(self.classes(n)))
        content = indexed_png(quadrants(self.labeled(n)), palette(["#000000"] * 3))
        path = self.labels / f"{id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        store(
            file,
            [
                Prediction(
                    n,
                    id,
                    quadrants(self.predicted(n)).astype(np.uint8),
                    quadrants(np.roll(LEVELS, n)).astype(np.uint16),
                )
            ],
        )

    def write(self, name, values):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(values, np.uint8)).save(path)

    def pixels(self, n):
        return [[n, 10, 20], [30, n, 40], [50, 60, n], [70, 80, 90 + n]]

    def classes(self, n):
        return np.roll(np.array([0, 1, 2, 255], np.uint8), n)

    def predicted(self, n):
        return np.roll(np.array([1, 1, 2, 0], np.uint8), n)

    def labeled(self, n):
        return np.roll(np.array([255, 1, 2, 255], np.uint8), n)

    def sheet(self, **changes):
        found = {"title": "t", "dataset": self.dataset, "root": self.folder, "rows": self.rows}
        found |= {"predictions": self.predictions, "labels": self.labels}
        return contact_sheet(**found | changes)


@pytest.fixture
def made(tmp_path, folder_dataset):
    return Round(tmp_path, folder_dataset)


@pytest.mark.parametrize(
    "count, shown",
    [
        pytest.param(24, list(range(0, 24, 2)), id="every second of two dozen"),
        pytest.param(12, list(range(12)), id="all of a dozen"),
        pytest.param(3, [0, 1, 2], id="all where there are fewer"),
        pytest.param(18, [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16], id="as even as can be"),
        pytest.param(0, [], id="none of none"),
    ],
)
def test_a_dozen_images_evenly_spaced_in_the_sorted_ids_are_shown(count, shown):
    ids = [f"id{number:03}" for number in range(count)]
    shuffled = ids[1::2] + ids[::2]
    assert [shuffled[place] for place in choose(shuffled)] == [ids[place] for place in shown]


@given(st.sets(st.text(min_size=1), max_size=40))
def test_every_shown_image_is_another_one(ids):
    chosen = [list(ids)[place] for place in choose(list(ids))]
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(ROWS, len(ids))
    assert not ids or chosen[0] == min(ids)


@pytest.mark.parametrize("line, n", [(0, 1), (1, 2), (2, 0)])
def test_every_column_shows_its_own_of_the_image_the_right_way_up(line, n, made):
    sheet = made.sheet()
    of = {name: quarters(sheet, line, number) for number, name in enumerate(COLUMNS)}
    assert of["image"] == [tuple(colour) for colour in made.pixels(n)]
    assert of["ground truth"] == [COLOURS[value] for value in made.classes(n)]
    assert of["prediction"] == [COLOURS[value] for value in made.predicted(n)]
    assert of["pseudo label"] == [COLOURS[value] for value in made.labeled(n)]
    shares = probabilities()[np.roll(LEVELS, n)]
    assert of["confidence"] == [tuple(colour) for colour in heat(shares).tolist()]


def test_an_image_without_a_mask_has_a_grey_tile(made):
    rows = [replace(row, label="") if row.id == "b" else row for row in made.rows]
    sheet = made.sheet(rows=rows)
    assert quarters(sheet, 1, 1) == [GREY] * 4
    assert quarters(sheet, 0, 1) != [GREY] * 4


def test_an_edited_label_is_shown_as_it_is_in_the_data_sets_colours(made):
    image = Image.fromarray(quadrants([2, 255, 0, 1]).astype(np.uint8))
    image.putpalette([9, 9, 9] * 256)
    image.save(made.labels / "a.png")
    assert quarters(made.sheet(), 0, 3) == [CAR, WHITE, SKY, ROAD]


def test_a_missing_label_is_named(made):
    (made.labels / "a.png").unlink()
    with pytest.raises(DataError, match=r"round3/pseudo_labels/a\.png: no such file"):
        made.sheet()


@pytest.mark.parametrize("mode, found", [("RGB", "mode RGB"), ("I;16", "16 bits")])
def test_a_label_that_holds_no_class_numbers_is_named(mode, found, made):
    Image.new(mode, (40, 20)).save(made.labels / "a.png")
    with pytest.raises(DataError, match=rf"a\.png: found {found}, 20 x 40; expected 8-bit"):
        made.sheet()


def test_predictions_of_another_list_are_refused(made):
    with pytest.raises(DataError, match=r"predictions\.h5: row 0 is not the image 'b'"):
        made.sheet(rows=made.rows[::-1])


def test_an_image_of_16_bits_is_seen_through_the_window_of_the_data_set(made):
    row = replace(made.rows[1], black=1000, white=2000)
    values = quadrants([1000, 1200, 1600, 2500]).astype(np.uint16)
    Image.fromarray(values).save(made.folder / row.image)
    sheet = made.sheet(rows=checked(made.folder, [made.rows[0], row, made.rows[2]]))
    assert quarters(sheet, 0, 0) == [(value,) * 3 for value in (0, 51, 153, 255)]


def test_an_image_has_the_channels_of_the_data_set(made, folder_dataset):
    dataset = folder_dataset.model_copy(update={"bands": (3, 1, 1)})
    chosen = [(blue, red, red) for red, _, blue in made.pixels(1)]
    assert quarters(made.sheet(dataset=dataset), 0, 0) == chosen


def test_a_tall_image_fits_and_thin_lines_of_an_image_become_grey(made):
    stripes = np.zeros((960, 480, 3), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(made.folder / "images/a.png")
    sheet = made.sheet(rows=checked(made.folder, made.rows))
    assert quarters(sheet, 0, 0, (120, 240)) == [(100,) * 3] * 4
    # The tall image is 120 pixels wide; the sheet right of it is white.
    assert sheet.getpixel((10 + 122, 10 + 2 * 20 + 20 + 200)) == WHITE


def test_labels_are_never_mixed(made):
    """Averaging would give pixels between sky and car a colour that no class has."""
    classes = np.indices((400, 800)).sum(0).astype(np.uint8) % 3
    made.labels.joinpath("a.png").write_bytes(indexed_png(classes, palette(["#000000"] * 3)))
    rows = [replace(row, height=400, width=800) if row.id == "a" else row for row in made.rows]
    sheet = made.sheet(rows=rows)
    tile = sheet.crop((10 + 3 * 250, 70, 10 + 3 * 250 + 240, 70 + 120))
    assert {colour for _, colour in tile.getcolors()} == {SKY, ROAD, CAR}


def test_the_legend_has_every_class_and_the_scale(made):
    sheet = made.sheet()
    legend = sheet.crop((0, 50 + 3 * 150, *sheet.size))
    squares = {colour for count, colour in legend.getcolors(100000) if count > 100}
    assert {SKY, ROAD, CAR} <= squares
    scale = [colour for _, colour in legend.getcolors(100000)]
    assert all(tuple(colour) in scale for colour in heat(np.array([0, 1])).tolist())


def test_a_legend_of_many_classes_goes_on_in_new_lines(made, folder_dataset):
    names = [f"a class with a long name {number}" for number in range(60)]
    classes = {name: f"#{number:02x}aa00" for number, name in enumerate(names)}
    many = folder_dataset.model_copy(update={"classes": {**folder_dataset.classes, **classes}})
    sheet = made.sheet(dataset=many)
    shown = {colour for count, colour in sheet.getcolors(1000000) if count > 100}
    assert {(number, 0xAA, 0) for number in range(60)} <= shown


@pytest.mark.parametrize(
    "id", ["$(x)", "<img src=x>", "é/ü 日本", "../..", "right\u202eleft", "x" * 5000, "a\rb\x1b[2J"]
)
def test_any_id_is_only_text_in_one_line(id, made):
    plain = made.sheet()
    rows = [replace(row, id=id) if row.id == "a" else row for row in made.rows]
    with new_part(made.folder, 1) as file:
        for n, row in enumerate(rows):
            nothing = np.zeros((20, 40), np.uint8), np.zeros((20, 40), np.uint16)
            store(file, [Prediction(n, row.id, *nothing)])
    labels = Anything(made.labels / "a.png")
    sheet = made.sheet(title=id, rows=rows, predictions=made.folder / "000001.h5", labels=labels)
    assert sheet.size == plain.size
    # No text reaches into the right margin.
    assert sheet.crop((sheet.width - 9, 0, *sheet.size)).getcolors() == [(9 * sheet.height, WHITE)]


class Anything:
    """A folder in which every name is the same file, for ids that cannot be file names."""

    def __init__(self, path):
        self.path = path

    def __truediv__(self, name):
        return self.path


def test_letters_beyond_ascii_stay_told_apart(made):
    assert made.sheet(title="Größe").tobytes() != made.sheet(title="Grüße").tobytes()


def test_confidence_is_brighter_the_higher_it_is_and_looks_like_cividis():
    from matplotlib import colormaps

    shares = np.linspace(0, 1, 256)
    colours = heat(shares)
    assert colours.dtype == np.uint8 and colours.shape == (256, 3)
    assert (np.diff(colours @ [0.3, 0.59, 0.11]) > -0.5).all()
    expected = 255 * colormaps["cividis"](shares)[:, :3]
    assert np.abs(colours - expected).max() < 9


def test_the_same_sheet_is_written_in_the_same_bytes(made, tmp_path):
    for name in ("1.jpg", "2.jpg"):
        write(tmp_path / name, made.sheet())
    assert (tmp_path / "1.jpg").read_bytes() == (tmp_path / "2.jpg").read_bytes()
    image = Image.open(tmp_path / "1.jpg")
    assert (image.format, image.mode) == ("JPEG", "RGB")
    # The colours of the classes are kept at full resolution (no chroma subsampling).
    assert {(across, down) for _, across, down, _ in image.layer} == {(1, 1)}
    expected = [COLOURS[value] for value in made.labeled(1)]
    np.testing.assert_allclose(quarters(image, 0, 3), expected, atol=3)


def draw(made, tmp_path):
    """Run the command; it fails if it imports torch."""
    (tmp_path / "unlabeled.txt").write_text("".join(f"{id}\n" for id in IDS))
    write_index(tmp_path / "dataset.csv", made.rows)
    options = {
        "--settings": made.dataset.model_dump_json(),
        "--data": tmp_path,
        "--index": tmp_path / "dataset.csv",
        "--unlabeled": tmp_path / "unlabeled.txt",
        "--predictions": made.predictions,
        "--labels": made.labels,
        "--out": tmp_path / "out/contact_sheet.jpg",
    }
    words = [str(word) for pair in options.items() for word in pair]
    code = (
        "import json, runpy, sys; sys.argv = ['contact_sheet.py', *json.loads(sys.stdin.read())]\n"
        f"runpy.run_path({str(SCRIPTS / 'contact_sheet.py')!r})['run']()\n"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(words),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
    )


def test_the_command_writes_the_sheet_without_torch(made, tmp_path, list_labels):
    list_labels(made.labels, made.dataset.classes)
    done = draw(made, tmp_path)
    assert done.returncode == 0, done.stderr
    write(tmp_path / "here.jpg", made.sheet(title="12_0/dst-cbc/round3"))
    assert (tmp_path / "out/contact_sheet.jpg").read_bytes() == (tmp_path / "here.jpg").read_bytes()


def test_the_command_names_a_label_whose_bytes_have_changed(made, tmp_path, list_labels):
    """Bytes behind the end of the image change no pixel."""
    list_labels(made.labels, made.dataset.classes)
    with open(made.labels / "a.png", "ab") as file:
        file.write(b"x")
    done = draw(made, tmp_path)
    assert done.returncode == 1 and "1 pseudo labels are missing, or changed" in done.stderr
    assert f"{made.labels}/a.png" in done.stderr
