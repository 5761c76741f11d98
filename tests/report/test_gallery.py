"""The gallery page of the unlabeled images, and the agreement between rounds."""

import base64
import html
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from browser import browse, chromium
from damage import checked
from dst_cbc.data.index import Row, write_index
from dst_cbc.data.masks import indexed_png, palette
from dst_cbc.report.agreement import (
    COLUMNS,
    Agreement,
    Round,
    labels_from,
    labels_of,
    measure,
    round_in,
)
from dst_cbc.report.gallery import LIMIT, TEMPLATE, choose, gallery, measures
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.files import sha256_file, write_json
from dst_cbc.runtime.tables import read_csv
from dst_cbc.self_training.confidence import probabilities
from dst_cbc.self_training.predictions import Prediction, close_part, join_parts, new_part, store
from dst_cbc.self_training.pseudo_labels import Labeled, write_manifest
from workflow import SCRIPTS

COLOURS = {0: (0, 0, 255), 1: (128, 128, 128), 2: (255, 0, 0)}
# Unsorted. One image agrees between rounds, one is kept least, one has changed most.
IDS = ["town/c", "a", "<b> & 'b'"]
LEVELS = np.array([[0, 20000, 40000, 65535]] * 2, np.uint16)

# {round: per image the predicted class of each pixel, or where it has a pseudo label}.
PREDICTED = {
    1: [[[0, 0, 1, 1], [0, 0, 1, 1]], [[0, 0, 1, 1], [2, 2, 1, 1]], [[0, 0, 0, 0], [1, 1, 1, 1]]],
    2: [[[0, 0, 1, 1], [0, 0, 1, 1]], [[0, 0, 1, 1], [2, 2, 2, 1]], [[1, 1, 1, 1], [0, 0, 1, 1]]],
}
KEPT = {
    1: [[[1, 1, 0, 0], [1, 0, 0, 0]], [[1, 0, 1, 0], [0, 0, 1, 1]], [[1, 0, 0, 0], [0, 0, 0, 0]]],
    2: [[[1, 1, 1, 1], [1, 1, 1, 0]], [[1, 1, 1, 0], [0, 1, 1, 1]], [[1, 1, 0, 0], [0, 0, 0, 0]]],
}
TRUTH = {"a": [[0, 0, 1, 255], [2, 2, 1, 1]]}


def big(pixels):
    """Enlarge every pixel to a square of 10 x 10 pixels."""
    return np.kron(np.asarray(pixels), np.ones((10, 10), int)).astype(np.uint8)


class Study:
    """The files of two rounds of three images."""

    def __init__(self, folder, dataset, ids=tuple(IDS)):
        self.folder, self.dataset, self.ids = folder, dataset, list(ids)
        self.method = folder / "12_0/dst-cbc"
        self.rows = []
        for number, id in enumerate(self.ids):
            label = f"masks/{number}.png" if id in TRUTH else ""
            self.rows.append(Row(id, f"images/{number}.png", label, 20, 40, "train", "", ""))
            self.write(f"images/{number}.png", np.full((20, 40, 3), 30 * number + 20, np.uint8))
            if label:
                self.write(label, big(TRUTH[id]))
        self.rows = checked(folder, self.rows)
        for round in (1, 2):
            for number, id in enumerate(self.ids):
                place = number % 3
                predicted, kept = big(PREDICTED[round][place]), big(KEPT[round][place])
                self.label(round, id, np.where(kept, predicted, 255))
            self.predict(round)

    def write(self, name, pixels):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)

    def label(self, round, id, labels):
        path = self.method / f"round{round}/pseudo_labels/{id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(indexed_png(labels.astype(np.uint8), palette(["#000000"] * 3)))

    def list_labels(self):
        """Write pseudo_labels.csv of both rounds."""
        for round in (1, 2):
            folder = self.method / f"round{round}/pseudo_labels"
            pngs = {id: sha256_file(folder / f"{id}.png") for id in self.ids}
            labeled = [Labeled(*png, 20, 40, np.zeros(3, int)) for png in pngs.items()]
            write_manifest(folder.with_suffix(".csv"), labeled, list(self.dataset.classes))

    def predict(self, round):
        """Write the predictions of the round before, from which `round` is labeled."""
        parts = self.folder / f"parts{round}"
        with new_part(parts, 0) as file:
            for number, id in enumerate(self.ids):
                levels = np.kron(np.roll(LEVELS, round, 1), np.ones((10, 10), int))
                classes = big(PREDICTED[round][number % 3])
                store(file, [Prediction(number, id, classes, levels.astype(np.uint16))])
        close_part(parts, 0, np.zeros((3, 65536), np.int64))
        folder = self.folder / "12_0/supervised" if round == 1 else self.method / "round1"
        join_parts(parts, 1, folder / "predictions.h5", {})

    def rounds(self, **options):
        return [round_in(self.method / f"round{round}", **options) for round in (1, 2)]

    def page(self, rounds=None, **options):
        rounds = rounds or self.rounds()
        measured = list(measure(rounds, self.rows))
        return gallery("t", self.dataset, self.folder, self.rows, rounds, measured, **options)


@pytest.fixture
def study(tmp_path, folder_dataset):
    return Study(tmp_path, folder_dataset)


def test_labels_come_from_no_file_outside_of_the_split(tmp_path):
    folder = tmp_path / "12_0/dst-cbc/round1"
    settings = {"train": {"steps": 3}, "network": None, "labels_from": "../../../secret.h5"}
    write_json(folder / "settings.json", settings)
    with pytest.raises(DataError, match=r"settings\.json: .* cannot be an id or a path"):
        labels_from(folder)


class _Scripts(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.inside = [], False

    def handle_starttag(self, tag, attributes):
        self.inside = tag == "script"
        if self.inside:
            self.found.append("")

    def handle_data(self, text):
        if self.inside:
            self.found[-1] += text


def content(page):
    """The data of the page, parsed as in a browser: from its first script element."""
    parser = _Scripts()
    parser.feed(page)
    assert len(parser.found) == 2
    return json.loads(parser.found[0])


def picture(data, number):
    return Image.open(io.BytesIO(base64.b64decode(data["files"][number].split(",")[1])))


def middles(image):
    """The center pixel of each square of 10 x 10 pixels."""
    return np.asarray(image)[5::10, 5::10]


# ---------------------------------------------------------------------------- agreement


def test_agreement_is_counted_by_hand(study):
    by_id = {image[0].id: image for image in measure(study.rounds(), study.rows)}
    # Image a: 4 squares of 100 pixels are labeled, then 6; 4 in both, of which 1 in another class.
    sure = float(probabilities()[LEVELS].mean(dtype=float))
    assert by_id["a"] == [
        Agreement("a", 1, 20, 40, 400, None, None, None, pytest.approx(sure)),
        Agreement("a", 2, 20, 40, 600, 400, 300, 1 / 8, pytest.approx(sure)),
    ]
    assert [(m.both, m.same, m.changed) for m in by_id["town/c"]] == [
        (None, None, None),
        (300, 300, 0),
    ]
    assert [(m.both, m.same, m.changed) for m in by_id["<b> & 'b'"]] == [
        (None, None, None),
        (100, 0, 6 / 8),
    ]


def test_without_predictions_there_is_agreement_and_neither_change_nor_confidence(study):
    (study.method / "round1/predictions.h5").unlink()
    rounds = study.rounds()
    assert [round.predictions is None for round in rounds] == [False, True]
    first, second = next(measure(rounds, study.rows))
    assert first.confidence is not None
    assert (second.both, second.changed, second.confidence) == (300, None, None)


def test_predictions_that_are_temporary_are_not_taken_while_they_exist(study):
    first, second = study.rounds(later=False)
    assert first.predictions and second.predictions is None


def test_a_label_of_another_size_is_named(study):
    study.label(2, "a", np.zeros((20, 30)))
    with pytest.raises(DataError, match=r"round2/pseudo_labels/a\.png: found mode P, 20 x 30; exp"):
        list(measure(study.rounds(), study.rows))


# ------------------------------------------------------------------------------- choice


def agreement(id, kept=50, both=None, same=None, changed=None):
    return [Agreement(id, 1, 10, 10, kept), Agreement(id, 2, 10, 10, kept, both, same, changed)]


def test_measures_go_over_all_rounds():
    rounds = [
        Agreement("a", 1, 10, 10, 20, None, None, None, 0.5),
        Agreement("a", 2, 10, 10, 40, 20, 10, 0.2, 0.7),
        Agreement("a", 3, 10, 10, 60, 30, 30, 0.4, None),
    ]
    found = measures(rounds)
    assert found == {name: pytest.approx(value) for name, value in (
        ("agreement", 40 / 50), ("kept", 0.4), ("changed", 0.3), ("confidence", 0.6),
    )}  # fmt: skip
    alone = measures(rounds[:1])
    assert (alone["agreement"], alone["changed"]) == (None, None)


def test_the_worst_in_turns_and_others_evenly_spaced_are_chosen():
    measured = [agreement(f"{n:02}", 50, 50, 50, 0.0) for n in range(20)]
    measured[3] = agreement("03", 50, 50, 10, 0.0)  # agrees least
    measured[15] = agreement("15", 1, 1, 1, 0.0)  # is kept least
    measured[11] = agreement("11", 50, 50, 50, 0.9)  # has changed most
    # Three of the six are the worst, in turns; three are evenly spaced among the other 17.
    assert choose(measured, 6) == [0, 3, 6, 11, 13, 15]
    assert choose(measured[::-1], 6) == [19 - n for n in [0, 3, 6, 11, 13, 15]]


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=30), st.integers(1, 9))
def test_as_many_as_there_are_up_to_the_limit(images, limit):
    measured = [
        agreement(f"{n:02}", kept, 50 if known else None, 20 if known else None)
        for n, (kept, known) in enumerate(images)
    ]
    chosen = choose(measured, limit)
    assert len(chosen) == min(limit, len(images)) and chosen == sorted(set(chosen))


# ----------------------------------------------------------------------------- the page


def test_every_layer_is_its_own_in_the_data_sets_colours(study):
    data = content(study.page())
    assert [image["id"] for image in data["images"]] == sorted(IDS)
    assert data["rounds"] == [1, 2]
    for image in data["images"]:
        place = IDS.index(image["id"])
        assert image["size"] == [40, 20]
        assert np.abs(middles(picture(data, image["image"])) - (30 * place + 20.0)).max() < 4
        for number, round in enumerate(image["rounds"], 1):
            predicted = np.array(PREDICTED[number][place])
            for layer, opaque in (("prediction", 1), ("label", KEPT[number][place])):
                found = middles(picture(data, round[layer]).convert("RGBA"))
                alpha = 255 * np.broadcast_to(opaque, (2, 4))
                np.testing.assert_array_equal(found[..., 3], alpha)
                colours = np.array([[COLOURS[c] for c in line] for line in predicted])
                np.testing.assert_array_equal(found[alpha > 0][:, :3], colours[alpha > 0])
            shares = middles(picture(data, round["shares"]).convert("L"))
            expected = 255 * probabilities()[np.roll(LEVELS, number, 1)]
            assert np.abs(shares - expected).max() < 12
    truths = {image["id"]: image["truth"] for image in data["images"]}
    assert [truths[id] is None for id in IDS] == [True, False, True]
    truth = middles(picture(data, truths["a"]).convert("RGBA"))
    assert truth[0, 0].tolist() == [0, 0, 255, 255] and truth[0, 3, 3] == 0


def test_an_image_has_the_channels_of_the_data_set(study):
    study.dataset = study.dataset.model_copy(update={"bands": (3, 1, 1)})
    for place, row in enumerate(study.rows):
        pixels = np.full((20, 40, 3), (10, 20, 30 * place + 90), np.uint8)
        study.write(row.image, pixels)
    study.rows = checked(study.folder, study.rows)
    data = content(study.page())
    for image in data["images"]:
        seen = middles(picture(data, image["image"]))
        assert np.abs(seen - [30.0 * IDS.index(image["id"]) + 90, 10, 10]).max() < 4


def test_the_figures_of_a_page_are_those_of_the_files(study):
    (image,) = (one for one in content(study.page())["images"] if one["id"] == "a")
    first, second = image["rounds"]
    assert (first["kept"], first["agreement"], first["changed"]) == (0.5, None, None)
    assert (second["kept"], second["agreement"], second["changed"]) == (0.75, 0.75, 0.125)
    # Of 600 labeled pixels, 100 are labeled car and are road.
    assert (first["right"], second["right"]) == (1, pytest.approx(5 / 6))
    assert image["measures"]["right"] == pytest.approx((1 + 5 / 6) / 2)
    assert image["classes"] == [0, 1, 2]


def test_equal_layers_are_stored_once(study):
    data = content(study.page())
    # The prediction of town/c is the same in both rounds.
    (image,) = (one for one in data["images"] if one["id"] == "town/c")
    assert image["rounds"][0]["prediction"] == image["rounds"][1]["prediction"]
    assert len(set(data["files"])) == len(data["files"])


def test_a_page_shows_what_exists(study):
    (study.method / "round1/predictions.h5").unlink()
    page = study.page()
    second = content(page)["images"][0]["rounds"][1]
    assert (second["prediction"], second["shares"], second["changed"]) == (None, None, None)
    assert second["label"] is not None and second["agreement"] is not None
    assert "labels of round 2 were made from are not kept" in page
    assert "1 of the shown images has a mask" in page


def test_a_page_without_masks_says_so(study):
    study.rows = [replace(row, label="") for row in study.rows]
    page = study.page()
    assert all(image["truth"] is None for image in content(page)["images"])
    assert "None of the shown images have a mask" in page


def test_more_images_than_a_page_holds_are_counted(tmp_path, folder_dataset):
    study = Study(tmp_path, folder_dataset, [f"{n:02}" for n in range(7)])
    page = study.page(limit=4)
    assert len(content(page)["images"]) == 4 and LIMIT == 200
    assert "4 of 7 unlabeled images are shown, 3 are left out: a page holds at most 4" in page


def test_a_page_fits_its_budget_and_says_its_scale(tmp_path, folder_dataset):
    study = Study(tmp_path, folder_dataset, ["a"])
    noise = np.random.default_rng(0).integers(0, 256, (800, 1600, 3))
    study.rows[0] = Row("a", "images/0.png", "", 800, 1600, "train", "", "")
    study.write("images/0.png", noise)
    study.rows = checked(tmp_path, study.rows)
    for round in (1, 2):
        study.label(round, "a", noise[..., 0] % 3)
    page = study.page()
    assert content(page)["images"][0]["size"] == [640, 320]
    assert "Images are shown at 40% of their size, at most 640 pixels long" in page
    budget = len(TEMPLATE.read_text()) + 40_000
    assert len(page) > 2 * budget
    smaller = study.page(budget=budget)
    assert len(smaller) <= budget
    width, height = content(smaller)["images"][0]["size"]
    assert 96 <= width < 640 and abs(height - width / 2) <= 0.5


def write_page(study, *more):
    """Run the command; it fails if it imports torch."""
    root = study.folder
    (root / "unlabeled.txt").write_text("".join(f"{id}\n" for id in IDS))
    write_index(root / "dataset.csv", study.rows)
    words = [
        "--settings", study.dataset.model_dump_json(), "--data", root,
        "--index", root / "dataset.csv", "--unlabeled", root / "unlabeled.txt",
        "--rounds", study.method / "round1", study.method / "round2",
        "--agreement", root / "out/agreement.csv", "--out", root / "out/gallery.html", *more,
    ]  # fmt: skip
    code = (
        "import json, runpy, sys; sys.argv = ['gallery.py', *json.loads(sys.stdin.read())]\n"
        f"runpy.run_path({str(SCRIPTS / 'gallery.py')!r})['run']()\n"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(list(map(str, words))),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS), "PYTHONHASHSEED": "7"},
    )


def test_the_same_page_is_written_in_the_same_bytes_without_torch(study, tmp_path, list_labels):
    for number in (1, 2):
        list_labels(study.method / f"round{number}/pseudo_labels", study.dataset.classes)
    done = write_page(study)
    assert done.returncode == 0, done.stderr
    title = f"{tmp_path.name}/12_0/dst-cbc"
    page = study.page().replace("<title>t<", f"<title>{title}<").replace("<h1>t<", f"<h1>{title}<")
    assert (tmp_path / "out/gallery.html").read_text() == page
    rows = read_csv(tmp_path / "out/agreement.csv", COLUMNS)
    assert [(row["id"], row["round"], row["both"]) for row in rows[2:4]] == [
        ("a", "1", ""),
        ("a", "2", "400"),
    ]


def test_the_named_predictions_count_and_not_those_of_the_settings(study, tmp_path, list_labels):
    for number in (1, 2):
        list_labels(study.method / f"round{number}/pseudo_labels", study.dataset.classes)
        write_json(study.method / f"round{number}/settings.json", {"labels_from": "no/such.h5"})
    kept = [study.folder / "12_0/supervised/predictions.h5", study.method / "round1/predictions.h5"]
    done = write_page(study, "--predictions", *kept)
    assert done.returncode == 0, done.stderr
    rows = read_csv(tmp_path / "out/agreement.csv", COLUMNS)
    assert all(row["confidence"] for row in rows)


def test_the_command_names_a_label_whose_bytes_have_changed(study, list_labels):
    """Bytes behind the end of the image change no pixel."""
    for number in (1, 2):
        list_labels(study.method / f"round{number}/pseudo_labels", study.dataset.classes)
    with open(study.method / "round2/pseudo_labels/a.png", "ab") as file:
        file.write(b"x")
    done = write_page(study)
    assert done.returncode == 1 and "1 pseudo labels are missing, or changed" in done.stderr
    assert "round2/pseudo_labels/a.png" in done.stderr


def test_a_page_names_no_other_address():
    template = TEMPLATE.read_text()
    assert not re.search(r"https?:|//[a-z]|@import|<link", template)
    assert "default-src 'none'; img-src data:;" in template


# --------------------------------------------------------------------------- in a browser


def act(page, script):
    """Open the page with an extra script that runs after its own; return the script's result."""
    done = f"<script>document.body.dataset.result = JSON.stringify((() => {{{script}}})())</script>"
    page.write_text(page.read_text().replace("</body>", f"{done}</body>"))
    shown = browse(page)
    found = re.search(r'data-result="([^"]*)"', shown)
    assert found, shown[-2000:]
    return json.loads(html.unescape(found[1]))


HELPERS = """
const text = (id) => document.getElementById(id).textContent;
const press = (key, target = document.body) =>
  target.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
const look = () => ({
  name: text("name"), round: text("round-text"), opacity: text("opacity-text"),
  layer: document.querySelector("[name=layer]:checked").value,
  files: [...document.querySelectorAll("#over img")].map((image) => image.src),
  said: text("missing"), hash: decodeURIComponent(location.hash), status: text("status"),
});
const choose = (id, value) => {
  document.getElementById(id).value = value;
  document.getElementById(id).dispatchEvent(new Event("change"));
};
"""


@pytest.fixture
def written(study):
    page = study.folder / "page/gallery.html"
    page.parent.mkdir()
    page.write_text(study.page())
    return page


@chromium
def test_keys_leaf_through_images_rounds_and_layers(study, written):
    data = content(written.read_text())
    by_id = {image["id"]: image for image in data["images"]}
    url = lambda number: f"data:image/{data['files'][number]}"  # noqa: E731
    start, right, up, prediction, changed, more, off, end = act(
        written,
        HELPERS
        + "return [null, 'ArrowRight', 'ArrowDown', '4', '6', '+', ' ', 'End'].map((key) => "
        "{ if (key) press(key); return look(); })",
    )
    # At the start: the image with the least agreement, the last round, its pseudo labels.
    assert start["name"] == "<b> & 'b' 1 of 3" and start["round"] == "2 of 2"
    assert start["files"] == [url(by_id["<b> & 'b'"]["rounds"][1]["label"])]
    assert right["name"] == "a 2 of 3"
    assert right["files"] == [url(by_id["a"]["rounds"][1]["label"])]
    assert up["round"] == "1 of 2" and "round=1" in up["hash"]
    assert up["files"] == [url(by_id["a"]["rounds"][0]["label"])]
    assert prediction["layer"] == "prediction"
    assert prediction["files"] == [url(by_id["a"]["rounds"][0]["prediction"])]
    assert changed["files"] == [] and changed["said"] == "There is no round before round 1."
    assert (start["opacity"], more["opacity"], off["opacity"]) == ("60 %", "70 %", "off")
    assert end["name"] == "town/c 3 of 3" and end["status"].startswith("town/c, 3 of 3, Changed")


@chromium
def test_an_address_names_a_view_and_what_it_does_not_know_is_passed_over(written):
    found = browse(
        written, address="#image=town%2Fc&round=1&layer=ignored&opacity=30&sort=nonsense&class=car"
    )
    # No label and no prediction of town/c has a car, so the class hides this image.
    assert re.search(r'<h2 id="name">a <span>1 of 1</span>', found)
    assert re.search(r'<output id="round-text"[^>]*>1 of 2<', found)
    assert '<div id="over" class="ignored" style="opacity: 0.3;">' in found
    assert re.search(r'<option value="2">car \(1\)</option>', found)


@chromium
def test_orders_and_classes_arrange_the_images(written):
    orders = act(
        written,
        HELPERS + "const names = () => [...document.querySelectorAll('#film b')]"
        ".map((one) => one.textContent);"
        "return [...document.querySelectorAll('#sort option')].map((option) => "
        "{ choose('sort', option.value); return [option.value, names()]; })",
    )
    a, b, c = "a", "<b> & 'b'", "town/c"
    assert dict(orders) == {
        "agreement": [b, a, c], "kept": [b, a, c], "changed": [b, a, c],
        "confidence": [b, a, c], "right": [a, b, c], "id": [b, a, c],
    }  # fmt: skip


@chromium
def test_names_are_only_text_and_every_control_has_a_name(tmp_path, folder_dataset):
    hostile = ["</script><script>document.title='pwned'</script>", '"><img src=x onerror=pwned>',
               "<!--", "@DATA@", "${x}&amp;\\u003c"]  # fmt: skip
    study = Study(tmp_path, folder_dataset, hostile)
    page = tmp_path / "page/gallery.html"
    page.parent.mkdir()
    page.write_text(study.page())
    names, title, unnamed = act(
        page,
        "const labels = (one) => one.labels?.length || one.getAttribute('aria-label') ||"
        " one.textContent.trim();"
        "return [[...document.querySelectorAll('#film b')].map((one) => one.textContent).sort(),"
        " document.title, [...document.querySelectorAll('button, input, select')]"
        ".filter((one) => !labels(one)).map((one) => one.outerHTML)]",
    )
    assert (names, title, unnamed) == (sorted(hostile), "t", [])


@chromium
def test_labels_smaller_than_their_image_are_compared_with_the_mask_at_their_size(study):
    """Each square of 10 x 10 pixels is one pixel of the label; one label of six is wrong."""
    (place,) = (number for number, id in enumerate(study.ids) if id == "a")
    for round in (1, 2):
        kept = np.where(KEPT[round][place], PREDICTED[round][place], 255)
        study.label(round, "a", kept)
    measured = list(measure(study.rounds(), study.rows))
    assert [(one.height, one.width) for one in measured[place]] == [(2, 4)] * 2
    assert [(one.kept, one.both) for one in measured[place]] == [(4, None), (6, 4)]
    page = gallery("t", study.dataset, study.folder, study.rows, study.rounds(), measured)
    (image,) = (one for one in content(page)["images"] if one["id"] == "a")
    right = [found["right"] for found in image["rounds"]]
    assert right == [1, pytest.approx(5 / 6)]


def test_one_round_without_masks_or_predictions_is_a_page(study, tmp_path):
    rows = [replace(row, label="") for row in study.rows]
    rounds = [Round(1, study.method / "round1/pseudo_labels", None)]
    measured = list(measure(rounds, rows))
    page = tmp_path / "page/gallery.html"
    page.parent.mkdir()
    page.write_text(gallery("t", study.dataset, study.folder, rows, rounds, measured))
    layers, orders, view = act(
        page,
        HELPERS + "const values = (found) => [...document.querySelectorAll(found)]"
        ".map((one) => one.value);"
        "return [values('[name=layer]'), values('#sort option'), look()]",
    )
    assert layers == ["image", "label", "ignored"] and orders == ["kept", "id"]
    assert view["round"] == "1 of 1" and view["name"] == "<b> & 'b' 1 of 3"
    assert labels_of(rounds[0], rows[1]).shape == (20, 40)
