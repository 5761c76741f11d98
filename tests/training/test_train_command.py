"""scripts/train.py: options that are required or not allowed, and the files that it writes."""

import runpy
import sys
from types import SimpleNamespace

import pytest

from dst_cbc.models.segmentation import cpu_state, read_model
from dst_cbc.settings.stages import ModelSettings
from dst_cbc.training import model_folder
from dst_cbc.training.checkpoint import Progress
from dst_cbc.training.loop import SNAPSHOTS, record
from trainings import SCRIPTS, small_model, small_network

TRAIN = {
    "steps": 4, "validate_at": [4], "seed": 0, "round": 1, "select": "val",
    "validation": {"batch": 1, "tile": 64},
}  # fmt: skip

NETWORK = small_network()


def settings_of(dataset, network=NETWORK, **train):
    split = {"rule": {"all": True}, "seed": 0}
    return ModelSettings(dataset=dataset, split=split, network=network, train={**TRAIN, **train})


@pytest.fixture
def script():
    """All names that scripts/train.py defines."""
    return runpy.run_path(str(SCRIPTS / "train.py"))


@pytest.fixture
def parse(script, digits_dataset, monkeypatch):
    """Function that parses the required options, the given input options and the settings."""

    def start(*options, **settings):
        chosen = settings_of(digits_dataset, **settings).canonical()
        required = [f"--{name}" for name in ("data", "index", "labeled", "out", "resume")]
        words = ["--settings", chosen, *(word for name in required for word in (name, "x"))]
        words += [word for name in options for word in (f"--{name}", "x")]
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        return script["parse"]()

    return start


def test_round_0_reads_the_channels_that_the_data_set_names(script, digits_dataset):
    dataset = digits_dataset.model_copy(update={"bands": (3, 2, 1)})
    model, *_ = script["starting_point"](None, settings_of(dataset), None)
    assert model.bands == (3, 2, 1)


ANEW = {"best": "restart"}
GOES_ON = {"network": None}
ONLINE = {"network": None, "online_threshold": 0.0}
OW = {"network": None, "weighting": "original"}


@pytest.mark.parametrize(
    "options, settings",
    [
        ((), {}),
        # A control that continues round 0.
        (("previous",), GOES_ON),
        (("previous", "pseudo-labels"), GOES_ON),
        (("previous", "unlabeled"), ONLINE),
        (("previous", "pseudo-labels", "predictions"), OW),
        # With initial weights, the previous model is read only for its best score, or not at all.
        (("previous", "pseudo-labels"), {}),
        (("pseudo-labels",), ANEW),
        # A round that the folds end needs the model that it copies.
        (("previous", "pseudo-labels", "choice", "name"), {**ANEW, "select": "folds"}),
        (("choice", "name"), {"select": "folds"}),
    ],
)
def test_what_the_settings_read_is_taken(options, settings, parse):
    assert parse(*options, **settings)


@pytest.mark.parametrize(
    "options, settings, message",
    [
        (("previous",), {}, "--previous: required if the settings name no network"),
        (("pseudo-labels",), GOES_ON, "network is null, but --previous is missing"),
        (("pseudo-labels",), {}, "--previous: required if"),
        (("previous", "pseudo-labels"), ANEW, "--previous: required if"),
        ((), GOES_ON, "network is null, but --previous is missing"),
        (("previous", "pseudo-labels", "unlabeled"), ONLINE, "not allowed with --pseudo-labels"),
        # Otherwise, all unlabeled images would be labeled with class 0.
        (("previous", "unlabeled"), GOES_ON, "--unlabeled: required with train.online"),
        (("previous", "pseudo-labels"), ONLINE, "--unlabeled: required with train.online"),
        (("previous", "pseudo-labels"), OW, "--predictions: required if the objective"),
        (("previous", "pseudo-labels", "predictions"), GOES_ON, "--predictions: required if"),
        (("previous", "pseudo-labels", "thresholds"), GOES_ON, "--thresholds: required if"),
        (("previous", "pseudo-labels", "labeling-model"), GOES_ON, "--labeling-model: required if"),
        (("choice", "name"), {}, "--choice, --name: required with train.select folds"),
        (("choice",), {"select": "folds"}, "--choice, --name: required with train.select folds"),
        ((), {"select": "folds"}, "--choice, --name: required with train.select folds"),
    ],
)
def test_what_is_missing_or_left_unread_is_refused(options, settings, message, parse, capsys):
    with pytest.raises(SystemExit) as end:
        parse(*options, **settings)
    assert end.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("reached, score", [(4, 50.0), (3, None)])
def test_the_last_model_has_a_score_only_if_its_step_was_validated(
    reached, score, digits_dataset, tmp_path
):
    settings, model = settings_of(digits_dataset), small_model(digits_dataset)
    best = record(settings.train, reached, 50.0)
    end = Progress(4, best, cpu_state(model), [{"step": reached, "miou": 50.0}])
    model_folder.write(tmp_path, settings, model, end, None, tmp_path)
    last = read_model(tmp_path / "last.pt").record
    assert (last["step"], last["score"]) == (4, score)
    assert read_model(tmp_path / "model.pt").record["score"] == 50.0


@pytest.mark.parametrize(
    "before, best, miou, step, said",
    [
        ((1, 56.84), (1, 56.84), 53.68, 4, "below the best of the chain, 56.84 of round 1, step 4"),
        # `select: last` forgets what was before.
        ((2, 56.84), (3, 53.68), 53.68, 4, "below the best of the chain, 56.84 of round 2, step 4"),
        ((1, 50.0), (3, 54.0), 53.68, 4, "below the best of the chain, 54.00 of round 3, step 4"),
        (None, (3, 54.0), 53.68, 4, "below the best of the chain, 54.00 of round 3, step 4"),
        ((1, 50.0), (3, 53.68), 53.68, 4, ""),
        ((1, None), (3, 53.68), 53.68, 4, ""),
        ((1, 56.84), (1, 56.84), float("nan"), 4, ""),
        # The last step was not validated.
        ((1, 56.84), (1, 56.84), 53.68, 3, ""),
    ],
)
def test_a_round_that_ends_below_the_best_says_so(before, best, miou, step, said, script, capsys):
    def at(place):
        return place and {"round": place[0], "score": place[1], "step": 4}

    script["say_if_lost"](
        3, at(before), Progress(4, at(best), None, [{"step": step, "miou": miou}])
    )
    assert capsys.readouterr().out == (said and f"round 3 ends at mIoU 53.68, {said}\n")


def test_what_a_killed_write_left_beside_the_snapshots_is_no_snapshot(digits_dataset, tmp_path):
    settings = settings_of(digits_dataset, snapshots=2)
    model = small_model(digits_dataset)
    kept = tmp_path / "state" / SNAPSHOTS
    kept.mkdir(parents=True)
    for name in ("1.pt", "2.pt", ".2.pt.host.1.tmp"):
        (kept / name).write_text(name)
    best = record(settings.train, 4, 50.0)
    end = Progress(4, best, cpu_state(model), [{"step": 4, "miou": 50.0}])
    model_folder.write(tmp_path / "out", settings, model, end, None, tmp_path / "state")
    found = {path.name: path.read_text() for path in (tmp_path / "out" / SNAPSHOTS).iterdir()}
    assert found == {"1.pt": "1.pt", "2.pt": "2.pt"}


@pytest.mark.parametrize(
    "patience, round, best, ends",
    [(2, 3, 0, True), (2, 2, 0, False), (2, 4, 2, False), (2, 5, 2, True), (None, 9, 0, False)],
)
def test_a_chain_ends_after_as_many_rounds_without_a_better_model(
    patience, round, best, ends, script, digits_dataset
):
    stage = settings_of(digits_dataset, patience=patience, round=round).train
    why = script["has_ended"](stage, {"round": best})
    assert bool(why) == ends and (not ends or f"after round {best} " in why)
    assert script["has_ended"](stage, None) is None


def test_few_images_that_choose_are_grouped_and_others_are_not(script, digits_dataset):
    few = [SimpleNamespace(id=f"a{number}x{number}") for number in range(3)]
    many = few * 10
    groups = script["groups_of_few"]
    known = [row.id for row in few]
    assert len(groups(few, known, settings_of(digits_dataset))) == 3
    assert groups(many, known, settings_of(digits_dataset)) == []
    assert groups(few, known, settings_of(digits_dataset, select="last")) == []


def test_a_machine_without_git_records_no_commit(monkeypatch, tmp_path):
    assert len(model_folder.commit()) == 40
    monkeypatch.setenv("PATH", str(tmp_path))
    assert model_folder.commit() is None
