"""Rounds that lose, in studies that are written by hand."""

import json
import runpy
import sys

import numpy as np
import pytest

from dst_cbc.inference.confusions import Confusions, write_confusions
from dst_cbc.report.agreement import COLUMNS as AGREEMENT
from dst_cbc.report.losing import (
    Loss,
    compared_on_val,
    comparison_notes,
    falling_agreement,
    losses,
    notes,
    vanished_classes,
    worse_on_val,
)
from dst_cbc.runtime.files import write_json
from dst_cbc.runtime.tables import write_csv
from workflow import SCRIPTS

IMAGES = ("fox", "cat", "dog", "owl", "hen", "elk")
"""Names without numbers, so that each image is a group of its own."""


class Study:
    """A made-up study of one split, whose chain is `12_0/dst-cbc`."""

    def __init__(self, folder):
        self.folder, self.models = folder, []
        self.knows(IMAGES)

    def knows(self, ids):
        self.ids = ids
        write_csv(self.folder / "dataset.csv", ["id"], ({"id": id} for id in ids))

    def settings(self, name, **settings):
        path = self.folder / "12_0" / name / "settings.json"
        before = json.loads(path.read_text()) if path.is_file() else {}
        write_json(path, {"train": {"steps": 1}, "network": None, **before, **settings})

    def model(self, name, right, subset="val", checkpoint="last"):
        """Add a model that has `right` of the 50 pixels of each of two classes, by image."""
        right = [right] * len(self.ids) if isinstance(right, int) else right
        matrices = np.array([[[k, 50 - k], [50 - k, k]] for k in right])
        found = {(checkpoint, subset): Confusions([*self.ids], matrices)}
        write_confusions(self.folder / "12_0" / name / "confusions.csv", found)
        figures = {
            "images": len(right), "miou": 50.0, "pixel_accuracy": 50.0, "classes": ["sky", "road"],
            "iou": {},
        }  # fmt: skip
        metrics = {"round": 0, "subsets": {subset: figures}}
        write_json(
            self.folder / "12_0" / name / "metrics.json", dict.fromkeys(("best", "last"), metrics)
        )
        self.settings(name)
        self.models.append(f"12_0/{name}")

    def chain(self, *right, **where):
        for round, of_round in enumerate(right):
            self.model(f"dst-cbc/round{round}" if round else "supervised", of_round, **where)

    def labels(self, round, alpha, *images, **cells):
        """Add the labels of a round. images: labeled pixels of sky and road* in each image."""
        name, cells = f"dst-cbc/round{round}", {"edited": "", **cells}
        rows = [{"pixels sky": sky, "pixels road*": road, **cells} for sky, road in images]
        manifest = self.folder / "12_0" / name / "pseudo_labels.csv"
        write_csv(manifest, ["pixels sky", "pixels road*", *cells], rows)
        self.settings(name, thresholds={"alpha": str(alpha), "balance": "class"})
        self.models.append(f"12_0/{name}")

    def agrees(self, *rounds, both=100):
        """Write agreement.csv. rounds: pixels of each image that agree, from round 2 on."""
        both = [both] * len(self.ids) if isinstance(both, int) else both
        values = [[(None, None)] * len(self.ids), *(zip(both, of, strict=True) for of in rounds)]
        rows = [
            {"id": id, "round": round, "both": both, "same": same}
            for round, of_round in enumerate(values, 1)
            for id, (both, same) in zip(self.ids, of_round, strict=True)
        ]
        write_csv(
            self.folder / "12_0/dst-cbc/agreement.csv",
            AGREEMENT,
            (dict.fromkeys(AGREEMENT) | row for row in rows),
        )
        for round in range(1, len(values) + 1):
            self.settings(f"dst-cbc/round{round}")
            self.models.append(f"12_0/dst-cbc/round{round}")

    def signs(self, kind):
        return list(kind(self.folder, self.models))

    def rounds(self, kind):
        return [loss.path.removeprefix("12_0/dst-cbc/") for loss in self.signs(kind)]


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


# --------------------------------------------------------------------------- mIoU on val


def test_a_round_is_compared_with_the_best_one_before_it(study):
    # 40 of 50 are an IoU of 40/60, 35 of 35/65, 30 of 30/70.
    study.chain(30, 40, 35, 30)
    second, third = study.signs(worse_on_val)
    assert second == Loss(
        "12_0/dst-cbc/round2",
        "mIoU on `val` after the last step, against `12_0/dst-cbc/round1`: -12.8 points (95 % "
        "interval -12.8 to -12.8 over 6 images in 6 groups; over 99 % sure); use "
        "`12_0/dst-cbc/round1/last.pt`, and try a lower train.learning_rate or fewer train.steps",
    )
    assert third.path == "12_0/dst-cbc/round3"
    assert "against `12_0/dst-cbc/round1`: -23.8 points" in third.sentence


def test_round_0_is_that_of_supervised(study):
    study.chain(40, 30)
    (loss,) = study.signs(worse_on_val)
    assert loss.path == "12_0/dst-cbc/round1" and "against `12_0/supervised`" in loss.sentence


def test_on_few_images_each_comparison_says_how_sure_it_is(study):
    study.chain(30, 40, 35)
    heading, _, first, second = comparison_notes(
        compared_on_val(study.folder, study.models)
    ).splitlines()
    assert heading.startswith("Few images: each last step against the best last step before it")
    assert first.startswith("* `12_0/dst-cbc/round1` against `12_0/supervised`: +23.8 points (")
    assert second.startswith(
        "* `12_0/dst-cbc/round2` against `12_0/dst-cbc/round1`: -12.8 points ("
    )
    study.knows([f"a{number}x" for number in range(30)])
    study.chain(30, 40, 35)
    assert comparison_notes(compared_on_val(study.folder, study.models)) == ""


def test_a_round_that_trained_nothing_is_compared_with_nothing(study):
    study.chain(30, 40, 35)
    run = {"commit": None, "device": "cpu", "versions": {}, "seconds": 0, "stopped": "why"}
    write_json(study.folder / "12_0/dst-cbc/round2/run.json", run)
    assert "round2` against" not in comparison_notes(compared_on_val(study.folder, study.models))
    assert study.rounds(worse_on_val) == []


def test_a_difference_within_its_interval_is_no_loss(study):
    study.chain(30, [20, 20, 20, 39, 39, 39])
    assert study.rounds(worse_on_val) == []
    study.chain(30, [20, 20, 20, 29, 29, 29])
    assert study.rounds(worse_on_val) == ["round1"]


def test_the_best_of_several_rounds_must_be_beaten_by_more(study):
    """The chance of these images is 2 %: small against one round, not against the best of five."""
    worse = [32, 27, 27, 27, 27, 27]
    study.chain(30, worse)
    assert study.rounds(worse_on_val) == ["round1"]
    study.chain(30, 29, 29, 29, 29, worse)
    assert study.rounds(worse_on_val) == ["round1", "round2", "round3", "round4"]


def test_rounds_are_in_the_order_of_their_numbers_and_counted_once(study):
    study.chain(*range(30, 41), 39)
    study.models = sorted([*study.models, *study.models])
    (loss,) = study.signs(worse_on_val)
    assert loss.path == "12_0/dst-cbc/round11" and "against `12_0/dst-cbc/round10`" in loss.sentence


@pytest.mark.parametrize("where", [{"subset": "test"}, {"checkpoint": "best"}])
def test_only_last_steps_on_val_are_compared(study, where):
    study.chain(40, 30, **where)
    assert study.rounds(worse_on_val) == []


def test_an_earlier_version_had_no_confusions(study):
    study.chain(40, 30, 20)
    (study.folder / "12_0/supervised/confusions.csv").unlink()
    (loss,) = study.signs(worse_on_val)
    assert loss.path == "12_0/dst-cbc/round2" and "against `12_0/dst-cbc/round1`" in loss.sentence
    (study.folder / "12_0/dst-cbc/round1/confusions.csv").unlink()
    assert study.rounds(worse_on_val) == []


@pytest.mark.parametrize("pattern, groups", [(None, 6), ("(.)", 6), (".(.)", 5), (".*(e|o|a)", 3)])
@pytest.mark.parametrize("of_pairs", [True, False])
def test_images_are_resampled_by_the_groups_of_the_data_set(study, pattern, groups, of_pairs):
    study.chain(40, 30)
    dataset = {"pairs": {"group": pattern}} if of_pairs else {"grouping": pattern}
    study.settings("dst-cbc/round1", dataset=dataset)
    (loss,) = study.signs(worse_on_val)
    assert f"6 images in {groups} groups" in loss.sentence


@pytest.mark.parametrize("dataset, groups", [({}, 4), ({"grouping": 3}, 3)])
def test_frames_of_one_sequence_are_few_groups(study, dataset, groups):
    study.knows([f"frame{number}" for number in range(8)])
    study.chain(40, 30)
    study.settings("dst-cbc/round1", dataset=dataset)
    (loss,) = study.signs(worse_on_val)
    assert f"8 images in {groups} groups" in loss.sentence


# ------------------------------------------------------------------------ vanished classes


def test_a_vanished_class_is_named_with_its_pixels_then_and_now(study):
    study.labels(1, 0.2, (900, 5000), (900, 5000))
    study.labels(2, 0.4, (10, 9000), (7, 9000))
    assert study.signs(vanished_classes) == [
        Loss(
            "12_0/dst-cbc/round2",
            "the pseudo labels have lost class 'sky' (1,800 pixels in `12_0/dst-cbc/round1`, now "
            "17); label more images that show it, or set train.class_weights to balanced",
        )
    ]


@pytest.mark.parametrize(
    "sky, alphas, expected",
    [
        ([1000, 9], [0.2, 0.4], ["round2"]),
        ([1000, 10], [0.2, 0.4], []),
        # A slow decline is seen, too, and each end is said once.
        ([1000, 100, 9, 0], [0.2, 0.4, 0.6, 0.8], ["round3"]),
        ([1000, 0, 500, 1], [0.2, 0.4, 0.6, 0.8], ["round2", "round4"]),
        ([0, 0, 0], [0.2, 0.4, 0.6], []),
        # With the same alpha, but not with a smaller one.
        ([1000, 0], [0.4, 0.4], ["round2"]),
        ([1000, 0, 0], [0.4, 0.2, 0.6], []),
        # A pixel in one of two images is noise.
        ([1, 0], [0.2, 0.4], []),
        ([2, 0], [0.2, 0.4], ["round2"]),
    ],
)
def test_a_class_vanishes_below_a_hundredth_of_the_pixels_that_it_had(study, sky, alphas, expected):
    for round, (pixels, alpha) in enumerate(zip(sky, alphas, strict=True), 1):
        study.labels(round, alpha, (pixels, 5000), (0, 5000))
    assert study.rounds(vanished_classes) == expected


def test_several_classes_are_one_sign(study):
    study.labels(1, 0.2, (900, 500))
    study.labels(2, 0.4, (0, 0))
    (loss,) = study.signs(vanished_classes)
    first = "lost class 'sky' (900 pixels in `12_0/dst-cbc/round1`, now 0), "
    assert f"{first}class 'road\\*' (500 pixels" in loss.sentence


def test_what_masks_of_unlabeled_images_say_is_not_read(study):
    """These columns and this file have the accuracy of the labels; here, they are damaged."""
    for round, sky in ((1, 900), (2, 0)):
        study.labels(round, 0.2, (sky, 5000), correct="x", compared="x", accuracy="x")
        folder = study.folder / f"12_0/dst-cbc/round{round}"
        (folder / "pseudo_labels.quality.csv").write_bytes(b"\0")
    assert study.rounds(vanished_classes) == ["round2"]


# ---------------------------------------------------------------------- falling agreement


def test_a_fall_of_agreement_is_said_with_its_interval(study):
    """By hand: the mean of 12, 16, 14 and 18 is 15, its standard error sqrt(20 / 3 / 4).

    Student's t of three degrees of freedom is 3.182.
    """
    study.knows(IMAGES[:4])
    study.agrees([100] * 4, [88, 84, 86, 82])
    assert study.signs(falling_agreement) == [
        Loss(
            "12_0/dst-cbc/round3",
            "85.0 % of the pixels labeled in this round and in the one before keep their class, "
            "100.0 % in the round before: -15.0 points (95 % interval -19.1 to -10.9 over 4 images "
            "in 4 groups; over 99 % sure); look at `12_0/dst-cbc/gallery.html`, which begins with "
            "the images that agree least",
        )
    ]


@pytest.mark.parametrize(
    "rounds, expected",
    [
        # By hand: 20 points less or more 1.5 · 12.706, and 1.49 · 12.706.
        ([[1000, 1000], [815, 785]], []),
        ([[1000, 1000], [814.9, 785.1]], ["round3"]),
        # More pixels, less sure: a fall of a point is no loss.
        ([[1000, 1000], [991, 991]], []),
        ([[1000, 1000], [989, 989]], ["round3"]),
        # From one round to the next, and not in sum.
        ([[1000, 1000], [991, 991], [982, 982]], []),
        ([[1000, 1000], [900, 900], [900, 900], [800, 800]], ["round3", "round5"]),
        ([[900, 900], [1000, 1000]], []),
    ],
)
def test_agreement_must_fall_by_more_than_a_point_and_its_interval(study, rounds, expected):
    study.knows(IMAGES[:2])
    study.agrees(*([round(10 * same) for same in of] for of in rounds), both=10000)
    assert study.rounds(falling_agreement) == expected


def test_agreement_is_over_pixels_and_not_over_images(study):
    study.knows(IMAGES[:4])
    study.agrees([100, 900, 100, 900], [80, 810, 80, 810], both=[100, 900, 100, 900])
    (loss,) = study.signs(falling_agreement)
    assert loss.sentence.startswith("89.0 % of the pixels")


def test_agreement_falls_over_groups_of_images(study):
    study.knows(["fox/a", "fox/b", "cat/a", "cat/b", "dog/a", "dog/b"])
    study.agrees([100] * 6, [70, 80, 80, 90, 80, 80])
    (loss,) = study.signs(falling_agreement)
    assert "-20.0 points (95 % interval -26.6 to -13.4 over 6 images in 6 groups" in loss.sentence
    study.settings("dst-cbc/round3", dataset={"pairs": {"group": "(fox|cat|dog)/"}})
    (loss,) = study.signs(falling_agreement)
    # By hand: the groups fall by 25, 15 and 20; 4.303 · 5 / sqrt(3).
    assert "-20.0 points (95 % interval -32.4 to -7.6 over 6 images in 3 groups" in loss.sentence
    study.settings("dst-cbc/round3", dataset={"pairs": {"group": "(/)"}})
    with np.errstate(all="raise"):
        assert study.rounds(falling_agreement) == []


# ------------------------------------------------------------------------ where it is said


def test_notes_are_a_list_of_all_signs(study):
    assert notes(losses(study.folder, study.models)) == ""
    study.chain(40, 30, 30)
    study.labels(1, 0.2, (900, 500))
    study.labels(2, 0.4, (0, 500))
    study.agrees([100] * 6, [50] * 6)
    heading, empty, *lines = notes(losses(study.folder, study.models)).splitlines()
    assert (heading, empty) == ("Rounds that lose:", "")
    assert [line.partition(": ")[0] for line in lines] == [
        f"* `12_0/dst-cbc/round{round}`" for round in (1, 2, 2, 3)
    ]


@pytest.fixture
def run(study, monkeypatch, capsys):
    """Return a function that runs a script on a study with all signs, and returns its output."""
    study.chain(40, 30, 30)
    study.labels(1, 0.2, (900, 500))
    study.labels(2, 0.4, (0, 500))
    study.agrees([100] * 6, [50] * 6)
    monkeypatch.setenv("MPLCONFIGDIR", str(study.folder))

    def start(script, *words):
        monkeypatch.setattr(sys, "argv", [script, str(study.folder), *map(str, words)])
        runpy.run_path(str(SCRIPTS / script))["run"]()
        return capsys.readouterr().out

    csv, markdown = study.folder / "summary.csv", study.folder / "summary.md"
    models = list(dict.fromkeys(study.models))
    start.summarize = lambda: start("summarize.py", *models, "--csv", csv, "--markdown", markdown)
    return start


def test_the_summary_has_what_its_inputs_tell(study, run):
    """agreement.csv is made after the summary, which must not depend on whether it is there."""
    printed = run.summarize()
    assert (study.folder / "summary.md").read_text() == printed
    assert (
        "Rounds that lose:" in printed
        and printed.count("`val` after the last step, against `12_0/supervised`") == 2
    )
    assert "have lost class 'sky'" in printed and "keep their class" not in printed


def test_the_log_of_the_figures_has_all_signs(study, run):
    run.summarize()
    printed = run("figures.py", "rounds", "--subset", "val", "--out", study.folder)
    for sign in ("against `12_0/supervised`", "have lost class 'sky'", "keep their class"):
        assert sign in printed
