"""Tables of gains: the interval by hand, which models are paired, and what a row needs."""

import math
from dataclasses import replace

import numpy as np
import pytest

from dst_cbc.report.figures import write
from dst_cbc.report.gain import Cell, cell_rows, gain_rows, interval
from dst_cbc.report.gain_figure import gain_figure
from dst_cbc.runtime.errors import DataError

T1, T2 = 12.706, 4.303  # Student's t, 97.5 %, of 1 and 2 degrees of freedom


def cell(method, points, scenario="unseen", seed=0, test="a", **changes):
    """A cell of two groups, unless `points` has another number of them; None is unfinished."""
    images = [f"{test}1", f"{test}2"] if points else []
    fixed = {"dataset": "Town", "labels": 2, "checkpoint": "best", "labeled": ["l1", "l2"]}
    found = np.array(points, float) if points else None
    fixed |= {"method": method, "scenario": scenario, "seed": seed, "test": test}
    return Cell(**{**fixed, "images": images, "points": found, **changes})


def row_of(rows, method, scenario="unseen"):
    (row,) = (r for r in rows if (r["method"], r["scenario"]) == (method, scenario))
    return row


def reach(tests):
    mean, low, high = interval([np.array(one, float) for one in tests])
    assert math.isclose(mean - low, high - mean)
    return mean, high - mean


def test_seeds_that_differ_on_images_that_do_not():
    # Differences of 3 and 1: a variance of 2, of their mean 1. The second seed does not depend on
    # the images; what the first one alone does is in the variance of the seeds already.
    assert reach([[[3, 2, 4], [1, 1, 1]]]) == pytest.approx((2, T1), rel=1e-3)


def test_images_that_change_all_seeds_alike():
    # The same seeds, and a jackknife of 2 +- 1 without each of two groups: a variance of 1.
    assert reach([[[3, 2, 4], [1, 0, 2]]]) == pytest.approx((2, math.hypot(T1, T1)), rel=1e-3)
    # Without a spread of the seeds, the images are left.
    assert reach([[[2, 1, 3], [2, 1, 3]]]) == pytest.approx((2, T1), rel=1e-3)


def test_two_choices_of_test_images_halve_the_error_and_double_what_is_known():
    first, second = [[3, 2, 4], [1, 0, 2]], [[7, 6, 8], [5, 4, 6]]
    # Each choice: variances of 1 and 1, so that of the mean of both is 1/4 of their sum. That one
    # choice is better than the other says nothing about seeds and images.
    assert reach([first, second]) == pytest.approx((4, math.hypot(T2, T2) / math.sqrt(2)), rel=1e-3)


def test_a_choice_with_one_seed_takes_the_spread_of_the_other():
    # Spread 2, from the first choice: (2/2 + 2/1) / 4; and its jackknife of 1 as the other's.
    found = reach([[[3, 2, 4], [1, 0, 2]], [[6, 5, 7]]])
    expected = math.hypot(T1 * math.sqrt(3 / 4), T2 * math.sqrt(2 / 4))
    assert found == pytest.approx((4, expected), rel=1e-3)


@pytest.mark.parametrize(
    "tests", [[[[2, 1, 3]]], [[[2, 2], [3, 3]]]], ids=["one seed", "one group"]
)
def test_what_cannot_be_known_has_no_interval(tests):
    mean, low, high = interval([np.array(one, float) for one in tests])
    assert mean == np.mean([seed[0] for seed in tests[0]])
    assert math.isnan(low) and math.isnan(high)


def test_a_row_has_means_over_the_choices_and_three_gains():
    cells = [
        cell("supervised", [40, 39, 41], seed=0, steps=10, passes=4.0, core_minutes=1.0),
        cell("supervised", [42, 41, 43], seed=1, steps=10, passes=4.0, core_minutes=2.0),
        cell("supervised", [60, 59, 61], test="b", steps=10, passes=4.0, core_minutes=3.0),
        cell("supervised-long", [44, 43, 45]),
        cell("supervised-passes", [45, 44, 46]),
        cell("dst-cbc", [46, 45, 47], seed=0),
        cell("dst-cbc", [45, 43, 47], seed=1),
        cell("dst-cbc", None, test="b"),
    ]
    rows = gain_rows(cells)
    supervised, ours = row_of(rows, "supervised"), row_of(rows, "dst-cbc")
    # (41 + 60) / 2: three cells, but two choices of test images.
    assert supervised["miou"] == 50.5
    assert [supervised[key] for key in ("planned", "cells", "tests", "seeds")] == [3, 3, 2, 2]
    assert [supervised[key] for key in ("steps", "passes", "core_minutes")] == [10, 4, 2.0]
    assert supervised["gain"] is None
    assert [ours[key] for key in ("planned", "cells", "tests", "seeds")] == [3, 2, 1, 2]
    # 6 and 3 over supervised of the same seed; 2 and 1 over the controls, which seed 1 lacks.
    assert (ours["gain"], ours["over_control"], ours["over_passes"]) == (4.5, 2, 1)
    assert ours["gain_low"] is not None and ours["over_control_low"] is None
    assert row_of(rows, "supervised-long")["gain"] == 4
    assert row_of(rows, "supervised-passes")["over_control"] == 1
    assert row_of(rows, "supervised-long")["over_passes"] is None


def test_a_baseline_comes_from_another_scenario_with_the_same_labeled_images():
    own = cell("supervised-long", [50, 50, 50], "seen")
    cells = [
        cell("supervised", [40, 40, 40]),
        cell("supervised-long", [42, 42, 42]),
        cell("supervised-passes", [44, 44, 44], labeled=["l1", "l3"]),
        cell("dst-cbc", [47, 47, 47], "seen"),
    ]
    row = row_of(gain_rows(cells), "dst-cbc", "seen")
    assert (row["gain"], row["over_control"], row["over_passes"]) == (7, 5, None)
    assert row_of(gain_rows([*cells, own]), "dst-cbc", "seen")["over_control"] == -3


def test_missing_runs_are_rows_without_figures():
    rows = gain_rows([cell("supervised", None), cell("dst-cbc", None)])
    empty = [key for key in rows[0] if rows[0][key] is None]
    assert len(empty) == 1 + 9 + 3 and rows[0]["planned"] == 1 and rows[0]["cells"] == 0
    assert [row["miou"] for row in cell_rows([cell("supervised", None)])] == [None]


def test_the_interval_of_a_cell_is_that_of_its_images():
    cells = [cell("supervised", [40, 40, 40]), cell("dst-cbc", [46, 45, 47])]
    _, ours = cell_rows(cells)
    # Jackknife: a variance of 1 by two groups.
    assert ours["gain"] == 6 and ours["gain_high"] == pytest.approx(6 + T1, abs=0.01)
    assert (ours["images"], ours["groups"], ours["test"], ours["seed"]) == (2, 2, "a", 0)


def test_the_rows_of_a_scenario_follow_each_other():
    cells = [cell("supervised", None), cell("supervised", None, "seen")]
    cells += [cell("dst-cbc", None), cell("supervised", None, test="b")]
    found = [(row["scenario"], row["method"], row["planned"]) for row in gain_rows(cells)]
    assert found == [
        ("unseen", "supervised", 2),
        ("unseen", "dst-cbc", 1),
        ("seen", "supervised", 1),
    ]


def test_checkpoints_are_compared_with_their_own():
    cells = [
        cell("supervised", [40, 40, 40]),
        cell("supervised", [30, 30, 30], checkpoint="last"),
        cell("dst-cbc", [41, 41, 41]),
        cell("dst-cbc", [45, 45, 45], checkpoint="last"),
    ]
    gains = {r["checkpoint"]: r["gain"] for r in gain_rows(cells) if r["method"] == "dst-cbc"}
    assert gains == {"best": 1, "last": 15}


def test_models_that_cannot_be_compared_are_refused_by_name():
    ours, theirs = cell("dst-cbc", [46, 45, 47]), cell("supervised", [40, 40, 40])
    with pytest.raises(DataError, match="Town, a, seed 0: dst-cbc and supervised"):
        gain_rows([ours, replace(theirs, images=["a1", "a3"])])
    with pytest.raises(DataError, match="Town: the test images of a and b share 'a2'"):
        gain_rows([ours, replace(theirs, test="b", images=["a2", "b1"])])
    with pytest.raises(DataError, match="Town, unseen, 2, dst-cbc, best, a, 0: two models"):
        gain_rows([ours, ours])


def test_the_figure_has_a_line_for_each_interval_and_the_same_bytes(tmp_path):
    cells = [cell("supervised", [40, 40, 40], seed=seed) for seed in (0, 1)]
    cells += [cell("dst-cbc", [46, 45, 47], seed=seed) for seed in (0, 1)]
    cells += [cell("st", [41, 41, 42], seed=0)]
    rows = gain_rows(cells)
    (axes,) = gain_figure(rows).axes
    assert axes.get_xlabel() == "points over supervised"
    assert [line.get_xdata()[0] for line in axes.lines[1:]] == [6, 1]
    (line,) = axes.collections
    (ends,) = line.get_segments()
    ours = row_of(rows, "dst-cbc")
    assert ends[:, 0].tolist() == [ours["gain_low"], ours["gain_high"]]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Town, 2 labels\nunseen"]
    for name in ("first", "second"):
        write(gain_figure(rows), tmp_path / name)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()


def test_the_figure_of_an_unfinished_table_says_so():
    (axes,) = gain_figure(gain_rows([cell("dst-cbc", None)])).axes
    assert [text.get_text() for text in axes.texts] == ["nothing to show"]
