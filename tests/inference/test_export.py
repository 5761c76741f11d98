"""Export: ONNX and torch.export give the same as PyTorch; model.md describes the model."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from dst_cbc.data.index import COLUMNS
from dst_cbc.inference import export
from dst_cbc.models.segmentation import build, write_model
from dst_cbc.report import model_card
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.files import sha256_file, write_json, write_text
from dst_cbc.runtime.tables import write_csv
from dst_cbc.settings.data import SplitRule
from dst_cbc.settings.network import NetworkSettings
from workflow import REPOSITORY

pytestmark = pytest.mark.slow

SCRIPT = REPOSITORY / "scripts/export.py"
CLASSES = {"sky": "#0000ff", "road": "#808080", "car": "#ff0000"}
SIZES = [(97, 131), (64, 64), (33, 202), (150, 99), (21, 20)]
RECORD = {"round": 0, "step": 7, "selected_on": "val", "score": 61.234}


def make(window=None, **settings):
    torch.manual_seed(1)
    network = {"backbone": "small", "output_stride": 4, "aspp_rates": (1,), **settings}
    model = build(NetworkSettings(**network), CLASSES, window=window)
    for branch in model.network.head:
        nn.init.normal_(branch.weight, std=0.5)
    model.network.eval()
    return model


def noise():
    generator = torch.Generator().manual_seed(0)
    for size in SIZES:
        yield torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)


SAME = {"backbone": "tf_efficientnet_lite0", "stages": 2}
RESNET = {"backbone": "resnet101", "output_stride": 8, "aspp_rates": (6, 12, 18, 24)}
NETWORKS = {
    "half size": {"input_scale": 0.5},
    "SAME": SAME,
    "Lite0": {"backbone": "tf_efficientnet_lite0", "stages": 4, "output_stride": 16},
    "resnet26": {**RESNET, "backbone": "resnet26"},
    "resnet101_caffe": {**RESNET, "backbone": "resnet101_caffe"},
}


@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
def test_exports_do_as_pytorch_at_any_size(settings, tmp_path):
    model = make(**settings)
    export.write(model, tmp_path, {})
    for name, agreement in export.check(model, tmp_path, noise()).items():
        assert agreement.images == len(SIZES)
        assert agreement.pixels == sum(height * width for height, width in SIZES)
        assert agreement.equal == agreement.pixels and agreement.largest < 1e-4, name


@pytest.mark.parametrize("scale", [0.25, 0.3, 0.5, 0.75, 1.25, 1.5, 2.0])
def test_scaled_sides_are_those_of_the_model(scale):
    for side in range(1, 4000):
        assert export.scaled(side, scale) == round(scale * side)


@pytest.mark.parametrize("kernel, stride, dilation", [(3, 2, 1), (5, 2, 1), (3, 1, 2), (1, 2, 1)])
def test_same_padding_is_timms(kernel, stride, dilation):
    from timm.layers.padding import get_same_padding

    for side in range(1, 50):
        expected = get_same_padding(side, kernel, stride, dilation)
        assert export._same_padding(side, kernel, stride, dilation) == expected


@pytest.fixture(scope="module")
def handed_over(tmp_path_factory):
    """A model of a study, exported by the command and compared on the study's val images."""
    root = tmp_path_factory.mktemp("export")
    folder = root / "results/cells/8_0/dst-cbc/round2"
    model = make(window=(100, 1100))
    write_model(folder / "model.pt", model, model.network.state_dict(), RECORD)
    rng = np.random.default_rng(0)
    rows = []
    (root / "data").mkdir()
    for number in range(6):
        name, subset = f"{number}.png", "train" if number < 2 else "val"
        pixels = rng.integers(0, 256, (20 + number, 31, 3), np.uint8)
        Image.fromarray(pixels).save(root / "data" / name)
        rows.append(dict.fromkeys(COLUMNS) | {"id": str(number), "image": name, "subset": subset})
        rows[-1] |= {"height": 20 + number, "width": 31}
        rows[-1] |= {"image_sha256": sha256_file(root / "data" / name)}
    write_csv(root / "results/cells/dataset.csv", COLUMNS, rows)
    write_text(root / "results/cells/splits/8_0.labeled.txt", "0\n")
    write_text(root / "results/cells/splits/8_0.unlabeled.txt", "1\n")
    figures = {"images": 4, "miou": 61.234, "pixel_accuracy": 80.0}
    figures["iou"] = {"sky": 70.0, "road": 52.468, "car": None}
    checkpoint = {**RECORD, "subsets": {"val": {**figures, "classes": list(figures["iou"])}}}
    write_json(folder / "metrics.json", {"best": checkpoint, "last": checkpoint})
    made = {"device": "cpu", "versions": {"torch": "2"}, "commit": "abc", "seconds": 1.5}
    write_json(folder / "run.json", made)
    index = root / "results/cells/dataset.csv"
    said = run(folder / "model.pt", folder / "export", "--images", root / "data", "--index", index)
    return folder, said


def run(model, out, *options, expect=0):
    command = [sys.executable, SCRIPT, "--model", model, "--out", out, *options]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command_compares_on_the_val_images_and_prints_the_largest_difference(handed_over):
    folder, said = handed_over
    assert {path.name for path in (folder / "export").iterdir()} == {
        "model.onnx", "model.pt2", "model.md",
    }  # fmt: skip
    pixels = 31 * sum(range(22, 26))
    for name in ("model.onnx", "model.pt2"):
        assert f"{name}: {pixels} of {pixels} mask pixels equal (100.0000 %) in 4 images" in said
    assert said.count("largest difference of a probability ") == 2 and "real images" in said


def test_the_files_say_what_they_take_and_give(handed_over):
    folder, _ = handed_over
    proto = onnx.load(folder / "export/model.onnx")
    onnx.checker.check_model(proto)
    found = {prop.key: prop.value for prop in proto.metadata_props}
    assert json.loads(found["classes"]) == CLASSES and json.loads(found["window"]) == [100, 1100]
    assert found["model_sha256"] == sha256_file(folder / "model.pt")
    assert found["input"].startswith("images: uint8 (N, 3, H, W): RGB")
    session = onnxruntime.InferenceSession(folder / "export/model.onnx")
    assert [one.name for one in session.get_inputs()] == ["images"]
    assert [one.name for one in session.get_outputs()] == ["classes", "confidence"]
    images = np.zeros((3, 3, 10, 12), np.uint8)
    classes, confidence = session.run(None, {"images": images})
    assert classes.shape == confidence.shape == (3, 10, 12)
    assert classes.dtype == np.uint8 and confidence.dtype == np.float32
    extra = {"notes.json": ""}
    torch.export.load(folder / "export/model.pt2", extra_files=extra)
    assert json.loads(extra["notes.json"]) == found


def test_the_card_tells_of_the_study(handed_over):
    text = (handed_over[0] / "export/model.md").read_text()
    for words in (
        "# cells/8_0/dst-cbc/round2",
        "round(255 (v - 100) / (1100 - 100))",
        "| 0 | sky | `#0000ff` | 70.00 |",
        "| 2 | car | `#ff0000` |  |",
        "step 7 of round 0, chosen as the best on val with an mIoU of 61.23 %",
        "Images: 2 train, 4 val.",
        "Training images: 1 labeled, 1 unlabeled.",
        "| val | 4 | 61.23 | 80.00 |",
        "its figures on val are too good",
        "commit abc",
        "Code (DST-CBC): Apache-2.0.",
        f"\n* Initial weights: none, random.\n* Data: {model_card.FILL_IN}",
    ):
        assert words in text, words
    assert str(handed_over[0].parents[4]) not in text


@pytest.mark.parametrize(
    "place", ["8_0/dst-cbc/round2", "8_0/dmt/teacher/round2", "8_0/supervised"]
)
def test_the_card_of_a_recommended_model_tells_of_the_model_that_was_copied(place, tmp_path):
    study = tmp_path / "results/cells"
    write_csv(study / "dataset.csv", COLUMNS, [])
    write_text(study / "splits/8_0.labeled.txt", "0\n1\n")
    write_json(study / "recommendation.json", {"model": place, "gain": 1.5})
    made = {"device": "cpu", "versions": {}, "commit": "abc", "seconds": 1.5}
    write_json(study / place / "run.json", made)
    around = model_card.surroundings(study / "model.pt")
    assert around == model_card.surroundings(study / place / "model.pt")
    assert around.name == f"cells/{place}" and around.labeled == 2 and around.run["commit"] == "abc"
    assert around.method == place.removeprefix("8_0/").removesuffix("/round2")
    write_json(study / "recommendation.json", {"model": "../../secret"})
    with pytest.raises(DataError, match=r"recommendation\.json: '\.\./\.\./secret' cannot be"):
        model_card.surroundings(study / "model.pt")


def test_a_study_is_exported_by_the_model_that_it_recommends(handed_over, tmp_path):
    folder, _ = handed_over
    study = tmp_path / "results/cells"
    shutil.copytree(folder.parents[2], study)
    write_json(study / "recommendation.json", {"model": "8_0/dst-cbc/round2"})
    shutil.copy(folder / "model.pt", study)
    run(study, tmp_path / "out")
    lines = (tmp_path / "out/model.md").read_text().splitlines()
    assert lines[0] == "# cells/8_0/dst-cbc/round2" and "| val | 4 | 61.23 | 80.00 |" in lines


def test_a_model_alone_has_a_card_too_and_is_compared_on_made_up_images(tmp_path):
    model = make()
    write_model(tmp_path / "model.pt", model, model.network.state_dict(), RECORD)
    said = run(tmp_path / "model.pt", tmp_path / "out")
    assert "in 3 images" in said and "made-up images" in said
    text = (tmp_path / "out/model.md").read_text()
    assert text.startswith("# model\n") and "| 1 | road | `#808080` |" in text
    assert "chosen as the best on val with an mIoU of 61.23 %" in text
    assert "there was no `metrics.json` beside the model" in text


@pytest.mark.parametrize(
    "rule, said",
    [
        ({"count": 8}, "8 labeled images"),
        ({"all": True}, "every training image that has a mask is labeled"),
        ({"folds": 3, "fold_length": 0.5}, "a mask is labeled, and in one of 3 folds"),
    ],
)
def test_the_card_says_which_images_are_labeled(rule, said):
    assert model_card._rule(SplitRule(**rule)).endswith(said)


def test_the_card_of_a_last_step_says_that_nothing_was_selected(tmp_path):
    model = make()
    around = model_card.surroundings(tmp_path / "supervised/model.pt")
    for selected, said in (("val", True), ("last", False)):
        record = {**RECORD, "selected_on": selected}
        text = model_card.card(model.settings, CLASSES, None, record, "digest", around, {})
        assert ("chosen as the best on val" in text) == said
        assert ("the last step of its training: nothing was selected" in text) != said


def test_the_files_of_a_model_of_chosen_channels_say_which(tmp_path):
    model, around = make(), model_card.surroundings(tmp_path / "model.pt")
    rest = (model.settings, CLASSES, None, RECORD, "digest", around, {})
    assert "channels, counted" not in model_card.card(*rest)
    assert "bands" not in export.notes(model, "digest")
    for bands, said in (((4, 3, 2), "4, 3, 2 are red, green and blue"), ((2,), "2 is the grey")):
        lines = model_card.card(*rest, bands).splitlines()
        assert sum(f"counted from 1, {said}" in line for line in lines) == 1
        notes = export.notes(replace(model, bands=bands), "digest")
        assert json.loads(notes["bands"]) == list(bands)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (seen,) = export.pictures(replace(model, bands=(3, 2, 1)), {tmp_path / "a.png": None})
    np.testing.assert_array_equal(seen.permute(1, 2, 0), pixels[..., ::-1])


def test_the_card_of_a_converted_model_says_so_and_has_its_metrics(tmp_path):
    figures = {
        "images": 3, "miou": 61.0, "pixel_accuracy": 90.0, "classes": [*CLASSES],
        "iou": dict.fromkeys(CLASSES, 61.0),
    }  # fmt: skip
    write_json(tmp_path / "metrics.json", {"best": {"subsets": {"val": figures}}})
    model, around = make(), model_card.surroundings(tmp_path / "model.pt")
    text = model_card.card(model.settings, CLASSES, None, {}, "digest", around, {})
    assert "* Weights: converted from a file of another program.\n" in text
    assert "* Initial weights: unknown, see the origin of the converted file; its licence" in text
    assert "| 1 | road | `#808080` | 61.00 |" in text


def test_weights_are_named_with_their_licence():
    assert "package `timm`: Apache-2.0" in model_card._licence("package:timm/x.pt")
    assert model_card.FILL_IN in model_card._licence("package:no_such/x.pt")
    hostile = model_card._licence("w/a`\n# b.pt")
    assert "\n" not in hostile and hostile.count("`") == 2
    assert model_card._licence("package:<b>/x.pt").startswith(r"of the package `\<b\>`, which")


def test_texts_of_the_files_beside_a_model_are_only_text_in_its_card(tmp_path):
    run = {"device": "a\n# b <i>", "versions": {"`x`": "[l](j)"}, "commit": "*c*", "seconds": 1}
    write_json(tmp_path / "a_b *c*/run.json", run)
    around = model_card.surroundings(tmp_path / "a_b *c*/model.pt")
    model = make()
    text = model_card.card(model.settings, CLASSES, None, RECORD, "digest", around, {})
    said = r"* Trained on a # b \<i\> with 'x' \[l\](j); commit \*c\*."
    assert said in text.splitlines()


@pytest.mark.parametrize(
    "name, content, found",
    [
        ("metrics.json", {"best": {"round": 1, "subsets": {"val": {}}}}, "best.subsets.val.images"),
        ("run.json", {"commit": "a", "device": ["x"]}, r"device: found \['x'\]"),
        ("run.json", [], r"its content: found \[\]"),
        ("settings.json", {"train": 1}, "not readable as the settings of a model .*dataset"),
    ],
)
def test_damaged_files_beside_a_model_are_named(name, content, found, tmp_path):
    write_json(tmp_path / name, content)
    with pytest.raises(DataError, match=f"{name}: .*{found}"):
        model_card.surroundings(tmp_path / "model.pt")


def test_an_export_that_does_otherwise_fails_and_names_the_share(tmp_path):
    model = make()
    export.write(model, tmp_path, {})
    with torch.no_grad():
        model.network.head[0].bias += torch.tensor([0.0, 0.0, 5.0])
    with pytest.raises(DataError, match=r"model\.onnx: does not reproduce PyTorch: \d+ of \d+"):
        export.check(model, tmp_path, noise())
