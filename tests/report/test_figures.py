import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from dst_cbc.report.agreement import COLUMNS as AGREEMENT
from dst_cbc.report.figure_data import read_models, series
from dst_cbc.report.figures import FIGURES, write
from dst_cbc.report.summary import COLUMNS
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.files import write_json
from dst_cbc.runtime.tables import write_csv
from dst_cbc.self_training.confidence import BINS, probabilities
from dst_cbc.self_training.predictions import write_histogram
from dst_cbc.self_training.pseudo_labels import QUALITY
from workflow import SCRIPTS

NAMES = ["sky", "road", "a car"]


class Study:
    """A made-up study that is written row by row; cells are strings, as in a CSV file."""

    def __init__(self, folder):
        self.folder, self.rows = folder, []

    def add(self, path, best=None, last=None, subset="test", edited=""):
        """Add one model; without an mIoU its run is missing."""
        division, method, *rest = path.split("/")
        split, seed, *selected = division.split("_")
        round = rest[0].removeprefix("round") if rest else "0"
        for checkpoint, miou in (("best", best), ("last", best if last is None else last)):
            cells = {
                "split": split, "seed": seed, "method": method, "round": round,
                "checkpoint": checkpoint, "selected_on": selected[0] if selected else "val",
                "subset": subset, "miou": "" if miou is None else str(miou), "edited": edited,
            }  # fmt: skip
            self.rows.append(dict.fromkeys(COLUMNS, "") | cells)

    def chain(self, method, *mious, division="12_0"):
        for round, miou in enumerate(mious, 1):
            self.add(f"{division}/{method}/round{round}", miou)

    def iou(self, path, *values, subset="test"):
        """Write metrics.json with the IoU of each class; write_json sorts the keys."""
        figures = {
            "images": 3, "miou": 50.0, "pixel_accuracy": 50.0, "classes": NAMES,
            "iou": dict(zip(NAMES, values, strict=True)),
        }  # fmt: skip
        metrics = {"round": 0, "subsets": {subset: figures}}
        write_json(self.folder / path / "metrics.json", {"best": metrics, "last": metrics})

    def labels(self, path, kept, right, iou=None, pixels=(100, 100, 200)):
        """Write the label files of a round; per class: pixels kept, precision, IoU, "" for none."""
        folder, iou = self.folder / path, right if iou is None else iou
        columns = [f"pixels {name}" for name in NAMES]
        halves = [[k // 2 for k in kept], [k - k // 2 for k in kept]]
        write_csv(
            folder / "pseudo_labels.csv",
            ["id", "height", "width", "kept", *columns],
            (
                {"id": id, "height": 2, "width": sum(pixels) // 4, "kept": sum(half)}
                | dict(zip(columns, half, strict=True))
                for id, half in zip("ab", halves, strict=True)
            ),
        )
        rows = [{"class": n, "name": name} for n, name in enumerate(NAMES)]
        write_csv(
            folder / "thresholds.csv",
            ["class", "name", "pixels"],
            (row | {"pixels": n} for row, n in zip(rows, pixels, strict=True)),
        )
        quality = (
            row | {"precision": precision, "iou_of_labeled": share}
            for row, precision, share in zip(rows, right, iou, strict=True)
        )
        write_csv(folder / "pseudo_labels.quality.csv", QUALITY, quality)

    def agrees(self, method, *rounds):
        """Write agreement.csv; rounds: (both, same, changed) of every round, for both images."""
        values = ("both", "same", "changed")
        rows = [
            dict.fromkeys(AGREEMENT, "")
            | {"id": id, "round": number, "height": 10, "width": width}
            | dict(zip(values, round, strict=True))
            for number, round in enumerate(rounds, 1)
            for id, width in (("a", 10), ("b", 30))
        ]
        write_csv(self.folder / method / "agreement.csv", AGREEMENT, rows)

    def sure(self, path, *levels):
        """Write histogram.npz with one pixel at each of these confidence levels."""
        counts = np.zeros((len(NAMES), BINS), np.int64)
        for number, level in enumerate(levels):
            counts[number % len(NAMES), level] += 1
        write_histogram(self.folder / path / "histogram.npz", counts)

    def took(self, path, training=None, prediction=None):
        if training is not None:
            run = {"commit": None, "device": "cpu", "versions": {}, "seconds": training}
            write_json(self.folder / path / "run.json", run)
        if prediction is not None:
            table = self.folder / "benchmarks" / path / "predict.tsv"
            table.parent.mkdir(parents=True, exist_ok=True)
            table.write_text(f"s\th:m:s\tmax_rss\n{prediction}\t0:00:01\t-\n")

    def draw(self, name, subset="test"):
        write_csv(self.folder / "summary.csv", COLUMNS, self.rows)
        return FIGURES[name](self.folder, read_models(self.folder, subset), subset)


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


@pytest.fixture
def full(study):
    """Two seeds, a method of two rounds, both references, a sweep: no figure is empty."""
    for seed, base in ((0, 40.0), (1, 44.0)):
        here = f"12_{seed}"
        study.add(f"{here}/supervised", base, base - 1)
        study.chain("dst-cbc", base + 3, base + 5, division=here)
        study.chain("st", base + 4, division=here)
        study.chain("supervised-long", base + 1, division=here)
        for gamma in (9, 10, 0.5):
            study.chain(f"dst-cbc@gamma={gamma}", base + 2, base + gamma / 2, division=here)
        study.iou(f"{here}/supervised", 80.0, 30.0 + seed, None)
        study.iou(f"{here}/dst-cbc/round1", 1.0, 2.0, 3.0)
        study.iou(f"{here}/dst-cbc/round2", 78.0, 40.0 + seed, 5.0)
        study.labels(f"{here}/dst-cbc/round1", [20, 40, 0], [1.0, 0.8, ""])
        study.labels(f"{here}/dst-cbc/round2", [100, 90, 0], [0.9, 0.5 + seed / 10, ""])
        study.labels(f"{here}/st/round1", [100, 100, 200], [0.6, 0.4, 0.2])
        study.took(f"{here}/supervised", 60.0 + 20 * seed, 10.0)
        study.took(f"{here}/dst-cbc/round1", 30.0, 20.0 + 2 * seed)
        study.took(f"{here}/dst-cbc/round2", 40.0)
    return study


def lines(axes):
    """{label: (x, y)} of the lines of the axes; lines without a label are left out."""
    return {
        line.get_label(): (list(line.get_xdata()), [round(y, 6) for y in line.get_ydata()])
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def said(figure, sentence):
    """Whether the text of a figure contains the sentence, whatever its line breaks."""
    return sentence in " ".join(" ".join(texts(figure)).split())


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


# ------------------------------------------------------------------------------- rounds


def test_rounds_shows_means_from_the_baseline_on_and_the_levels(full):
    (axes,) = full.draw("rounds").axes
    assert lines(axes) == {
        "dst-cbc": ([0, 1, 2], [42, 45, 47]),
        "st": ([0, 1], [46, 46]),
        "supervised-long": ([0, 1], [43, 43]),
    }
    assert axes.get_title() == "split 12"


def test_rounds_has_the_last_step_dashed_and_in_the_legend(study):
    study.add("12_0/supervised", 40.0, 39.0)
    study.add("12_0/dst-cbc/round1", 41.0, 38.0)
    study.add("12_0/dst-cbc/round2", 43.0, 37.5)
    figure = study.draw("rounds")
    last, best = figure.axes[0].lines
    assert list(best.get_ydata()) == [40, 41, 43] and best.get_linestyle() == "-"
    assert list(last.get_ydata()) == [39, 38, 37.5] and last.get_linestyle() == "--"
    assert last.get_color() == best.get_color()
    assert "last step of the round" in legend(figure)


def test_rounds_has_a_ring_around_the_last_step_of_a_round_that_loses_on_any_seed(study):
    for seed in (0, 1):
        study.add(f"12_{seed}/supervised", 40.0)
        for round, last in ((1, 41.0), (2, 38.0), (3, 36.0 + seed)):
            study.add(f"12_{seed}/dst-cbc/round{round}", 41.0, last)
        study.agrees(f"12_{seed}/dst-cbc", ("", "", ""), (100, 99, ""), (100, 99 - 9 * seed, ""))
    figure = study.draw("rounds")
    *_, ring = figure.axes[0].lines
    assert (list(ring.get_xdata()), list(ring.get_ydata())) == ([3], [36.5])
    assert ring.get_markersize() > 10 and ring.get_markerfacecolor() == "none"
    assert "round that loses" in legend(figure)
    assert said(
        figure, "that lose mIoU on val, a class of their labels, or agreement: 12_1/dst-cbc/round3;"
    )


def test_rounds_without_a_loss_has_no_ring(study):
    study.add("12_0/supervised", 40.0)
    study.chain("dst-cbc", 41.0, 38.0, 36.0)
    study.agrees("12_0/dst-cbc", ("", "", ""), (100, 99, ""), (100, 99, ""))
    figure = study.draw("rounds")
    assert legend(figure) == ["dst-cbc", "last step of the round"]
    assert not said(figure, "lose")
    assert len(figure.axes[0].lines) == 2


def test_a_band_of_one_standard_deviation_surrounds_the_mean_of_seeds(full):
    (axes,) = full.draw("rounds").axes
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    # The standard deviation of 40 and 44 is the root of 8.
    assert sorted({round(y, 4) for x, y in corners if x == 0}) == [39.1716, 44.8284]


def test_one_seed_has_no_band(study):
    study.add("12_0/supervised", 40.0)
    study.chain("dst-cbc", 41.0, 42.0)
    figure = study.draw("rounds")
    assert not figure.axes[0].collections
    assert said(figure, "selected on val; seed 0")


def test_the_footnote_tells_subset_selection_and_seeds(full):
    assert said(
        full.draw("rounds"),
        "mIoU on test; best of the chain, selected on val; mean ± standard deviation over seeds "
        "0, 1",
    )


def test_only_the_asked_subset_is_shown(full):
    full.add("12_0/dst-cbc/round1", 99.0, subset="val")
    full.add("12_0/dst-cbc/round2", 99.0, subset="val")
    assert lines(full.draw("rounds").axes[0])["dst-cbc"] == ([0, 1, 2], [42, 45, 47])


def test_a_subset_without_rows_is_refused_with_those_there_are(full):
    with pytest.raises(DataError, match=r"summary\.csv: no row on 'val'; found test"):
        full.draw("rounds", "val")


def test_every_split_has_a_panel_and_names_its_selection(study):
    for division in ("106_0_valtiny", "20_0"):
        study.add(f"{division}/supervised", 40.0)
        study.chain("dst-cbc", 41.0, 42.0, division=division)
    study.add("1_0/supervised", 70.0)
    figure = study.draw("rounds")
    assert [axes.get_title() for axes in figure.axes] == [
        "split 106, selected on valtiny", "split 20",
    ]  # fmt: skip
    assert said(figure, "selected on val or valtiny")


def test_a_figure_of_last_steps_says_that_nothing_was_selected(study):
    study.add("12_0_last/supervised", 40.0)
    study.chain("dst-cbc", 41.0, 42.0, division="12_0_last")
    assert said(study.draw("rounds"), "last step of each round: nothing was selected")


def test_a_line_starts_at_the_baseline_of_its_own_seeds_and_names_them(full):
    """Seeds differ more than methods, so a baseline over other seeds would look like a gain."""
    full.chain("ow", 43.0, 44.0, division="12_0")
    assert lines(full.draw("rounds").axes[0])["ow (seed 0)"] == ([0, 1, 2], [40, 43, 44])


def test_a_missing_round_takes_its_seed_out_of_the_line_and_is_named(study):
    for seed, mious in ((0, (41.0, 42.0)), (1, (55.0, None))):
        study.add(f"12_{seed}/supervised", 40.0 + 10 * seed)
        study.chain("dst-cbc", *mious, division=f"12_{seed}")
    figure = study.draw("rounds")
    assert lines(figure.axes[0]) == {"dst-cbc (seed 0)": ([0, 1, 2], [40, 41, 42])}
    assert said(figure, "missing: 12_1/dst-cbc/round2")


def test_what_was_edited_by_hand_is_said(full):
    full.add("12_0/dst-cbc/round2", 42.0, edited="thresholds of round2")
    assert said(full.draw("rounds"), "edited by hand: 12_0/dst-cbc, thresholds of round2")


def test_a_series_is_over_the_seeds_that_have_most_of_it():
    found = series({1: {0: 1.0, 1: 5.0, 2: 3.0}, 2: {0: 2.0, 2: 6.0}})
    assert (found.x, found.mean, found.seeds) == ([1, 2], [2, 4], [0, 2])
    assert found.deviation == pytest.approx([2**0.5, 8**0.5])
    assert series({1: {4: 7.0}}).deviation == [0]


# ------------------------------------------------------------------------ pseudo labels


def test_pseudo_labels_shows_miou_over_classes_that_have_one_and_coverage(full):
    quality, coverage = full.draw("pseudo_labels").axes
    # Round 1: (1 + 0.8) / 2. Round 2: (0.9 + 0.5) / 2 and (0.9 + 0.6) / 2, of two seeds.
    assert lines(quality) == {"dst-cbc": ([1, 2], [90, 72.5]), "st": ([0, 1], [40, 40])}
    # 20 + 40 of 400 pixels, then 100 + 90 of 400.
    assert lines(coverage) == {"dst-cbc": ([1, 2], [15, 47.5]), "st": ([0, 1], [100, 100])}


def test_pseudo_labels_takes_the_iou_and_not_the_precision(study):
    study.chain("dst-cbc", 41.0, 42.0)
    study.labels("12_0/dst-cbc/round1", [50, 50, 50], [0.9] * 3, iou=[0.3, "", 0.5])
    quality, _ = study.draw("pseudo_labels").axes
    assert lines(quality)["dst-cbc"] == ([1], [40])


def test_without_masks_the_figures_say_so_and_coverage_is_there(study):
    study.chain("dst-cbc", 41.0, 42.0)
    study.labels("12_0/dst-cbc/round1", [100, 0, 100], ["", "", ""])
    figure = study.draw("pseudo_labels")
    (coverage,) = figure.axes
    assert lines(coverage) == {"dst-cbc": ([1], [50])}
    assert not said(figure, "mIoU of pseudo labels") and not said(figure, "no masks")
    assert "no masks to compare with" in texts(study.draw("kept"))


def test_a_split_without_masks_beside_one_with_some_says_so(full):
    full.add("6_0/supervised", 40.0)
    full.chain("dst-cbc", 41.0, 42.0, division="6_0")
    full.labels("6_0/dst-cbc/round1", [100, 0, 100], ["", "", ""])
    figure = full.draw("pseudo_labels")
    assert len(figure.axes) == 4 and texts(figure).count("no masks to compare with") == 1
    assert lines(figure.axes[2]) == {} and lines(figure.axes[3]) == {
        "dst-cbc (seed 0)": ([1], [50])
    }


# ---------------------------------------------------------------------------- agreement


def test_agreement_needs_no_mask(study):
    study.chain("dst-cbc", 41.0, 42.0)
    # The rows of both images are equal, but the images have 100 and 300 pixels.
    study.agrees("12_0/dst-cbc", ("", "", ""), (50, 40, 0.25))
    study.sure("12_0/supervised", 20000, 65535)
    study.sure("12_0/dst-cbc/round1", 65535, 65535)
    figure = study.draw("agreement")
    confidence, agreement, changed = map(lines, figure.axes)
    first = 100 * (float(probabilities()[20000]) + 1) / 2
    assert confidence == {"dst-cbc": ([1, 2], [pytest.approx(first, abs=1e-4), 100])}
    assert agreement == {"dst-cbc": ([2], [80])}
    assert changed == {"dst-cbc": ([2], [25])}


def test_agreement_is_over_pixels_and_not_over_images(study):
    study.chain("dst-cbc", 41.0, 42.0)
    path = study.folder / "12_0/dst-cbc/agreement.csv"
    study.agrees("12_0/dst-cbc", ("", "", ""), (0, 0, 0))
    header, *rows = path.read_text().splitlines()
    rows[2:] = ["a,2,10,10,0,10,10,1.0,", "b,2,10,30,0,90,45,0.0,"]
    path.write_text("\n".join([header, *rows]) + "\n")
    agreement, changed = map(lines, study.draw("agreement").axes)
    assert agreement == {"dst-cbc": ([2], [55])}
    assert changed == {"dst-cbc": ([2], [25])}


def test_what_no_method_has_is_no_panel(study):
    study.chain("dst-cbc", 41.0, 42.0)
    study.agrees("12_0/dst-cbc", ("", "", ""), (50, 40, ""))
    figure = study.draw("agreement")
    assert [axes.get_ylabel() for axes in figure.axes] == ["agreement with the round before, %"]
    assert not said(figure, "pixels changed")


# ------------------------------------------------------------------------------ classes


def test_classes_shows_before_and_after_in_the_data_sets_order(full):
    (axes,) = full.draw("classes").axes
    # The third class has no IoU before self-training; in the sorted JSON it comes first.
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sky", "road"]
    assert axes.get_ylim() == (1.5, -0.5)
    before, after = axes.lines
    assert (list(before.get_xdata()), list(before.get_ydata())) == ([80, 30.5], [0, 1])
    assert (list(after.get_xdata()), list(after.get_ydata())) == ([78, 40.5], [0, 1])


def test_a_class_that_has_lost_is_dotted(full):
    (axes,) = full.draw("classes").axes
    (bars,) = axes.collections
    (_, lost), (_, won) = bars.get_linestyles()
    assert lost is not None and won is None


def test_classes_pairs_each_seed_with_its_own_baseline(full):
    full.rows = [r for r in full.rows if (r["seed"], r["method"]) != ("1", "supervised")]
    (axes,) = full.draw("classes").axes
    assert list(axes.lines[0].get_xdata()) == [80, 30]
    assert list(axes.lines[1].get_xdata()) == [78, 40]
    assert "dst-cbc (seed 0)" in axes.get_title()


# --------------------------------------------------------------------------------- kept


def test_kept_shows_how_right_each_class_is_by_the_share_kept(full):
    figure = full.draw("kept")
    assert [axes.get_title() for axes in figure.axes] == ["sky", "road"]
    sky, road = map(lines, figure.axes)
    assert sky == {"dst-cbc": ([20, 100], [100, 90])}
    assert road == {"dst-cbc": ([40, 90], [80, 55])}


def test_kept_is_a_share_where_thresholds_counted_a_quarter_of_the_pixels(full):
    for path in full.folder.glob("*/dst-cbc/round*/thresholds.csv"):
        header, *rows = (line.rsplit(",", 1) for line in path.read_text().splitlines())
        quarter = [",".join(header), *(f"{name},{int(pixels) // 4}" for name, pixels in rows)]
        path.write_text("\n".join(quarter) + "\n")
    sky, road = map(lines, full.draw("kept").axes)
    assert sky == {"dst-cbc": ([20, 100], [100, 90])}
    assert road == {"dst-cbc": ([40, 90], [80, 55])}


def test_kept_shows_the_first_split_and_says_so(full):
    full.add("6_0/supervised", 10.0)
    full.chain("dst-cbc", 1.0, 2.0, division="6_0")
    full.labels("6_0/dst-cbc/round1", [1, 1, 1], [0.1, 0.1, 0.1])
    figure = full.draw("kept")
    assert lines(figure.axes[0])["dst-cbc"] == ([20, 100], [100, 90])
    assert figure.legends[0].get_title().get_text() == "split 12"


# -------------------------------------------------------------------------------- sweep


def test_sweep_orders_numbers_and_shows_the_last_round(full):
    (axes,) = full.draw("sweep").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.5", "9", "10"]
    assert axes.get_xlabel() == "gamma"
    assert lines(axes) == {
        "dst-cbc": ([0, 1, 2], [42.25, 46.5, 47]),
        "supervised": ([0, 1], [42, 42]),
    }


def test_sweep_holds_other_keys_equal(study):
    study.add("12_0/supervised", 40.0)
    for name, miou in (
        ("gamma=1,augment_pseudo=True", 41.0),
        ("gamma=9,augment_pseudo=True", 42.0),
        ("gamma=9,augment_pseudo=False", 43.0),
    ):
        study.chain(f"ow@{name}", miou)
    gamma, augment = study.draw("sweep").axes
    assert (gamma.get_xlabel(), augment.get_xlabel()) == ("gamma", "augment_pseudo")
    assert lines(gamma)["ow with augment_pseudo=True"] == ([0, 1], [41, 42])
    assert lines(augment)["ow with gamma=9"] == ([0, 1], [42, 43])
    assert len(lines(gamma)) == len(lines(augment)) == 2


def test_sweep_compares_with_the_baseline_of_its_seeds(study):
    for seed, miou in ((0, 40.0), (1, 60.0)):
        study.add(f"12_{seed}/supervised", miou)
    study.chain("dst-cbc@gamma=1", 41.0)
    study.chain("dst-cbc@gamma=2", 42.0)
    (axes,) = study.draw("sweep").axes
    assert lines(axes)["supervised (seed 0)"] == ([0, 1], [40, 40])


def test_sweep_leaves_out_a_value_whose_last_round_is_missing(study):
    study.add("12_0/supervised", 40.0)
    for gamma, mious in ((1, (41.0, 42.0)), (2, (43.0, None)), (3, (44.0, 45.0))):
        study.chain(f"dst-cbc@gamma={gamma}", *mious)
    figure = study.draw("sweep")
    assert lines(figure.axes[0])["dst-cbc"] == ([0, 2], [42, 45])
    assert said(figure, "missing: 12_0/dst-cbc@gamma=2/round2")


def test_one_value_is_no_sweep(study):
    study.add("12_0/supervised", 40.0)
    study.chain("dst-cbc@gamma=1", 41.0)
    study.chain("dst-cbc@learning_rate=1", 41.0)
    assert "nothing to show" in texts(study.draw("sweep"))


# --------------------------------------------------------------------------------- cost


def bars(axes):
    """{row: (left, width) of each bar in the row}."""
    rows = [label.get_text() for label in axes.get_yticklabels()]
    return {
        row: [(round(bar.get_x(), 6), round(bar.get_width(), 6)) for bar in axes.patches[n::4]]
        for n, row in enumerate(rows)
    }


def test_cost_stacks_prediction_on_training_and_is_a_mean_over_seeds(full):
    full.rows = [row for row in full.rows if row["method"] in ("supervised", "dst-cbc", "st")]
    (axes,) = full.draw("cost").axes
    assert axes.get_xlabel() == "s"
    assert bars(axes) == {
        "supervised, round 0": [(0, 70), (70, 10)],
        "dst-cbc, round 1": [(0, 30), (30, 21)],
        "dst-cbc, round 2": [(0, 40), (40, 0)],
        "st, round 1": [(0, 0), (0, 0)],
    }


def test_cost_of_a_seed_without_files_does_not_dilute_the_mean(full):
    (full.folder / "12_0/supervised/run.json").unlink()
    (axes,) = full.draw("cost").axes
    assert axes.patches[0].get_width() == 80


@pytest.mark.parametrize("seconds, unit, width", [(90, "s", 90), (600, "minutes", 10)])
def test_cost_has_a_unit_that_people_can_read(seconds, unit, width, study):
    study.add("12_0/supervised", 40.0)
    study.took("12_0/supervised", seconds)
    (axes,) = study.draw("cost").axes
    assert (axes.get_xlabel(), axes.patches[0].get_width()) == (unit, width)


# ---------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", FIGURES)
def test_a_study_without_figures_has_a_sentence_for_each(name, study):
    figure = study.draw(name)
    assert "nothing to show" in texts(figure)
    study.add("12_0/supervised")
    study.chain("dst-cbc", None, None)
    figure = study.draw(name)
    assert "nothing to show" in texts(figure)
    assert said(figure, "missing: 12_0/supervised, 12_0/dst-cbc/round1, 12_0/dst-cbc/round2")


def test_a_baseline_alone_is_no_line(study):
    study.add("12_0/supervised", 40.0)
    study.chain("dst-cbc", None, None)
    assert "nothing to show" in texts(study.draw("rounds"))


def test_twelve_methods_are_told_apart_in_black_and_white(study):
    study.add("12_0/supervised", 40.0)
    for number in range(12):
        study.chain(f"method{number}", 41.0 + number, 42.0 + number)
    (axes,) = study.draw("rounds").axes
    drawn = [line for line in axes.lines if line.get_label().startswith("method")]
    assert len({line.get_marker() for line in drawn}) == 12
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 12
    assert len({line.get_color() for line in drawn[:7]}) == 7


def test_levels_differ_in_their_dashes(full):
    for division in ("12_0", "12_1"):
        full.chain("supervised-passes", 42.0, division=division)
    (axes,) = full.draw("rounds").axes
    assert lines(axes)["supervised-passes"] == ([0, 1], [42, 42])
    styles = {line.get_label(): line._dash_pattern for line in axes.lines}
    levels = ("st", "supervised-long", "supervised-passes", "dst-cbc")
    assert len({str(styles[level]) for level in levels}) == 4


def test_a_method_looks_the_same_in_every_figure(full):
    full.chain("ow", 41.0, 42.0)
    full.labels("12_0/ow/round1", [20, 40, 0], [1.0, 0.8, ""])
    full.iou("12_0/ow/round2", 78.0, 40.0, 5.0)
    full.agrees("12_0/ow", ("", "", ""), (4, 3, 0.5))
    looks = set()
    for name in ("rounds", "pseudo_labels", "agreement", "kept", "classes"):
        found = [
            (line.get_color(), line.get_marker())
            for axes in full.draw(name).axes
            for line in axes.lines
            if line.get_label().startswith("ow")
        ]
        assert found
        looks |= set(found)
    assert len(looks) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off_or_on_top_of_another(name, study):
    """Three splits, 21 classes, a dozen methods with long names."""
    methods = [f"a-method-with-a-long-name-{number}" for number in range(12)]
    NAMES[:] = [f"diningtable {number}" for number in range(21)]
    try:
        for division in ("106_0_valtiny", "20_0", "8_0"):
            study.add(f"{division}/supervised", 40.0)
            study.iou(f"{division}/supervised", *range(21))
            for method in methods:
                study.chain(method, 41.0, 42.0, division=division)
                study.iou(f"{division}/{method}/round2", *range(2, 23))
                for round in (1, 2):
                    place = f"{division}/{method}/round{round}"
                    study.labels(place, [9 * round] * 21, [0.5] * 21, pixels=[20] * 21)
                    study.sure(place, 30000)
                study.agrees(f"{division}/{method}", (4, 3, 0.5), (4, 4, 0.25))
                for value in range(8):
                    study.add(f"{division}/{method}@weighting=a-long-value-{value}/round1", value)
        figure = study.draw(name)
    finally:
        NAMES[:] = ["sky", "road", "a car"]
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()
    # The boxes of axes include titles, labels and ticks.
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    boxes += [one.get_window_extent(renderer) for one in (*figure.legends, figure._supxlabel)]
    for number, box in enumerate(boxes):
        assert min(box.p0) > -1 and box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1
        for other in boxes[:number]:
            assert not box.padded(-2).overlaps(other)


HOSTILE = ["$(x)$", "$_{$", "<img src=x onerror=y>", "--><script>", "Größe_{2}", "&amp;"]


@pytest.mark.parametrize("text", HOSTILE)
def test_names_are_only_text(text, study, tmp_path):
    study.add("12_0/supervised", 40.0)
    study.chain("hostile", 41.0, 42.0)
    for row in study.rows:
        row |= {"split": text, "method": row["method"].replace("hostile", text)}
    figure = study.draw("rounds")
    assert figure.axes[0].get_title() == f"split {text}" and text in legend(figure)
    write(figure, tmp_path / "rounds")
    found = {element.tag for element in ElementTree.parse(tmp_path / "rounds.svg").iter()}
    assert not {tag for tag in found if tag.endswith(("}img", "}script", "}image"))}


def test_a_name_with_dots_keeps_them(full, tmp_path):
    write(full.draw("rounds"), tmp_path / "a.b")
    assert sorted(path.name for path in tmp_path.glob("a*")) == ["a.b.png", "a.b.svg"]


def test_the_command_writes_the_same_bytes_with_another_users_settings(full, tmp_path):
    write_csv(full.folder / "summary.csv", COLUMNS, full.rows)
    for name in FIGURES:
        write(full.draw(name), tmp_path / "here" / name)
        write(full.draw(name), tmp_path / "again" / name)
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: red\nfont.size: 20\n")
    (tmp_path / "home").mkdir()
    command = [SCRIPTS / "figures.py", full.folder, "--subset", "test", "--out", "there", *FIGURES]
    environment = {
        k: v for k, v in os.environ.items() if k not in ("MPLCONFIGDIR", "XDG_CACHE_HOME")
    }
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=tmp_path,
        env={**environment, "HOME": str(tmp_path / "home"), "PYTHONHASHSEED": "5"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for name in FIGURES:
        for file in (f"{name}.svg", f"{name}.png"):
            content = (tmp_path / "here" / file).read_bytes()
            assert content == (tmp_path / "again" / file).read_bytes(), file
            assert content == (tmp_path / "there" / file).read_bytes(), file
    # Nothing is left in the user's home.
    assert list((tmp_path / "home").iterdir()) == []


def test_a_png_is_large_enough_to_read(full, tmp_path):
    write(full.draw("rounds"), tmp_path / "rounds")
    assert Image.open(tmp_path / "rounds.png").width >= 800


@pytest.mark.parametrize(
    "path, content, figure, words",
    [
        ("12_0/supervised/metrics.json", "{", "classes", "not readable as JSON"),
        ("12_0/supervised/run.json", "", "cost", "not readable as JSON"),
        ("benchmarks/12_0/supervised/predict.tsv", "x\n1\n", "cost", "benchmarks"),
        ("12_0/dst-cbc/round1/pseudo_labels.csv", "id\na\n", "pseudo_labels", "no column"),
        ("12_0/dst-cbc/round1/thresholds.csv", "x\n1\n", "kept", "no column"),
    ],
)
def test_a_damaged_file_is_named(path, content, figure, words, full):
    (full.folder / path).write_text(content)
    with pytest.raises(DataError, match=words) as error:
        full.draw(figure)
    assert str(full.folder / path) in str(error.value)


def test_a_number_that_is_none_is_named(full):
    full.rows[0]["miou"] = "many"
    with pytest.raises(DataError, match=r"summary\.csv, line 2: column 'miou': .*'many'"):
        full.draw("rounds")


def test_drawing_needs_neither_torch_nor_a_window():
    code = (
        "import sys, dst_cbc.report.figures\n"
        "print(sorted({'torch', 'matplotlib.pyplot', 'tkinter'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout.replace("'", '"')) == [], done.stderr
