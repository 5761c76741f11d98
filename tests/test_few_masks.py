"""The study with few masks: how its images are cut, and which model of a study is judged."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import few_masks
from dst_cbc.data.layouts.camvid import CLASSES
from dst_cbc.inference.metrics import confusion_matrix, mean_iou
from dst_cbc.inference.tiling import full_logits
from dst_cbc.inference.whole_images import image_tensor
from dst_cbc.models.segmentation import build, cpu_state, read_model, write_model
from dst_cbc.report.summary import COLUMNS
from dst_cbc.runtime.tables import read_csv, write_csv
from dst_cbc.settings.network import NetworkSettings
from dst_cbc.settings.stages import ModelSettings


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Twenty frames to train on and one that is kept apart; frame n has the values n and 11."""
    camvid, out = tmp_path_factory.mktemp("camvid"), tmp_path_factory.mktemp("made")
    for source, count in (("train", 20), ("val", 1)):
        for number in range(count):
            values = np.full((24, 48), number % 11, np.uint8)
            values[:, 24:] = 11
            for kind, pixels in (
                (source, np.stack([values * 20] * 3, -1)),
                (f"{source}annot", values),
            ):
                (camvid / kind).mkdir(exist_ok=True)
                Image.fromarray(pixels).save(camvid / kind / f"a{number:02}.png")
    few_masks.make(camvid, out, seeds=2)
    return out


def test_a_frame_gives_its_left_half_then_its_right_half(made):
    photos = sorted((made / "seed0/photos").iterdir())
    assert len(photos) == 40 and photos[0].name == "scene_0001.png"
    assert [Image.open(path).size for path in photos[:2]] == [(24, 24)] * 2
    assert np.asarray(Image.open(photos[2])).max() == 20
    assert np.asarray(Image.open(photos[3])).min() == 220


def test_one_half_of_each_block_of_twenty_has_a_mask_by_the_seed(made):
    masks = [sorted(path.stem for path in (made / f"seed{k}/masks").iterdir()) for k in (0, 1)]
    for names in masks:
        assert [(int(name[-4:]) - 1) // 20 for name in names] == [0, 1]
    assert masks[0] != masks[1]
    for name in masks[0]:
        number = int(name[-4:]) - 1
        values = np.asarray(Image.open(made / f"seed0/masks/{name}.png"))
        assert (values == (11 if number % 2 else number // 2 % 11)).all()


def study(folder, procedure, labeled, models, recommended=None):
    """A finished study whose models predict at random; models: steps and seed by round."""
    root = folder / f"{procedure}-0"
    dataset = {
        "format": "pairs", "classes": CLASSES, "labels": dict(enumerate(CLASSES)), "ignore": [11],
        "test_from_val": 0, "digits": None, "pairs": {"images": "photos", "labels": "masks"},
    }  # fmt: skip
    rows, network = [], NetworkSettings(backbone="small", output_stride=4, aspp_rates=(1,))
    for round, seed in enumerate(models):
        name = f"st/round{round}" if round else "supervised"
        place = root / "all_0" / name
        place.mkdir(parents=True)
        torch.manual_seed(seed)
        model = build(network, CLASSES)
        for branch in model.network.head:
            torch.nn.init.normal_(branch.weight, std=1)
        for file in ("model.pt", "last.pt"):
            write_model(place / file, model, cpu_state(model), {"round": round, "step": 1})
        train = {
            "steps": 1, "validate_at": [1], "seed": 0, "round": round, "select": "val",
            "validation": {"batch": 4, "tile": 64},
        }  # fmt: skip
        split = {"rule": {"all": True}, "seed": 0}
        settings = ModelSettings(dataset=dataset, split=split, network=network, train=train)
        (place / "settings.json").write_text(settings.model_dump_json())
        row = {
            "split": "all", "seed": 0, "method": name.partition("/")[0], "round": round,
            "checkpoint": "best", "selected_on": "val", "subset": "val", "labeled": labeled,
            "miou": 1.0, "steps": 10 * (round + 1),
        }  # fmt: skip
        rows.append(dict.fromkeys(COLUMNS) | row)
    write_csv(root / "summary.csv", COLUMNS, rows)
    if recommended:
        (root / "recommendation.json").write_text(json.dumps({"model": recommended}))
    return root


def test_the_recommended_model_is_judged_else_the_last_one(made, tmp_path):
    studies = [
        study(tmp_path, "last", 3, [1, 2]),
        study(tmp_path, "recommended", 4, [3, 4], "all_0/supervised"),
    ]
    few_masks.judge(made / "judge", studies, tmp_path / "choose.csv")
    rows = read_csv(tmp_path / "choose.csv", few_masks.COLUMNS)
    assert [tuple(row[column] for column in few_masks.COLUMNS[:-1]) for row in rows] == [
        ("last", "0", "3", "20", "st/round1"), ("last", "mean", "", "", ""),
        ("recommended", "0", "4", "10", "supervised"), ("recommended", "mean", "", "", ""),
    ]  # fmt: skip
    assert rows[0]["mIoU %"] == rows[1]["mIoU %"]


def test_the_score_is_that_of_all_halves_together(made, tmp_path):
    root = study(tmp_path, "last", 3, [1])
    model, pooled = read_model(root / "all_0/supervised/last.pt"), 0
    model.network.eval()
    for photo in sorted((made / "judge/photos").iterdir()):
        truth = np.asarray(Image.open(made / "judge/masks" / photo.name))
        pixels = image_tensor(np.asarray(Image.open(photo)))[None]
        with torch.no_grad():
            (logits,) = full_logits(model, pixels, 64)
        found = logits[0].argmax(0).numpy().astype(np.uint8)
        pooled = pooled + confusion_matrix(np.where(truth == 11, 255, truth), found, 11)
    row = few_masks.judged(made / "judge", root)
    assert row["mIoU %"] == pytest.approx(100 * mean_iou(pooled))
