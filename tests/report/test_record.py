"""Commands for a finished study: require_gain.py checks its gain, record.py its summary."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dst_cbc.report.summary import COLUMNS
from dst_cbc.runtime.tables import read_csv, write_csv
from workflow import SCRIPTS


def command(script: str, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / script), *map(str, arguments)],
        capture_output=True,
        text=True,
    )


@pytest.fixture
def study(tmp_path):
    """Return a function that writes a study whose last round has these gains, one per seed."""

    def write(*gains: float | None) -> Path:
        fixed = {"split": "6", "method": "dst-cbc", "checkpoint": "best", "selected_on": "val"}
        rows = [
            {
                **fixed,
                "subset": subset,
                "seed": seed,
                "round": round,
                "gain": value,
                "miou": None if gain is None else 40.0,
            }
            for subset in ("val", "test")
            for seed, gain in enumerate(gains)
            for round, value in ((1, 50.0), (2, gain if subset == "test" else 50.0))
        ]
        write_csv(tmp_path / "summary.csv", COLUMNS, rows)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("gains", "passes"), [((3.0,), True), ((2.9,), False), ((2.0, 4.5), True), ((9.0, None), False)]
)
def test_the_mean_gain_of_the_last_round_on_the_subset_decides(study, gains, passes):
    summary = study(*gains) / "summary.csv"
    arguments = ("--method", "dst-cbc", "--subset", "test", "--points", 3)
    assert (command("require_gain.py", summary, *arguments).returncode == 0) == passes


def test_a_method_that_did_not_run_fails(study):
    summary = study(5.0) / "summary.csv"
    arguments = ("--method", "st", "--subset", "test", "--points", 3)
    assert command("require_gain.py", summary, *arguments).returncode == 1


def trained(folder, commit="abc"):
    run = {
        "commit": commit, "device": "cpu", "seconds": 7.5, "versions": {"torch": "2", "cpu": "X"},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "settings.json").write_text("{}")


MACHINE = ["settings", "commit", "device", "torch", "seconds"]


def test_a_record_adds_what_each_row_was_run_on(study, tmp_path):
    folder = study(5.0)
    trained(folder / "6_0/dst-cbc/round2")
    out = tmp_path / "docs/record.csv"
    assert command("record.py", folder, "--out", out).returncode == 0
    rows = read_csv(out, [*COLUMNS, *MACHINE])
    assert len(rows) == 4
    assert [row["commit"] for row in rows] == ["", "abc", "", "abc"]
    assert (rows[1]["device"], rows[1]["torch"], rows[1]["seconds"]) == ("cpu X", "2", "7.5")
    assert rows[1]["settings"] == hashlib.sha256(b"{}").hexdigest()[:12]


def test_a_row_without_figures_keeps_those_of_an_earlier_sitting(study, tmp_path):
    out = tmp_path / "record.csv"
    sittings = (((5.0, None), 0, "monday"), ((None, 7.0), 1, "tuesday"))
    for gains, seed, commit in sittings:
        folder = study(*gains)
        shutil.rmtree(folder / "6_0", ignore_errors=True)
        trained(folder / f"6_{seed}/dst-cbc/round2", commit)
        assert command("record.py", folder, "--out", out).returncode == 0
    rows = read_csv(out, [*COLUMNS, *MACHINE])
    assert len(rows) == 8
    last = {row["seed"]: row for row in rows if (row["round"], row["subset"]) == ("2", "test")}
    assert {seed: (row["gain"], row["commit"]) for seed, row in last.items()} == {
        "0": ("5.0", "monday"),
        "1": ("7.0", "tuesday"),
    }
