"""Each method differs from DST-CBC only by its switches (Table 5)."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import trainings
from dst_cbc.data.augmentation import whole
from dst_cbc.data.images import open_image
from dst_cbc.data.layouts.layout import Record
from dst_cbc.data.masks import write_indexed_png
from dst_cbc.models.segmentation import logits_of
from dst_cbc.planning.plan import Plan
from dst_cbc.self_training import confidence
from dst_cbc.self_training import predict as labeling_pass
from dst_cbc.self_training.predictions import Prediction, close_part, join_parts, new_part, store
from dst_cbc.settings.data import IGNORED
from dst_cbc.settings.experiment_files import load_methods
from dst_cbc.settings.stages import Inference
from dst_cbc.training.losses import dynamic_loss, online_labels
from dst_cbc.training.objective import Step
from dst_cbc.training.samples import Data
from dst_cbc.training.sampling import Draw
from trainings import LABELED, PSEUDO, first_batch, sample, small_model
from workflow import EXPERIMENT, REPOSITORY, Project

METHODS = load_methods(REPOSITORY / "workflow/methods.yaml")
FIVE, ONE = [0.2, 0.4, 0.6, 0.8, 1.0], [1.0]
# Method: (alpha of each round, length of a round relative to dst-cbc's, settings that differ).
ROWS = {
    "dst-cbc": (FIVE, 1, {}),
    "dst": (ONE, 5, {}),
    "st": (ONE, 5, {"train.gamma": 0}),
    "dst-c": (FIVE, 1, {"thresholds.balance": "global"}),
    "ow": (FIVE, 1, {"train.weighting": "original"}),
    "cbst": (
        FIVE, 1, {"train.gamma": 0, "thresholds.rule": "normalized", "thresholds.algorithm": 2}
    ),
    "ost": ([None], 5, {"train.gamma": 0, "train.online_threshold": 0}),
    "ost-t": ([None], 5, {"train.gamma": 0, "train.online_threshold": 0.9}),
    "st-na": (ONE, 5, {"train.gamma": 0, "train.augment_pseudo": False}),
    "ost-na": (
        [None], 5, {"train.gamma": 0, "train.online_threshold": 0, "train.augment_pseudo": False},
    ),
    "ost-t-na": (
        [None], 5, {"train.gamma": 0, "train.online_threshold": 0.9, "train.augment_pseudo": False},
    ),
}  # fmt: skip


def rounds_of(method, make_experiment):
    runs = [{"splits": ["few"], "methods": [method]}]
    records = [
        Record(f"{subset}{i}", "a.png", "b.png", subset)
        for subset, count in (("train", 20), ("val", 4))
        for i in range(count)
    ]
    plan = Plan(make_experiment(runs=runs), METHODS, records)
    return [model for model in plan.models.values() if model.learns_unlabeled]


def flat(settings, place=""):
    """Nested settings as one dictionary with dotted keys."""
    if not isinstance(settings, dict):
        return {place: settings}
    return {
        key: value
        for name, inner in settings.items()
        for key, value in flat(inner, f"{place}.{name}" if place else name).items()
    }


def test_every_method_of_the_paper_has_a_row():
    assert set(METHODS) == {*ROWS, "supervised-long", "supervised-passes"}


@pytest.mark.parametrize("method", ROWS)
def test_a_row_is_its_switch_and_nothing_else(method, make_experiment):
    curriculum, length, switches = ROWS[method]
    rounds = rounds_of(method, make_experiment)
    reference = rounds_of("dst-cbc", make_experiment)
    assert len(rounds) == len(curriculum)
    for model, like, alpha in zip(rounds, reference, curriculum, strict=False):
        ours, theirs = (flat(json.loads(m.settings.canonical())) for m in (model, like))
        schedule = {"train.steps", "train.validate_at", "thresholds.alpha"}
        labels = {key for key in theirs if key.startswith(("thresholds", "predict"))}
        if alpha is None:
            assert model.labeled_by is None and ours["thresholds"] is None
            schedule |= labels | {"thresholds", "predict"}
        else:
            assert model.labeled_by is model.previous
            assert float(ours["thresholds.alpha"]) == alpha
        differing = {
            key: ours.get(key)
            for key in ours.keys() | theirs.keys()
            if key not in schedule and ours.get(key) != theirs.get(key)
        }
        assert differing == switches
        assert ours["train.steps"] == length * theirs["train.steps"]


stage = partial(
    trainings.make_stage,
    learning_rate=2e-3,
    validate_at=(6,),
    round=1,
    augmentation={"rotation": 10, "brightness": 0.2, "noise": 0.02},
)


@pytest.fixture
def data(drawn, drawn_rows, digits_dataset, tmp_path):
    """Four labeled scenes, and four with pseudo labels: 3 in the left half, 8 in the right half.

    The stored predictions are confident of class 3 and unsure of class 8.
    """
    rows = [replace(row, label="no/such/mask.png") for row in drawn_rows["train"][4:]]
    labels = np.full((40, 40), 8, np.uint8)
    labels[:, :20] = 3
    levels = np.where(labels == 3, 40000, 20000).astype(np.uint16)
    with new_part(tmp_path, 0) as part:
        for number, row in enumerate(rows):
            write_indexed_png(tmp_path / f"labels/{row.id}.png", labels, digits_dataset.classes)
            store(part, [Prediction(number, row.id, labels, levels)])
    close_part(tmp_path, 0, np.zeros((11, confidence.BINS), np.int64))
    join_parts(tmp_path, 1, tmp_path / "predictions.h5", {})
    return Data(
        drawn, digits_dataset, drawn_rows["train"][:4], rows, tmp_path / "labels",
        drawn_rows["val"], tmp_path / "predictions.h5",
    )  # fmt: skip


LOGITS = torch.tensor([[2.0, -1.0, 1.0], [0.0, 3.0, 0.0]]).view(2, 3, 1, 1)


def test_ow_weighs_with_the_confidence_that_it_is_given():
    """One labeled and one pseudo-labeled pixel, calculated by hand."""
    labels = torch.tensor([0, 1]).view(2, 1, 1)
    found = dynamic_loss(LOGITS, labels, 1, 3.0, None, torch.full((1, 1, 1), 0.5))
    ce = -LOGITS.log_softmax(1).view(2, 3)
    expected = (ce[0, 0] + 0.5**3 * ce[1, 1]) / 2
    torch.testing.assert_close(found, expected)


def test_the_confidence_of_ow_is_warped_with_its_label(data, digits_dataset):
    of = partial(sample, data, stage(weighting="original"), small_model(digits_dataset))
    sure, unsure = confidence.probabilities()[[40000, 20000]]
    assert 0.5 < unsure < sure
    seen = set()
    for number in range(12):
        _, label, weight = of(Draw(PSEUDO, number, number % 4))
        expected = np.select([label == 3, label == 8], [sure, unsure], 0.0)
        assert np.array_equal(weight.numpy(), expected.astype(np.float32))
        seen |= set(label.unique().tolist())
    assert seen == {3, 8, IGNORED}
    assert len(of(Draw(LABELED, 0, 0))) == 2


def test_a_confidence_of_a_squashed_image_lies_where_its_label_does(data, digits_dataset, tmp_path):
    """The image of 40x40 was predicted and labeled at 10x13."""
    classes = np.full((10, 13), 8, np.uint8)
    classes[:, :5] = 3
    levels = np.where(classes == 3, 40000, 20000).astype(np.uint16)
    with new_part(tmp_path / "small", 0) as part:
        for number, row in enumerate(data.pseudo):
            store(part, [Prediction(number, row.id, classes, levels)])
            write_indexed_png(tmp_path / f"labels/{row.id}.png", classes, digits_dataset.classes)
    close_part(tmp_path / "small", 0, np.zeros((11, confidence.BINS), np.int64))
    join_parts(tmp_path / "small", 1, tmp_path / "predictions.h5", {})
    squashed = replace(data, label_size=(10, 13))
    of = partial(sample, squashed, stage(weighting="original"), small_model(digits_dataset))
    sure, unsure = confidence.probabilities()[[40000, 20000]]
    for number in range(12):
        _, label, weight = of(Draw(PSEUDO, number, number % 4))
        expected = np.select([label == 3, label == 8], [sure, unsure], 0.0)
        assert np.array_equal(weight.numpy(), expected.astype(np.float32))


def loss_of_first_step(data, settings, model):
    """Return the loss, the logits in training mode, the labels, and the batch."""
    objective, batch = first_batch(data, settings, model, torch.device("cpu"))
    model.network.train()
    state = {key: value.clone() for key, value in model.network.state_dict().items()}
    ((name, found, now),) = objective.losses(batch, Step(0, settings.steps, 1, 1))
    assert (name, now) == ("network", True)
    model.network.load_state_dict(state)
    images, labels = (
        torch.cat([parts[part] for parts in batch.values()]) for part in ("image", "label")
    )
    return found, logits_of(model, images), labels, batch


def test_ow_counts_the_stored_confidence_and_not_the_current_one(data, digits_dataset):
    settings = stage(weighting="original")
    model = small_model(digits_dataset)
    found, logits, labels, batch = loss_of_first_step(data, settings, model)
    weights = batch["pseudo"]["confidence"]
    expected = dynamic_loss(logits, labels.long(), 2, settings.gamma, None, weights)
    torch.testing.assert_close(found, expected)
    assert not torch.isclose(found, dynamic_loss(logits, labels.long(), 2, settings.gamma))


def test_online_labels_are_the_winners_above_the_threshold():
    inside = torch.zeros(2, 1, 1, dtype=torch.int64)
    assert online_labels(LOGITS, inside, 0.0).flatten().tolist() == [0, 1]
    # The likeliest classes have p = 0.705 and 0.909.
    assert online_labels(LOGITS, inside, 0.7).flatten().tolist() == [0, 1]
    assert online_labels(LOGITS, inside, 0.9).flatten().tolist() == [IGNORED, 1]
    outside = torch.tensor([0, IGNORED]).view(2, 1, 1)
    assert online_labels(LOGITS, outside, 0.0).flatten().tolist() == [0, IGNORED]


@pytest.mark.parametrize("threshold", [0.0, 0.2])
def test_ost_learns_from_what_it_says_itself_of_the_view_it_sees(data, digits_dataset, threshold):
    """The network labels in training mode, without a gradient; no pseudo-label file is read."""
    settings = stage(online_threshold=threshold, gamma=0)
    online = replace(data, pseudo_folder=None, predictions=None)
    model = small_model(digits_dataset)
    found, logits, labels, _ = loss_of_first_step(online, settings, model)
    assert set(labels[2:].unique().tolist()) <= {0, IGNORED}
    sure, winner = logits.detach().softmax(1).max(1)
    own = labels.long()
    own[2:] = torch.where((labels[2:] != IGNORED) & (sure[2:] > threshold), winner[2:], IGNORED)
    torch.testing.assert_close(found, dynamic_loss(logits, own, 2, 0.0))


def test_na_resizes_the_whole_image_and_leaves_its_colours(data, digits_dataset):
    settings = stage(augment_pseudo=False)
    of = partial(sample, data, settings, small_model(digits_dataset))
    first, again = of(Draw(PSEUDO, 0, 1)), of(Draw(PSEUDO, 77, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    image, label = first
    # 40 pixels are resized to 24, so the border between the halves is at column 12.
    assert (label[:, :12] == 3).all() and (label[:, 12:] == 8).all()
    picture = open_image(data.root / data.pseudo[1].image)
    plain = picture.transform(
        (24, 24), Image.Transform.AFFINE, (40 / 24, 0, 0, 0, 40 / 24, 0), Image.Resampling.BILINEAR
    )
    # Pillow and OpenCV round interpolation weights differently.
    np.testing.assert_allclose(
        image.numpy().transpose(1, 2, 0)[1:-1, 1:-1].astype(int),
        np.asarray(plain)[1:-1, 1:-1].astype(int),
        atol=2,
    )
    labeled = [of(Draw(LABELED, number, 1))[0] for number in (0, 77)]
    assert not torch.equal(*labeled)


def test_the_whole_image_fills_a_crop_of_another_shape():
    pixels = np.repeat(np.arange(4, dtype=np.uint8)[:, None], 6, 1)
    found = whole((4, 6), (8, 3)).label(pixels)
    assert found.tolist() == [[row // 2] * 3 for row in range(8)]


class Constant(torch.nn.Module):
    """Returns logits of two pixels for any image: p = (0.7, 0.2, 0.1) and (0.35, 0.45, 0.2)."""

    stages, stride, grid = 1, 1, 1

    def forward(self, images):
        p = torch.tensor([[0.7, 0.35], [0.2, 0.45], [0.1, 0.2]])
        return p.log().view(1, 3, 1, 2).expand(len(images), -1, -1, -1)


def log_odds(*probabilities):
    return [float(np.log(p / (1 - p))) for p in probabilities]


@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [
        # p / t = 0.78 0.4 0.53 and 0.39 0.9 1.05: class 2, although class 1 is more probable.
        (log_odds(0.9, 0.5, 0.19), [IGNORED, 2]),
        # p / t = 1.17 2 0.11 and 0.58 4.5 0.22: class 1 twice.
        (log_odds(0.6, 0.1, 0.9), [1, 1]),
        # A class without a threshold labels nothing.
        ([*log_odds(0.6), np.inf, *log_odds(0.9)], [0, IGNORED]),
        # alpha 1: every pixel gets its likeliest class.
        ([-np.inf] * 3, [0, 1]),
    ],
)
def test_cbst_takes_the_class_that_is_largest_in_proportion_to_its_threshold(
    drawn, drawn_rows, digits_dataset, thresholds, expected, monkeypatch
):
    model = replace(small_model(digits_dataset), network=Constant())
    pixels = torch.zeros(1, 3, 1, 2)
    monkeypatch.setattr(labeling_pass, "loader_of", lambda *_: [(pixels,)])
    found = labeling_pass.normalized_labels(
        model, drawn, drawn_rows["train"][:1], thresholds, Inference(batch=1, tile=2048),
        torch.device("cpu"),
    )  # fmt: skip
    ((id, labels),) = found
    assert id == drawn_rows["train"][0].id and labels.flatten().tolist() == expected


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study with one method of each kind, and the settings of the methods."""
    kinds = {
        "ow": {"curriculum": [0.5], "weighting": "original"},
        "cbst": {"curriculum": [0.5], "rule": "normalized", "gamma": 0},
        "dst": {"curriculum": [0.5]},
        "ost-na": {"labeling": "online", "gamma": 0, "augment_pseudo": False},
    }
    runs = [{"splits": ["6"], "seeds": [0], "methods": list(kinds)}]
    project = Project.create(tmp_path_factory.mktemp("methods") / "project", runs=runs)
    project.write(project.root / "workflow/methods.yaml", kinds)
    project.snakemake()
    return project, kinds


@pytest.mark.slow
def test_every_kind_of_method_runs_in_one_study_and_nothing_is_made_twice(study):
    project, kinds = study
    assert not project.jobs()
    folder = project.study / "6_0"
    models = {name: (folder / name / "round1/last.pt").read_bytes() for name in kinds}
    assert len(set(models.values())) == len(kinds)
    labels = {
        name: {path.name: path.read_bytes() for path in (folder / name).rglob("*.png")}
        for name in kinds
    }
    assert labels["ow"] == labels["dst"] and len(labels["dst"]) == 8
    assert labels["cbst"].keys() == labels["dst"].keys()
    # The rule of cbst needs the logits of all classes, so its labeling stage runs the network;
    # the other methods read predictions.h5.
    logs = project.study / "logs/6_0"
    passes = {name for name in kinds if "device" in _log(logs / name / "round1/pseudo_labels.log")}
    assert passes == {"cbst"}
    assert labels["ost-na"] == {} and not (folder / "ost-na/round1/thresholds.csv").exists()
    galleries = {path.parent.name for path in folder.rglob("gallery.html")}
    assert galleries == set(kinds) - {"ost-na"}
    said = project.snakemake("-n", "results/tiny/6_0/ost-na/gallery.html", fails=True)
    assert "6_0/ost-na: has no pseudo label files to show" in said
    # No method has several rounds, so there are no figures over rounds.
    assert {path.name for path in project.study.rglob("*.svg")} == {"cost.svg"}
    summary = (project.study / "summary.csv").read_text()
    assert all(f"6,0,6,8,{name},1,best" in summary for name in kinds)


def _log(path):
    return path.read_text() if path.is_file() else ""


@pytest.mark.slow
def test_the_saved_state_of_ost_is_dropped_when_an_unlabeled_image_changes(study, tmp_path):
    project, _ = study
    folder = project.study / "6_0/ost-na/round1"
    settings = json.loads((folder / "settings.json").read_text())
    # So many steps that the training ends only when a signal asks it to.
    settings["train"].update(steps=100_000, validate_at=[*range(2, 400, 2), 100_000])
    (tmp_path / "plan.json").write_text(json.dumps(settings))
    index, unlabeled = tmp_path / "dataset.csv", project.study / "splits/6_0.unlabeled.txt"
    rows = (project.study / "dataset.csv").read_text()
    command = [
        sys.executable, str(project.root / "scripts/train.py"),
        "--settings", tmp_path / "plan.json", "--data", project.root / EXPERIMENT["data"],
        "--index", index, "--labeled", project.study / "splits/6_0.labeled.txt",
        "--previous", project.study / "6_0/supervised/model.pt",
        "--unlabeled", unlabeled, "--out", tmp_path / "out", "--resume", tmp_path / "state",
        "--save-seconds", "1000", "--workers", "0",
    ]  # fmt: skip

    def begin_and_stop():
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stage:
            said = []
            for line in stage.stdout:
                said.append(line)
                if "/100000" in line:
                    stage.send_signal(signal.SIGTERM)
                    break
            said.extend(stage.stdout)
        assert stage.returncode == 143, said
        return "".join(said)

    (tmp_path / "out").mkdir()
    index.write_text(rows)
    assert "resumed" not in begin_and_stop()
    assert "resumed at step" in begin_and_stop()
    # Change the checksum of one image, as the data check would after its content changed.
    first = unlabeled.read_text().split()[0]
    (changed,) = [row for row in rows.splitlines() if row.startswith(f"{first},")]
    other = re.sub(r"[0-9a-f]{64}", "0" * 64, changed)
    assert other != changed
    index.write_text(rows.replace(changed, other))
    assert "resumed" not in begin_and_stop()
