import json
import re
import runpy
import sys

import numpy as np
import pytest

from dst_cbc.data.index import Row, write_index
from dst_cbc.inference.confusions import Confusions, write_confusions
from dst_cbc.inference.metrics import mean_iou
from dst_cbc.inference.paired import difference
from dst_cbc.report.summary import COLUMNS
from dst_cbc.runtime.tables import write_csv
from trainings import SCRIPTS

IDS = ["a/3", "a/4", "b/1", "c/1"]
TRUTH = np.array([[40, 20], [30, 30], [50, 10], [20, 40]])


def matrices(right):
    """int64 (4, 2, 2), of images in which these shares of each class are right."""
    hits = np.rint(TRUTH * np.array(right)[:, None]).astype(np.int64)
    return np.stack([np.diag(h) + np.diag(t - h)[::-1].T for h, t in zip(hits, TRUTH, strict=True)])


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A function that writes a study of one method: right, by seed, as in `matrices`."""
    monkeypatch.chdir(tmp_path)

    def write(name, right, group=None, ids=IDS):
        folder = tmp_path / name
        rows = []
        for seed, shares in right.items():
            found, model = matrices(shares), folder / f"4_{seed}/supervised"
            model.mkdir(parents=True)
            dataset = {"grouping": 1} if group == 1 else {"pairs": {"group": group}}
            settings = {"train": {"steps": 5}, "network": {}, "dataset": dataset}
            (model / "settings.json").write_text(json.dumps(settings))
            figures = {
                "images": 4, "miou": 100 * mean_iou(found.sum(0)), "pixel_accuracy": 50.0,
                "classes": ["x", "y"], "iou": {},
            }  # fmt: skip
            one = {"round": 0, "subsets": {"test": figures}}
            (model / "metrics.json").write_text(json.dumps({"best": one, "last": one}))
            evaluated = Confusions(ids, found)
            write_confusions(
                model / "confusions.csv", {(c, "test"): evaluated for c in ("best", "last")}
            )
            rows += [
                dict.fromkeys(COLUMNS, "")
                | {
                    "split": "4", "seed": seed, "method": "supervised", "round": 0,
                    "checkpoint": checkpoint, "selected_on": "val", "subset": "test",
                    "miou": figures["miou"],
                }
                for checkpoint in ("best", "last")
            ]  # fmt: skip
        write_csv(folder / "summary.csv", COLUMNS, rows)
        index = [
            Row(id, f"{id}.png", f"{id}.mask.png", 8, 8, "test", "0" * 64, "0" * 64) for id in ids
        ]
        write_index(folder / "dataset.csv", index)
        return folder

    return write


@pytest.fixture
def compared(monkeypatch, capsys):
    """A function that returns the cells that compare.py prints in the line of the best models."""

    def run(*studies):
        monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, studies)])
        runpy.run_path(str(SCRIPTS / "compare.py"))["run"]()
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "| best |" in line]
        return [cell.strip() for cell in line.strip("| ").split("|")]

    return run


FIRST = {0: [0.5, 0.6, 0.4, 0.7], 1: [0.5, 0.5, 0.5, 0.5], 2: [0.1] * 4}
OTHER = {0: [0.7, 0.6, 0.7, 0.9], 1: [0.8, 0.6, 0.6, 0.5]}


def expected(groups):
    """The difference and its interval over the seeds 0 and 1, which both studies have."""
    ours, theirs = (
        np.stack([matrices(study[seed]) for seed in (0, 1)]) for study in (OTHER, FIRST)
    )
    return difference(ours, theirs, groups)


@pytest.mark.parametrize(
    "group, groups", [(None, [0, 0, 1, 2]), (r"^(b|c)/", [0, 1, 2, 3]), (1, [0, 1, 2, 3])]
)
def test_the_interval_of_the_common_seeds_follows_their_difference(study, compared, group, groups):
    cell = compared(study("one", FIRST, group), study("two", OTHER))[-1]
    wanted = expected(groups)
    mean, low, high, count = re.fullmatch(
        r"(\S+) ± \S+ \(95 % interval (\S+) to (\S+), (\d) groups\)", cell
    ).groups()
    assert float(mean) == pytest.approx(wanted.mean, abs=0.006)
    assert float(low) == pytest.approx(wanted.low, abs=0.006)
    assert float(high) == pytest.approx(wanted.high, abs=0.006)
    assert int(count) == len({*groups}) == wanted.groups


def test_studies_that_were_not_evaluated_on_the_same_images_have_a_difference_alone(
    study, compared
):
    first = study("one", FIRST)
    alone = compared(first, study("two", OTHER, ids=["a/3", "a/4", "b/1", "d"]))[-1]
    assert re.fullmatch(r"\S+ ± \S+", alone)
    assert compared(first, first / "summary.csv")[-1] == "+0.00 ± 0.00"
    # Another mask of an image, though the image is the same.
    other = study("three", OTHER)
    path = other / "4_1/supervised/confusions.csv"
    path.write_text(path.read_text().replace("a/3,0,0,", "a/3,0,0,1"))
    assert compared(first, other)[-1] == alone
    earlier = study("four", OTHER)
    (earlier / "4_1/supervised/confusions.csv").unlink()
    assert compared(first, earlier)[-1] == alone


def test_images_of_one_group_have_a_difference_without_an_interval(study, compared):
    cell = compared(study("one", FIRST, "(/)"), study("two", OTHER))[-1]
    assert re.fullmatch(r"\S+ ± \S+", cell)
