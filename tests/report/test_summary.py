import json

import pytest

from dst_cbc.report.summary import (
    COLUMNS,
    folder_of,
    interval_notes,
    published_note,
    read_summary,
    share_notes,
    stopped_notes,
    summarize,
    with_seconds,
)
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.tables import write_csv

STEPS = {
    "supervised": 100,
    "dst-cbc/round1": 20,
    "dst-cbc/round2": 20,
    "supervised-long/round1": 140,
    "supervised-passes/round1": 170,
}


@pytest.fixture
def study(tmp_path):
    """Return a function that writes one model of a made-up study.

    ended: (round, step) of the last model, if its training has not taken all steps.
    """

    def write(path, best, last=None, origin=None, subsets=("val",), ended=None):
        folder = tmp_path / path
        folder.mkdir(parents=True, exist_ok=True)
        name = path.split("/", 1)[1]
        on_labels = name.startswith("supervised")
        round = int(name[-1]) if "round" in name else 0
        train = {"steps": STEPS[name], "round": round}
        settings = {"train": train, "network": {} if on_labels else None}
        (folder / "settings.json").write_text(json.dumps(settings))
        last_round, last_step = ended or (round, STEPS[name])
        metrics = {
            checkpoint: {
                "round": from_round,
                "step": step,
                "subsets": {
                    s: {
                        "images": 3,
                        "miou": score,
                        "pixel_accuracy": 90.0,
                        "classes": [],
                        "iou": {},
                    }
                    for s in subsets
                },
            }
            for checkpoint, score, from_round, step in (
                ("best", best, round if origin is None else origin, 5),
                ("last", best if last is None else last, last_round, last_step),
            )
        }
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return folder

    write.folder = tmp_path
    return write


def only(rows, **wanted):
    (row,) = [r for r in rows if all(r[key] == value for key, value in wanted.items())]
    return row


def test_gain_is_over_supervised_of_the_same_split_checkpoint_and_subset(study):
    study("12_0/supervised", 40.0, 38.0)
    study("12_1/supervised", 50.0)
    study("12_0/dst-cbc/round1", 43.5, 42.0)
    rows = summarize(
        study.folder, ["12_0/supervised", "12_1/supervised", "12_0/dst-cbc/round1"], ["val"]
    )
    assert all(list(row.keys() ^ set(COLUMNS)) == [] for row in rows)
    assert only(rows, method="dst-cbc", checkpoint="best")["gain"] == 3.5
    assert only(rows, method="dst-cbc", checkpoint="last")["gain"] == 4.0
    assert only(rows, seed=1, checkpoint="best")["gain"] == 0


def test_the_control_has_a_gain_and_is_nobodys_baseline(study):
    study("12_0/supervised", 40.0)
    study("12_0/dst-cbc/round1", 43.0)
    study("12_0/supervised-long/round1", 41.5)
    paths = ["12_0/supervised", "12_0/dst-cbc/round1", "12_0/supervised-long/round1"]
    rows = summarize(study.folder, paths, ["val"])
    gains = [row["gain"] for row in rows if row["checkpoint"] == "best"]
    assert gains == [0, 3, 1.5]


def test_a_row_says_split_seed_round_and_where_the_model_comes_from(study):
    study("12_3/supervised", 40.0)
    study("12_3/dst-cbc/round1", 44.0)
    study("12_3/dst-cbc/round2", 45.0, origin=1)
    rows = summarize(study.folder, ["12_3/supervised", "12_3/dst-cbc/round2"], ["val"])
    best = only(rows, method="dst-cbc", checkpoint="best")
    assert (best["split"], best["seed"], best["method"], best["round"]) == ("12", 3, "dst-cbc", 2)
    assert (best["origin_round"], best["selected_on"], best["images"]) == (1, "val", 3)
    assert rows[0]["round"] == 0 and rows[0]["method"] == "supervised"


def test_a_selection_in_the_folder_name_is_reported(study):
    study("106_0_valtiny/supervised", 40.0)
    rows = summarize(study.folder, ["106_0_valtiny/supervised"], ["val"])
    assert {row["selected_on"] for row in rows} == {"valtiny"}


def test_rounds_that_trained_nothing_are_named_with_the_reason(study):
    folder = study("12_0/dst-cbc/round2", 41.0)
    assert stopped_notes(study.folder, ["12_0/dst-cbc/round2"]) == ""
    run = {"commit": None, "device": "cpu", "versions": {}, "seconds": 0, "stopped": "no *gain*"}
    (folder / "run.json").write_text(json.dumps(run))
    heading, _, line = stopped_notes(study.folder, ["12_0/dst-cbc/round2"]).splitlines()
    assert heading.startswith("Rounds that trained nothing")
    assert line == r"* `12_0/dst-cbc/round2`: no \*gain\*"


def test_steps_that_were_not_taken_do_not_count(study):
    study("12_0/supervised", 40.0)
    study("12_0/dst-cbc/round1", 41.0, ended=(1, 8))
    study("12_0/dst-cbc/round2", 41.0, ended=(1, 8))
    paths = ["12_0/supervised", "12_0/dst-cbc/round1", "12_0/dst-cbc/round2"]
    rows = summarize(study.folder, paths, ["val"])
    assert [row["steps"] for row in rows if row["checkpoint"] == "last"] == [100, 108, 108]


def test_steps_are_those_of_the_whole_chain(study):
    paths = [f"12_0/{name}" for name in STEPS]
    for path in paths:
        study(path, 40.0)
    rows = summarize(study.folder, paths, ["val"])
    steps = {(r["method"], r["round"]): r["steps"] for r in rows}
    assert steps == {
        ("supervised", 0): 100,
        ("dst-cbc", 1): 120,
        ("dst-cbc", 2): 140,
        ("supervised-long", 1): 140,
        ("supervised-passes", 1): 170,
    }


def test_missing_runs_are_rows_without_figures(study):
    study("12_0/supervised", 40.0)
    rows = summarize(study.folder, ["12_0/supervised", "12_0/dst-cbc/round1"], ["val"])
    missing = only(rows, method="dst-cbc", checkpoint="best")
    assert [missing[key] for key in ("miou", "gain", "steps", "images", "origin_round")] == [
        None
    ] * 5


def test_without_the_baseline_there_is_no_gain(study):
    study("12_0/supervised", 40.0)
    study("12_0/dst-cbc/round1", 43.0)
    (best, _) = summarize(study.folder, ["12_0/dst-cbc/round1"], ["val"])
    assert best["gain"] is None and best["miou"] == 43.0


def test_an_undefined_figure_has_no_gain(study):
    study("12_0/supervised", None)
    study("12_0/dst-cbc/round1", 43.0)
    rows = summarize(study.folder, ["12_0/supervised", "12_0/dst-cbc/round1"], ["val"])
    assert {row["gain"] for row in rows} == {None}


def test_what_was_edited_by_hand_marks_this_round_and_all_later_ones(study):
    study("12_0/supervised", 40.0)
    first = study("12_0/dst-cbc/round1", 41.0)
    second = study("12_0/dst-cbc/round2", 42.0)
    (first / "thresholds.edited.csv").write_text("")
    (second / "pseudo_labels.csv").write_text("id,edited\na,\nb,yes\n")
    paths = ["12_0/supervised", "12_0/dst-cbc/round1", "12_0/dst-cbc/round2"]
    rows = summarize(study.folder, paths, ["val"])
    edited = [row["edited"] for row in rows if row["checkpoint"] == "best"]
    assert edited == ["", "thresholds of round1", "thresholds of round1, labels of round2"]


def test_untouched_labels_are_not_called_edited(study):
    folder = study("12_0/dst-cbc/round1", 41.0)
    study("12_0/supervised", 40.0)
    (folder / "pseudo_labels.csv").write_text("id,edited\na,\n")
    rows = summarize(study.folder, ["12_0/dst-cbc/round1"], ["val"])
    assert {row["edited"] for row in rows} == {""}


def test_a_row_says_how_many_images_of_its_split_are_labeled(study):
    study("12_0/supervised", 40.0)
    study("1_0/supervised", 60.0)
    splits = study.folder / "splits"
    splits.mkdir()
    (splits / "12_0.labeled.txt").write_text("a\nb\n")
    (splits / "12_0.unlabeled.txt").write_text("c\nd\ne\n")
    rows = summarize(study.folder, ["12_0/supervised", "1_0/supervised"], ["val"])
    assert {(r["split"], r["labeled"], r["unlabeled"]) for r in rows} == {
        ("12", 2, 3),
        ("1", None, None),
    }


def test_splits_whose_lists_are_the_published_ones_are_named(study, monkeypatch):
    monkeypatch.setattr(
        "dst_cbc.report.summary.published",
        lambda labeled, unlabeled: "20_1 of voc" if [*labeled, *unlabeled] == ["a", "b"] else "",
    )
    splits = study.folder / "splits"
    splits.mkdir()
    paths = [f"{division}/supervised" for division in ("20_1", "8_0", "20_1_valtiny", "4_0")]
    for path in paths:
        study(path, 40.0)
    for division, labeled in (("20_1", "a"), ("20_1_valtiny", "a"), ("8_0", "c"), ("1_0", "a")):
        (splits / f"{division}.labeled.txt").write_text(f"{labeled}\n")
        (splits / f"{division}.unlabeled.txt").write_text("b\n")
    rows = summarize(study.folder, paths, ["val"])
    note = "Identical to the published split: 20_1, 20_1_valtiny."
    assert published_note(study.folder, rows) == note
    assert published_note(study.folder, rows[2:4]) == ""


@pytest.mark.parametrize(
    "balance, alpha, expected",
    [
        (
            "class",
            "0.2",
            ["`12_0/dst-cbc/round1`, class 'road_1': 35.00% of the pixels are kept"],
        ),
        ("global", "0.2", ["`12_0/dst-cbc/round1`, all classes: 27.50% of the pixels are kept"]),
        ("global", "0.275", []),
    ],
)
def test_classes_that_keep_another_share_than_the_curriculum_s_are_named(
    study, balance, alpha, expected
):
    study("12_0/supervised", 40.0)
    folder = study("12_0/dst-cbc/round1", 41.0)
    (folder / "thresholds.csv").write_text("name,pixels,kept\nsky,1000,200\nroad_1,1000,350\n")
    written = json.loads((folder / "settings.json").read_text())
    thresholds = {"algorithm": 1, "alpha": alpha, "balance": balance, "rule": "threshold"}
    (folder / "settings.json").write_text(json.dumps({**written, "thresholds": thresholds}))
    note = share_notes(study.folder, ["12_0/supervised", "12_0/dst-cbc/round1"])
    lines = [line for line in note.splitlines() if line.startswith("* ")]
    assert [line.split(", not")[0] for line in lines] == [f"* {line}" for line in expected]
    assert bool(note) == bool(expected)


def test_what_is_written_is_read_as_the_same_rows(study):
    study("12_0/supervised", 40.0)
    study("12_0/dst-cbc/round1", 41.5, origin=0)
    paths = ["12_0/supervised", "12_0/dst-cbc/round1", "12_0/dst-cbc/round2"]
    rows = summarize(study.folder, paths, ["val"])
    write_csv(study.folder / "summary.csv", COLUMNS, rows)
    assert read_summary(study.folder / "summary.csv") == rows


@pytest.mark.parametrize(
    "key, value", [("split", "../../etc"), ("split", "/etc"), ("method", "..")]
)
def test_a_row_cannot_name_a_folder_elsewhere(key, value, study):
    (row, _) = summarize(study.folder, ["12_0/supervised"], ["val"])
    with pytest.raises(DataError, match=r"summary\.csv: .* cannot be an id or a path"):
        folder_of({**row, key: value})


@pytest.mark.parametrize(
    "path", ["12_0/supervised", "12_0/dst-cbc/round2", "106_1_valtiny/st/round1"]
)
def test_a_row_names_the_folder_of_its_model(study, path):
    (row, _) = summarize(study.folder, [path], ["val"])
    assert str(folder_of(row)) == path


def test_seconds_are_those_of_the_models_own_training(study):
    (study("12_0/supervised", 40.0) / "run.json").write_text(
        '{"commit": null, "device": "cpu", "versions": {}, "seconds": 7.5}'
    )
    rows = summarize(study.folder, ["12_0/supervised", "12_0/dst-cbc/round1"], ["val"])
    assert [row["seconds"] for row in with_seconds(study.folder, rows)] == [7.5, 7.5, None, None]


@pytest.mark.parametrize("control", ["supervised-long", "supervised-passes"])
@pytest.mark.parametrize("network, seconds", [({}, 20.0), (None, 27.5)])
def test_a_control_that_continues_round_0_took_its_time_too(network, seconds, control, study):
    for path, own in (("12_0/supervised", 7.5), (f"12_0/{control}/round1", 20.0)):
        folder = study(path, 40.0)
        run = {"commit": None, "device": "cpu", "versions": {}, "seconds": own}
        (folder / "run.json").write_text(json.dumps(run))
        settings = {"train": {"steps": 1}, "network": network}
        (folder / "settings.json").write_text(json.dumps(settings))
    rows = summarize(study.folder, [f"12_0/{control}/round1"], ["val"])
    assert [row["seconds"] for row in with_seconds(study.folder, rows)] == [seconds] * 2


@pytest.mark.parametrize(
    "images, interval, said",
    [
        (1, [40, 44], "1 image: mIoU 41.00 % (unknown from one image)"),
        (3, [40, 44], "3 images: mIoU 41.00 % (40.00 to 44.00)"),
        (3, [None, None], "3 images: mIoU 41.00 % (unknown from one group)"),
    ],
)
def test_the_interval_of_one_image_or_group_is_unknown(study, images, interval, said):
    path = study("12_0/supervised", 41) / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["best"]["subsets"]["val"] |= {"images": images, "miou_interval": interval}
    path.write_text(json.dumps(metrics))
    (line,) = interval_notes(study.folder, ["12_0/supervised"], ["val"]).splitlines()[2:]
    assert line == f"* `12_0/supervised` on `val`, {said}"
    # Without labeled pixels, there is nothing to tell.
    metrics["best"]["subsets"]["val"] |= {"miou": None, "miou_interval": [None, None]}
    path.write_text(json.dumps(metrics))
    assert interval_notes(study.folder, ["12_0/supervised"], ["val"]) == ""
