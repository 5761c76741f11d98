import math
from decimal import Decimal
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.tables import read_csv
from dst_cbc.self_training.confidence import BINS, level_from, lower_edge, quantise
from dst_cbc.self_training.predictions import Prediction
from dst_cbc.self_training.pseudo_labels import label_pixels
from dst_cbc.self_training.thresholds import (
    HEADER,
    cut,
    missed_shares,
    read_cutoffs,
    thresholds,
    write_thresholds,
)
from dst_cbc.settings.stages import ThresholdStage
from reference import histogram

NAMES = ["sky", "road", "car", "tree"]


def counts_at(levels):
    """Histogram of one class from {level: pixels}."""
    counts = np.zeros(BINS, np.int64)
    for level, pixels in levels.items():
        counts[level] = pixels
    return counts


@cache
def predicted(scale):
    """Random logits times `scale`: the prediction, and each pixel's log-odds in float64."""
    rng = np.random.default_rng(7)
    logits = rng.normal(size=(len(NAMES), 320, 300)) + np.array([0.6, 0, -0.2, 0.1])[:, None, None]
    logits = (logits * scale).astype(np.float32)
    classes, levels = quantise(torch.from_numpy(logits)[None])
    ordered = np.sort(logits.astype(np.float64), axis=0)
    top = ordered[-2]
    log_odds = ordered[-1] - top - np.log(np.exp(ordered[:-1] - top).sum(0))
    prediction = Prediction(0, "a", classes[0].numpy(), levels[0].numpy().astype(np.uint16))
    return prediction, log_odds


def label_at(prediction, alpha, balance, path):
    """Thresholds and labels of a prediction, by way of the histogram and the CSV file."""
    counts = histogram(prediction.classes, prediction.confidence, len(NAMES))
    stage = ThresholdStage(alpha=alpha, balance=balance)
    rows = thresholds(counts, NAMES, stage.alpha, stage.balance)
    write_thresholds(path, rows)
    return rows, label_pixels(prediction, read_cutoffs(path, NAMES))


@pytest.mark.parametrize("scale", [1, 10, 100, 1000])
@pytest.mark.parametrize("alpha", [0.2, 0.4, 0.6, 0.8, 1.0])
def test_each_class_keeps_alpha_of_its_pixels_the_most_confident(scale, alpha, tmp_path):
    prediction, log_odds = predicted(scale)
    rows, labels = label_at(prediction, alpha, "class", tmp_path / "thresholds.csv")
    for number, row in enumerate(rows):
        mine = prediction.classes == number
        n = int(mine.sum())
        assert n > 10_000
        kept = labels[mine] == number
        assert abs(kept.mean() - alpha) <= 0.001
        assert row.pixels == n and row.kept == kept.sum()
        brute_force = np.zeros(n, bool)
        brute_force[np.argsort(-log_odds[mine], kind="stable")[: math.floor(alpha * n + 1e-9)]] = 1
        assert (brute_force != kept).mean() <= 0.001
        assert (labels[mine][~kept] == 255).all()


@pytest.mark.parametrize("scale", [1, 10, 100, 1000])
@pytest.mark.parametrize("alpha", [0.2, 0.4, 0.6, 0.8, 1.0])
def test_one_global_threshold_keeps_alpha_of_all_pixels(scale, alpha, tmp_path):
    prediction, log_odds = predicted(scale)
    rows, labels = label_at(prediction, alpha, "global", tmp_path / "thresholds.csv")
    assert len({row.threshold for row in rows}) == 1
    kept = labels != 255
    assert abs(kept.mean() - alpha) <= 0.001
    brute_force = np.zeros(kept.size, bool)
    order = np.argsort(-log_odds.ravel(), kind="stable")
    brute_force[order[: math.floor(alpha * kept.size + 1e-9)]] = 1
    assert (brute_force != kept.ravel()).mean() <= 0.001
    assert sum(row.kept for row in rows) == kept.sum()


@pytest.mark.parametrize("alpha, kept", [("0.3", 3), ("0.1", 1), ("0.7", 7), ("0.29", 2)])
def test_k_is_the_floor_of_the_exact_decimal_times_n(alpha, kept):
    counts = counts_at(dict.fromkeys(range(100, 110), 1))
    assert cut(counts, Decimal(alpha)) == 110 - kept


def test_a_float_alpha_is_the_decimal_that_a_person_wrote():
    counts = counts_at(dict.fromkeys(range(1000), 1))
    for tenths in range(1, 10):
        stage = ThresholdStage(alpha=tenths / 10, balance="class")
        assert counts[cut(counts, stage.alpha) :].sum() == 100 * tenths


def test_a_full_level_is_kept_or_left_by_what_is_nearest_to_k():
    counts = counts_at({10: 40, 20: 60})
    assert cut(counts, Decimal("0.5")) in range(11, 21)
    assert cut(counts, Decimal("0.85")) <= 10
    assert cut(counts, Decimal("0.29")) > 20
    assert cut(counts, Decimal("0.31")) in range(11, 21)


def test_of_two_maps_equally_near_the_one_that_keeps_fewer_wins():
    assert cut(counts_at({10: 40, 20: 60}), Decimal("0.8")) == 20
    assert cut(counts_at({10: 40, 20: 60}), Decimal("0.3")) == BINS


def test_of_empty_levels_the_highest_edge_is_taken():
    assert cut(counts_at({10: 5, 5000: 5}), Decimal("0.5")) == 5000


def test_alpha_one_keeps_every_pixel():
    (row,) = thresholds(counts_at({0: 3, BINS - 1: 4})[None], ["sky"], Decimal(1), "class")
    assert (row.threshold, row.kept, row.kept_fraction) == (-math.inf, 7, 1.0)


def test_a_share_of_less_than_half_a_pixel_keeps_none():
    (row,) = thresholds(counts_at({700: 1})[None], ["sky"], Decimal("0.4"), "class")
    assert (row.threshold, row.kept, row.threshold_probability) == (math.inf, 0, 1.0)


@pytest.mark.parametrize("alpha", ["0.05", "0.2", "0.3", "0.5", "0.8", "0.99"])
def test_sampled_thresholds_are_the_released_code_s_value_at_its_index_kept_with_at_least(alpha):
    """The levels differ, so there are no ties: one pixel more than alpha says is kept."""
    levels = np.random.default_rng(5).permutation(BINS)[:137]
    ascending = np.sort(levels)
    k = math.floor(Decimal(alpha) * 137)
    level = cut(np.bincount(levels, minlength=BINS), Decimal(alpha), 16)
    assert level == ascending[-k - 1]
    assert (levels >= level).sum() == k + 1


def test_sampled_pixels_that_share_the_level_of_the_threshold_are_all_kept():
    counts = counts_at({10: 40, 20: 60})
    # For 59 of 100, the 60th pixel from above is at level 20; for 60, the 61st is at level 10.
    assert cut(counts, Decimal("0.59"), 16) == 20
    assert cut(counts, Decimal("0.6"), 16) == 10
    assert cut(counts, Decimal("0.01"), 16) == 20


def kept_of(scale, balance):
    """What `missed_shares` says of the thresholds of random logits times `scale`, at alpha 0.2."""
    prediction, _ = predicted(scale)
    counts = histogram(prediction.classes, prediction.confidence, len(NAMES))
    rows = thresholds(counts, NAMES, Decimal("0.2"), balance)
    counted = ((row.name, row.pixels, row.kept) for row in rows)
    return rows, missed_shares(counted, Decimal("0.2"), balance)


@pytest.mark.parametrize("balance", ["class", "global"])
@pytest.mark.parametrize("scale", [1e-3, 1e6])
def test_a_scale_at_which_too_many_pixels_share_a_level_is_told(scale, balance):
    """Nearly equal logits lie in few levels, and log-odds beyond 131072 in one."""
    rows, told = kept_of(scale, balance)
    off = [row for row in rows if abs(row.kept - 0.2 * row.pixels) > 1 + row.pixels / 1000]
    assert off
    if balance == "class":
        assert [sentence.split(":")[0] for sentence in told] == [f"class {r.name!r}" for r in off]
        assert f"{off[0].kept / off[0].pixels:.2%} of the pixels are kept, not 20.00%" in told[0]
    else:
        assert len(told) == 1 and told[0].startswith("all classes: ")


@pytest.mark.parametrize("balance", ["class", "global"])
@pytest.mark.parametrize("scale", [1, 10, 100, 1000, 10000])
def test_at_the_scale_of_a_trained_network_nothing_is_told_and_shares_hold(scale, balance):
    rows, told = kept_of(scale, balance)
    assert told == []
    if balance == "class":
        assert max(abs(row.kept_fraction - 0.2) for row in rows) < 0.0005


def test_one_pixel_more_or_less_is_not_told():
    alpha = Decimal("0.2")
    assert not missed_shares([("sky", 7, 2), ("road", 7, 1), ("car", 0, 0)], alpha, "class")
    assert len(missed_shares([("sky", 7, 3), ("road", 7, 1)], alpha, "class")) == 1
    assert not missed_shares([("sky", 100_000, 20_101)], alpha, "class")
    assert len(missed_shares([("sky", 100_000, 20_102)], alpha, "class")) == 1


def test_a_class_that_was_not_sampled_is_labeled_at_alpha_one_and_not_before():
    counts = np.stack([counts_at({50: 10}), counts_at({})])
    for balance in ("class", "global"):
        _, before = thresholds(counts, NAMES[:2], Decimal("0.8"), balance, 16)
        assert (before.threshold, before.kept_fraction) == (None, None)
        _, at_one = thresholds(counts, NAMES[:2], Decimal(1), balance, 16)
        assert (at_one.threshold, at_one.pixels, at_one.kept_fraction) == (-math.inf, 0, None)
        _, exact = thresholds(counts, NAMES[:2], Decimal(1), balance)
        assert exact.threshold is None


@given(
    st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 50), min_size=1, max_size=12),
    st.sampled_from(["0.05", "0.2", "0.37", "0.5", "0.8", "0.99"]),
)
def test_no_other_level_is_nearer_to_k(levels, alpha):
    counts = counts_at(levels)
    k = math.floor(Decimal(alpha) * int(counts.sum()))
    kept = lambda level: int(counts[level:].sum())  # noqa: E731
    chosen = cut(counts, Decimal(alpha))
    candidates = [0, BINS, *(level + 1 for level in levels), *levels]
    assert abs(kept(chosen) - k) == min(abs(kept(level) - k) for level in candidates)


@pytest.mark.parametrize("balance", ["class", "global"])
def test_a_class_that_is_never_predicted_has_no_threshold_and_labels_nothing(balance, tmp_path):
    counts = np.stack([counts_at({50: 10}), counts_at({}), counts_at({90: 10})])
    rows = thresholds(counts, NAMES[:3], Decimal("0.5"), balance)
    assert (rows[1].threshold, rows[1].pixels, rows[1].kept) == (None, 0, 0)
    assert rows[1].kept_fraction is None
    write_thresholds(tmp_path / "t.csv", rows)
    assert read_csv(tmp_path / "t.csv", HEADER)[1]["threshold"] == ""
    assert read_cutoffs(tmp_path / "t.csv", NAMES[:3])[1] == BINS


@pytest.mark.parametrize("balance", ["class", "global"])
def test_an_empty_histogram_has_no_threshold_at_all(balance):
    rows = thresholds(np.zeros((3, BINS), np.int64), NAMES[:3], Decimal("0.4"), balance)
    assert [(row.threshold, row.kept) for row in rows] == [(None, 0)] * 3


def test_the_file_says_for_each_class_what_it_keeps_in_numbers_people_read(tmp_path):
    counts = np.stack([counts_at({level_from(0.0): 4, level_from(2.2): 1}), counts_at({7: 2})])
    write_thresholds(tmp_path / "t.csv", thresholds(counts, NAMES[:2], Decimal("0.2"), "class"))
    first, second = read_csv(tmp_path / "t.csv", HEADER)
    assert list(first) == [
        "class", "name", "pixels", "threshold", "threshold_probability", "kept", "kept_fraction",
    ]  # fmt: skip
    assert (first["class"], first["name"], first["pixels"], first["kept"]) == ("0", "sky", "5", "1")
    assert float(first["threshold"]) == pytest.approx(2.2, abs=1e-3)
    assert float(first["threshold_probability"]) == pytest.approx(0.9, abs=1e-3)
    assert float(first["kept_fraction"]) == 0.2
    assert (second["name"], second["kept"]) == ("road", "0")


@given(st.lists(st.integers(0, BINS), min_size=4, max_size=4))
def test_levels_come_back_from_the_file_as_they_went_in(tmp_path_factory, levels):
    path = tmp_path_factory.getbasetemp() / "levels.csv"
    text = "".join(f"{n},{lower_edge(level)!r}\n" for n, level in enumerate(levels))
    path.write_text("class,threshold\n" + text)
    np.testing.assert_array_equal(read_cutoffs(path, NAMES)[:4], levels)


def test_an_edited_threshold_counts_and_its_other_columns_do_not(tmp_path):
    edited = tmp_path / "thresholds.edited.csv"
    edited.write_text("class,name,threshold,kept\n1,any,1.5,0\n0,x,-inf,\n3,y,inf,12\n2,z,,\n")
    levels = read_cutoffs(edited, NAMES)
    assert levels[0] == 0 and levels[2] == levels[3] == BINS
    assert lower_edge(levels[1] - 1) < 1.5 <= lower_edge(levels[1]) * (1 + 1e-9)
    assert (levels[4:] == BINS).all()


@pytest.mark.parametrize(
    "line, reason",
    [
        ("1,much", "much"),
        ("1,nan", "nan"),
        ("4,1.0", "classes 0 to 3"),
        ("-1,1.0", "a whole number from 0 on"),
        ("sky,1.0", "sky"),
        ('1,"1,5"', "1,5"),
        ("1", "not as many cells as the header"),
    ],
)
def test_a_malformed_edited_file_is_refused_with_its_name_and_line(line, reason, tmp_path):
    edited = tmp_path / "thresholds.edited.csv"
    edited.write_text(f"class,threshold\n0,1.0\n{line}\n")
    with pytest.raises(DataError, match=rf"thresholds\.edited\.csv, line 3: .*{reason}"):
        read_cutoffs(edited, NAMES)


def test_a_class_without_a_row_is_named(tmp_path):
    """In half a file, the classes without a row would keep nothing."""
    edited = tmp_path / "thresholds.edited.csv"
    edited.write_text("class,threshold\n0,1.0\n1,\n2,1.0\n")
    with pytest.raises(DataError, match=rf"no row for class '{NAMES[3]}'"):
        read_cutoffs(edited, NAMES)


def test_a_row_without_a_class_is_refused_with_its_line(tmp_path):
    edited = tmp_path / "thresholds.edited.csv"
    edited.write_text("threshold,class\n1.0,0\n2.0\n")
    with pytest.raises(DataError, match="line 3"):
        read_cutoffs(edited, NAMES)


def test_a_class_that_is_listed_twice_is_refused(tmp_path):
    edited = tmp_path / "thresholds.edited.csv"
    edited.write_text("class,threshold\n0,1.0\n1,1.0\n0,7.0\n")
    with pytest.raises(DataError, match="line 4"):
        read_cutoffs(edited, NAMES)


def test_an_edited_file_without_the_column_is_refused_with_its_name(tmp_path):
    edited = tmp_path / "thresholds.edited.csv"
    edited.write_text("class;threshold\n0;1.0\n")
    with pytest.raises(DataError, match=r"thresholds\.edited\.csv.*'class'"):
        read_cutoffs(edited, NAMES)
