import json
import math

import numpy as np
import pytest

from dst_cbc.inference.confusions import Confusions, write_confusions
from dst_cbc.report.choice import OutOfFold, choose, chosen_for, out_of_fold
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.files import write_json
from dst_cbc.runtime.tables import write_csv

IDS = ["a", "b", "c", "d"]


def training(right, curve=(50.0, 60.0)):
    """A training whose models get so many of 10 pixels of each of two classes right."""
    matrix = np.array([[right, 10 - right], [10 - right, right]])
    return OutOfFold(
        Confusions(IDS, np.stack([matrix] * 4)),
        [[(10 * step, miou) for step, miou in enumerate(curve, 1)]] * 2,
    )


def chosen(**trainings):
    names = {name.replace("__", "/"): one for name, one in trainings.items()}
    return choose(names, [0, 1, 2, 3])[0]


def test_the_best_round_is_kept_and_rounds_after_it_train_nothing():
    found = chosen(
        supervised=training(5), st__round1=training(6), st__round2=training(8),
        st__round3=training(7), long__round1=training(6),
    )  # fmt: skip
    assert found["best"] == "st/round2"
    assert found["models"] == {
        "supervised": {"share": 1.0},
        "st/round1": {"share": 1.0},
        "st/round2": {"share": 1.0},
        "st/round3": {"stopped": "the folds chose round 2"},
        "long/round1": {"share": 1.0},
    }


def test_where_no_round_is_better_all_are_stopped_and_the_control_may_be_best():
    found = chosen(
        supervised=training(6), st__round1=training(6), st__round2=training(5),
        long__round1=training(7),
    )  # fmt: skip
    assert found["best"] == "long/round1"
    assert found["models"]["st/round1"] == {"stopped": "the folds chose round 0"}
    assert found["models"]["st/round2"] == {"stopped": "the folds chose round 0"}


def test_an_equal_round_does_not_replace_the_best():
    assert chosen(supervised=training(6), long__round1=training(6))["best"] == "supervised"


def test_a_round_that_loses_may_be_followed_by_one_that_wins():
    found = chosen(
        supervised=training(6), st__round1=training(5), st__round2=training(7),
        st__round3=training(6),
    )  # fmt: skip
    assert found["models"]["st/round1"] == {"share": 1.0}
    assert found["models"]["st/round2"] == {"share": 1.0} and found["best"] == "st/round2"


def test_the_step_is_that_of_the_highest_mean_over_the_folds():
    falls = training(8, (50.0, 70.0, 65.0, 60.0))
    assert falls.share == 0.5
    first = OutOfFold(falls.found, [[(10, 40.0), (20, 50.0)], [(10, 60.0), (20, 55.0)]])
    assert first.share == 1.0
    equal = OutOfFold(falls.found, [[(10, 50.0), (20, 50.0)]] * 2)
    assert equal.share == 0.5
    unknown = OutOfFold(falls.found, [[(10, math.nan), (20, 1.0)]] * 2)
    assert unknown.share == 1.0
    found = chosen(supervised=training(5), st__round1=falls, st__round2=training(7, (9.0, 8.0)))
    # Round 1 is the last one, so it may end early; round 0 is followed by others.
    assert found["models"]["st/round1"] == {"share": 0.5}
    # A round that others follow takes all of its steps, as in the folds.
    found = chosen(supervised=training(5), st__round1=falls, st__round2=training(9))
    assert found["models"]["st/round1"] == {"share": 1.0}


def test_each_comparison_says_how_sure_it_is():
    trainings = {"supervised": training(5), "long/round1": training(7)}
    _, ((ours, theirs, difference),) = choose(trainings, [0, 1, 2, 3])
    assert (ours, theirs) == ("long/round1", "supervised")
    assert difference.mean == pytest.approx(100 * (7 / 13 - 5 / 15))


def test_the_models_of_all_folds_are_read_in_order(tmp_path):
    for fold, ids in enumerate((["c"], ["a", "b"])):
        folder = tmp_path / f"fold{fold}"
        matrices = np.full((len(ids), 2, 2), fold + 1)
        other = Confusions(ids, matrices + 1)
        found = {("last", "val"): Confusions(ids, matrices), ("best", "val"): other}
        write_confusions(folder / "confusions.csv", found)
        rows = [{"step": 5, "miou": 40.0 + fold}, {"step": 9, "miou": math.nan}]
        write_csv(folder / "history.csv", ["step", "miou"], rows)
    read = out_of_fold([tmp_path / "fold0", tmp_path / "fold1"], 2)
    assert read.found.ids == ["c", "a", "b"]
    assert read.found.matrices[:, 0, 0].tolist() == [1, 2, 2]
    assert [curve[0] for curve in read.curves] == [(5, 40.0), (5, 41.0)]
    assert read.share == pytest.approx(5 / 9)


def test_a_training_reads_what_was_chosen_for_it(tmp_path):
    path = tmp_path / "choice.json"
    write_json(path, {"best": "supervised", "models": {"supervised": {"share": 0.5}}})
    assert chosen_for(path, "supervised") == {"share": 0.5}
    with pytest.raises(DataError, match=r"choice\.json: says nothing about 'st/round1'"):
        chosen_for(path, "st/round1")
    path.write_text(json.dumps({"best": "supervised", "models": {"supervised": {"share": 1.5}}}))
    with pytest.raises(DataError, match=r"models\.supervised\.share: found 1\.5"):
        chosen_for(path, "supervised")
