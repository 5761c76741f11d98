"""Drafts as polygons: what each program for labeling reads is what the model has predicted."""

import json
import runpy
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize, sieve
from scipy import ndimage

from dst_cbc.data.annotations.drawing import draw
from dst_cbc.data.annotations.matching import matched
from dst_cbc.data.annotations.sources import read
from dst_cbc.own_images import outlines as module
from dst_cbc.own_images.draft_files import FORMATS, DraftedImage, labels_of
from dst_cbc.own_images.outlines import LEAST_PIXELS, outlines
from dst_cbc.own_images.suggestions import COLUMNS
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.tables import read_csv
from dst_cbc.self_training.predictions import Prediction, store
from workflow import REPOSITORY

NOTHING = 255
LABELS = {1: "cell", 2: "nucleus", 3: "debris"}
COLOURS = {"cell": "#00ff00", "nucleus": "#ff0010", "debris": "#0000ff"}


def drawn(shapes, size):
    """Class numbers of shapes (label, rings), one over the other; a pixel is in by its centre."""
    numbers, classes = {name: number for number, name in LABELS.items()}, np.full(size, NOTHING)
    for label, rings in shapes:
        closed = [[*map(tuple, ring), tuple(ring[0])] for ring in rings]
        inside = rasterize([{"type": "Polygon", "coordinates": closed}], size)
        classes[inside == 1] = numbers[label]
    return classes


def redrawn(classes, labels, holes):
    found = [(s.label, s.polygons[0]) for s in outlines(classes, labels, holes)]
    return drawn(found, classes.shape)


def areas(seed, size, smooth):
    noise = np.random.default_rng(seed).normal(size=(4, *size))
    return ndimage.gaussian_filter(noise, (0, smooth, smooth)).argmax(0).astype(np.uint8)


def test_a_box_has_few_corners_near_its_own():
    classes = np.zeros((60, 90), np.uint8)
    classes[10:50, 13:79] = 1
    (shape,) = outlines(classes, {1: "cell"}, False)
    ((ring,),) = shape.polygons
    x, y = ring.T
    assert shape.label == "cell" and len(ring) == 8
    assert (x.min(), y.min(), x.max(), y.max()) == (13, 10, 79, 50)
    assert (((x == 13) | (x == 79)) != ((y == 10) | (y == 50))).all(), "in the middles of edges"


@pytest.mark.parametrize("shape, corners", [("slope", 6), ("disc", 44)])
def test_slopes_and_curves_have_few_corners(shape, corners):
    y, x = np.mgrid[:100, :100]
    pixels = {"slope": y >= x, "disc": (x - 50) ** 2 + (y - 50) ** 2 < 40**2}[shape]
    (found,) = outlines(pixels.astype(np.uint8), {1: "cell"}, False)
    assert len(found.polygons[0][0]) <= corners


def test_the_work_grows_with_the_length_of_the_outline(monkeypatch):
    turns, turn = [], module._turn
    monkeypatch.setattr(module, "_turn", lambda *two: turns.append(1) or turn(*two))
    y, x = np.mgrid[:400, :400]
    outlines((((x - 200) ** 2 + (y - 200) ** 2) < 190**2).astype(np.uint8), {1: "cell"}, False)
    edges = 8 * 190
    assert len(turns) < 12 * edges


@pytest.mark.parametrize("holes", [False, True])
@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.floats(0.3, 3),
    st.sampled_from([{1: "cell"}, {1: "cell", 2: "nucleus"}, LABELS | {0: "debris"}]),
)
def test_drawn_again_no_pixel_changes_but_specks(holes, seed, size, smooth, labels):
    classes = areas(seed, size, smooth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEAST_PIXELS", 1)
        got = redrawn(classes, labels, holes)
    want = np.full(size, NOTHING)
    for number, name in labels.items():
        want[classes == number] = next(n for n, other in LABELS.items() if other == name)
    assert (got == want).all()


def test_specks_become_part_of_what_surrounds_them():
    classes = np.zeros((20, 20), np.uint8)
    classes[2:18, 2:18] = 1
    classes[4:7, 4:7] = 2  # 9 pixels
    classes[10:12, 10:15] = 2  # 10 pixels
    assert LEAST_PIXELS == 10
    want = np.where(classes == 0, NOTHING, classes)
    want[4:7, 4:7] = 1
    assert (redrawn(classes, LABELS, False) == want).all()


RINGS = np.zeros((30, 30), np.uint8)
RINGS[1:29, 1:29] = 1
RINGS[3:14, 3:14] = 2  # a hole that a shape fills
RINGS[17:27, 3:14] = 0  # a hole of background
RINGS[5:12, 17:27] = 2  # a hole in which
RINGS[7:10, 19:24] = 0  # a shape has a hole of background itself


def test_one_ring_covers_filled_holes_and_is_cut_to_the_others():
    rings = {s.label: len(s.polygons[0]) for s in outlines(RINGS, {1: "cell", 2: "nucleus"}, False)}
    assert rings == {"cell": 1, "nucleus": 1}
    found = outlines(RINGS, {1: "cell", 2: "nucleus"}, False)
    only_cell = drawn([("cell", found[0].polygons[0])], RINGS.shape)
    assert (only_cell[3:14, 3:14] == 1).all(), "the nucleus is drawn over it"
    assert (only_cell[17:27, 3:14] == NOTHING).all()
    assert (only_cell[7:10, 19:24] == NOTHING).any(), "this hole has a gap"
    assert (redrawn(RINGS, LABELS, False) == np.where(RINGS == 0, NOTHING, RINGS)).all()
    assert len(outlines(RINGS, LABELS, True)[0].polygons[0]) == 4


def test_a_cut_ends_at_the_next_hole_and_crosses_none():
    classes = np.ones((20, 40), np.uint8)
    classes[5:15, 5:15] = 0
    classes[2:6, 25:30] = 0  # begins above the first hole,
    classes[6:12, 20:30] = 0  # and its leftmost corner is beside it
    ((ring,),) = outlines(classes, {1: "cell"}, False)[0].polygons
    along = np.linspace(ring, np.roll(ring, -1, 0), 100).reshape(-1, 2)
    beside = ndimage.maximum_filter(classes, 3)
    x, y = np.minimum(along.astype(int), (39, 19)).T
    assert (beside[y, x] == 1).all()
    assert (drawn([("cell", [ring])], classes.shape) == np.where(classes, 1, NOTHING)).all()


def test_shapes_have_the_person_s_labels_and_background_has_none():
    classes = ["Background", "cell", "nucleus"]
    assert labels_of(classes, {}) == {1: "cell", 2: "nucleus"}
    assert labels_of(classes, {"Zelle": "cell", "Zelle alt": "cell"}) == {1: "Zelle", 2: "nucleus"}
    assert labels_of(["soil", "crop"], {}) == {0: "soil", 1: "crop"}
    drawn_too = labels_of(["background", "cell"], {"_background_": "background"}, "ignore")
    assert drawn_too == {0: "_background_", 1: "cell"}


def read_labelme(texts, image):
    content = json.loads(texts[f"{image.id}.json"])
    assert Path(content["imagePath"]) == image.path and content["imageData"] is None
    assert (content["imageWidth"], content["imageHeight"]) == image.size
    assert {shape["shape_type"] for shape in content["shapes"]} == {"polygon"}
    return [(shape["label"], [shape["points"]]) for shape in content["shapes"]]


def read_coco(texts, image):
    content = json.loads(texts["annotations.json"])
    names = {category["id"]: category["name"] for category in content["categories"]}
    assert list(names.values()) == list(COLOURS)
    assert content["categories"][1]["color"] == [255, 0, 16]
    (found,) = [one for one in content["images"] if one["file_name"] == image.name]
    assert (found["width"], found["height"]) == image.size
    shapes = [one for one in content["annotations"] if one["image_id"] == found["id"]]
    assert len({one["id"] for one in content["annotations"]}) == len(content["annotations"])
    rings = [np.reshape(one["segmentation"], (-1, 2)) for one in shapes]
    for ring, one in zip(rings, shapes, strict=True):
        left, top, width, height = one["bbox"]
        assert [*ring.min(0), *ring.max(0)] == [left, top, left + width, top + height]
        assert 0 < one["area"] <= width * height and one["iscrowd"] == 0
    return [(names[s["category_id"]], [r]) for s, r in zip(shapes, rings, strict=True)]


def read_label_studio(texts, image):
    view = ElementTree.fromstring(texts["labeling-interface.xml"])
    control = view.find("PolygonLabels")
    assert [one.get("value") for one in control] == list(COLOURS)
    task = json.loads(texts["tasks.json"])[int(image.id[-1])]
    ((file,),) = parse_qs(urlsplit(task["data"]["image"]).query).values()
    assert file == f"images/{image.name}", "below the folder above the folder of images"
    shapes = []
    for region in task["predictions"][0]["result"]:
        assert (region["original_width"], region["original_height"]) == image.size
        assert (region["from_name"], region["to_name"]) == (control.get("name"), "image")
        ring = np.array(region["value"]["points"]) / 100 * image.size
        shapes.append((region["value"]["polygonlabels"][0], [ring]))
    return shapes


def read_geojson(texts, image):
    features = json.loads(texts[f"{image.id}.geojson"])["features"]
    shapes = []
    for feature in features:
        kind = feature["properties"]["classification"]
        assert kind["color"] == list(bytes.fromhex(COLOURS[kind["name"]][1:]))
        rings = feature["geometry"]["coordinates"]
        assert all(ring[0] == ring[-1] for ring in rings)
        shapes.append((kind["name"], [ring[:-1] for ring in rings]))
    return shapes


def read_cvat(texts, image):
    root = ElementTree.fromstring(texts["annotations.xml"])
    labels = {one.findtext("name"): one.findtext("color") for one in root.iter("label")}
    assert labels == COLOURS
    names = [one.get("name") for one in root.iter("image")]
    assert names == sorted(names), "CVAT numbers the images by name"
    found = root.find(f"image[@name='{image.name}']")
    assert (int(found.get("width")), int(found.get("height"))) == image.size
    shapes = []
    for one in found:
        corners = [tuple(map(float, pair.split(","))) for pair in one.get("points").split(";")]
        shapes.append((one.get("label"), [corners]))
    return shapes


READERS = {
    "labelme": read_labelme, "coco": read_coco, "label-studio": read_label_studio,
    "geojson": read_geojson, "cvat": read_cvat,
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_says_what_was_predicted(name, tmp_path):
    maps = [areas(0, (50, 70), 2), RINGS]
    images = [
        DraftedImage(
            f"plate {i}/well_{i}",
            f"plate {i}/well_{i}.jpg",
            tmp_path / f"images/plate {i}/well_{i}.jpg",
            (classes.shape[1], classes.shape[0]),
            outlines(classes, LABELS, FORMATS[name].holes),
        )
        for i, classes in enumerate(maps)
    ]
    texts = FORMATS[name].write(images[::-1] if name == "cvat" else images, COLOURS)
    assert {FORMATS[name].file.replace("{}", image.id) for image in images} <= set(texts)
    found = [READERS[name](texts, image) for image in images]
    for shapes, classes in zip(found, maps, strict=True):
        kept = sieve(classes, LEAST_PIXELS)
        assert (drawn(shapes, classes.shape) == np.where(kept == 0, NOTHING, kept)).all()
    has_holes = any(len(rings) > 1 for shapes in found for _, rings in shapes)
    assert has_holes == (name == "geojson"), "only GeoJSON has holes"


@pytest.mark.parametrize("name", FORMATS)
def test_this_project_reads_its_own_drafts_back_to_the_pixel(name, tmp_path):
    classes = areas(1, (50, 70), 2)
    shapes = outlines(classes, LABELS, FORMATS[name].holes)
    path = tmp_path / "images/plate/one.jpg"
    image = DraftedImage("plate/one", "plate/one.jpg", path, (70, 50), shapes)
    folder = tmp_path / "drafts"
    for file, text in FORMATS[name].write([image], COLOURS).items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    if name == "label-studio":
        unsubmitted = read(folder)[1]
        assert not unsubmitted.images and not unsubmitted.problems and unsubmitted.notices
        tasks = json.loads((folder / "tasks.json").read_text())
        submitted = [{**task, "annotations": task.pop("predictions")} for task in tasks]
        (folder / "tasks.json").write_text(json.dumps(submitted))
    _, found = read(folder)
    by_id, *problems = matched(found, {"plate/one": "plate/one.jpg"}, False, tmp_path)
    assert problems == [[], []] and not found.problems and not found.notices
    numbers = {label: number for number, label in LABELS.items()}
    mask = draw(by_id["plate/one"].shapes, image.size, numbers, 0)
    assert (mask == sieve(classes, LEAST_PIXELS)).all()


@pytest.fixture
def suggest(tmp_path, monkeypatch, write_image):
    """Function that runs suggest.py with options in a study; returns the rows of its table."""
    for name in ("a/one", "a/two", "b"):
        write_image(tmp_path / f"data/photos/{name}.png", np.zeros((20, 30)))
    for name in ("m1", "m2", "m3"):
        write_image(tmp_path / f"data/photos/{name}.png", np.zeros((20, 30)))
        write_image(tmp_path / f"data/masks/{name}.png", np.zeros((20, 30)))
    (tmp_path / "cells.yaml").write_text(
        "{name: cells, data: data, format: pairs,"
        " pairs: {images: photos, labels: masks, val: [m3]},"
        " classes: {background: '#000000', cell: '#00ff00'}, labels: {0: background, 1: cell},"
        " train: {batch: 4}, evaluation: {select: last}, splits: {all: {all: true}},"
        " runs: [{splits: [all], methods: [dst-cbc]}]}"
    )
    monkeypatch.chdir(tmp_path)
    classes = np.zeros((20, 30), np.uint8)
    classes[5:15, 8:20] = 1
    confidence = np.full((20, 30), 65535, np.uint16)
    ids = ["a/one", "a/two", "gone", "b"]
    folder = tmp_path / "results/cells/all_0_last/supervised"
    with h5py.File(write_folder(folder) / "predictions.h5", "w") as file:
        items = [Prediction(row, id, classes, confidence - 99 * row) for row, id in enumerate(ids)]
        store(file, items)
    splits = write_folder(tmp_path / "results/cells/splits")
    (splits / "all_0_last.unlabeled.txt").write_text("\n".join(ids) + "\n")

    def run(*options):
        monkeypatch.setattr("sys.argv", ["suggest.py", "cells.yaml", *options])
        runpy.run_path(str(REPOSITORY / "scripts/suggest.py"))["run"]()
        return read_csv(Path("results/cells/suggestions/suggest.csv"), COLUMNS)

    return run


def write_folder(path):
    path.mkdir(parents=True)
    return path


def test_the_command_names_the_draft_of_each_image_that_is_still_there(suggest, capsys):
    rows = suggest("--as", "labelme")
    drafts = {row["id"]: row["draft"] for row in rows}
    assert drafts == {
        "b": "drafts-labelme/b.json", "a/two": "drafts-labelme/a/two.json",
        "a/one": "drafts-labelme/a/one.json",
    }  # fmt: skip
    content = json.loads(Path("results/cells/suggestions", drafts["a/two"]).read_text())
    assert Path(content["imagePath"]) == Path("data/photos/a/two.png").absolute()
    assert [shape["label"] for shape in content["shapes"]] == ["cell"]
    assert f"labelme {Path('data/photos').absolute()} --output" in capsys.readouterr().out


def test_the_command_names_images_by_their_path_in_the_folder_of_images(suggest):
    assert {row["draft"] for row in suggest("--as", "cvat")} == {"drafts-cvat/annotations.xml"}
    root = ElementTree.parse("results/cells/suggestions/drafts-cvat/annotations.xml")
    assert [one.get("name") for one in root.iter("image")] == ["a/one.png", "a/two.png", "b.png"]


def test_without_a_format_the_command_drafts_masks(suggest):
    assert {row["draft"] for row in suggest()} == {
        "drafts/a/one.png", "drafts/a/two.png", "drafts/b.png",
    }  # fmt: skip
    assert not list(Path("results/cells/suggestions").glob("drafts-*"))


@pytest.mark.parametrize("options", [(), ("--as", "labelme"), ("--as", "coco")])
def test_a_corrected_draft_is_never_replaced(suggest, options):
    draft = Path("results/cells/suggestions", suggest(*options)[1]["draft"])
    suggest(*options)  # an unchanged one may be there
    draft.write_text("corrected")
    with pytest.raises(DataError, match=f"{draft}: exists"):
        suggest(*options)
    assert draft.read_text() == "corrected"
