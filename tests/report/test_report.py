"""Outputs of a finished study for people: tables, figures, contact sheets, Snakemake's report."""

import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from browser import browse, chromium
from dst_cbc.runtime.tables import read_csv
from workflow import Project

# All tests here read one study of thirteen models.
pytestmark = pytest.mark.slow

METHODS = {
    "dst-cbc": {"curriculum": [0.5, 1.0]},
    "st": {"curriculum": [1.0], "round_length": 2, "gamma": 0},
    "supervised-long": {"labeling": "none", "match": "dst-cbc"},
}
RUNS = [
    {"splits": ["6"], "seeds": [0, 1], "methods": ["dst-cbc", "st", "supervised-long"]},
    {"splits": ["all"], "seeds": [0], "methods": ["supervised"]},
    {"splits": ["6"], "seeds": [0], "methods": ["st"], "vary": {"gamma": [1, 2]}},
]
SPLITS = {"6": {"count": 6}, "all": {"all": True}}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study with two seeds, a control, an oracle and a sweep."""
    project = Project.create(
        tmp_path_factory.mktemp("report") / "project", runs=RUNS, splits=SPLITS,
        report={"title": "A study", "paper": {"dst-cbc": {"6": 70.5}}},
    )  # fmt: skip
    project.write(project.root / "workflow/methods.yaml", METHODS)
    project.snakemake()
    return project


def test_a_run_ends_with_tables_figures_and_a_sheet_per_round(study):
    folder = study.study / "report/tiny"
    figures = ["rounds", "classes", "cost", "pseudo_labels", "agreement", "kept", "sweep"]
    files = {f"{name}.{kind}" for name in figures for kind in ("svg", "png")}
    assert {path.name for path in folder.iterdir() if path.is_file()} == files | {
        "table.csv", "table.md", "table.tex",
    }  # fmt: skip
    for name in files:
        assert (folder / name).stat().st_size > 1000
    sheets = {path.parent for path in study.study.rglob("contact_sheet.jpg")}
    assert sheets == {path.parent for path in study.study.rglob("pseudo_labels.csv")}
    assert len(sheets) == 2 * (2 + 1) + 2
    pages = {path.parent for path in study.study.rglob("gallery.html")}
    assert pages == {folder.parent for folder in sheets}
    for folder in sheets:
        with Image.open(folder / "contact_sheet.jpg") as image:
            image.load()


def test_the_table_of_a_study_has_its_seeds_oracle_control_and_the_papers_figure(study):
    rows = read_csv(study.study / "report/tiny/table.csv", ["method"])
    best, row = (
        next(
            r
            for r in rows
            if (r["method"], r["round"], r["checkpoint"], r["subset"])
            == ("dst-cbc", "2", checkpoint, "val")
        )
        for checkpoint in ("best", "last")
    )
    summary = read_csv(study.study / "summary.csv", ["method"])
    figures = {
        (r["split"], r["seed"], r["method"], r["round"]): float(r["miou"])
        for r in summary
        if (r["checkpoint"], r["subset"]) == ("last", "val")
    }
    ours = [figures["6", seed, "dst-cbc", "2"] for seed in "01"]
    control = [figures["6", seed, "supervised-long", "1"] for seed in "01"]
    oracle = figures["all", "0", "supervised", "0"]
    mean = sum(ours) / 2
    assert (row["seeds"], row["labeled"], row["n"]) == ("0 1", "6", "2")
    assert float(row["miou"]) == pytest.approx(mean)
    assert float(row["over_control"]) == pytest.approx(mean - sum(control) / 2)
    assert float(row["relative"]) == pytest.approx(100 * mean / oracle)
    assert row["difference"] == "" and best["paper"] == "70.5"
    assert float(best["difference"]) == pytest.approx(float(best["miou"]) - 70.5)
    assert float(row["seconds"]) > 0
    text = (study.study / "report/tiny/table.md").read_text()
    assert text.startswith("# A study\n") and "selected on val" in text


def test_a_file_that_only_reports_trains_nothing(study):
    more = study.root / "table.yaml"
    study.write(more, {"extends": "config.yaml", "report": {"name": "again", "title": "Again"}})
    jobs = study.jobs("--configfile", str(more))
    assert sorted(job.split()[0] for job in jobs) == ["figures", "tables"]
    study.snakemake("--configfile", str(more))
    assert (study.study / "report/again/table.md").read_text().startswith("# Again\n")
    assert not study.jobs()


def test_tables_and_figures_of_equal_data_are_equal_bytes(study):
    folder = study.study / "report/tiny"
    before = {path.name: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    study.snakemake("--forcerun", "tables", "figures")
    assert before == {
        path.name: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()
    }


def test_the_tables_of_an_unfinished_study_show_what_is_missing(study, tmp_path):
    copy = study.copy(tmp_path / "copy")
    shutil.rmtree(copy.study / "6_1/st")
    models = ["6_0/supervised", "6_0/st/round1", "6_1/supervised", "6_1/st/round1"]
    scripts = copy.root / "scripts"
    for command in (
        [scripts / "summarize.py", copy.study, *models, "--csv", copy.study / "summary.csv",
         "--markdown", copy.study / "summary.md"],
        [scripts / "tables.py", copy.study, "--settings", "{}", "--out", tmp_path / "out"],
    ):  # fmt: skip
        subprocess.run([sys.executable, *map(str, command)], check=True)
    text = (tmp_path / "out/table.md").read_text()
    assert re.search(r"\| `st` .* 0 \(missing: 1\) \|", text)


# --------------------------------------------------------------------------- Snakemake's report


@chromium
def test_the_report_opens_in_a_browser_without_a_network(study, tmp_path):
    page = tmp_path / "report.html"
    study.snakemake("--report", str(page))
    shown = browse(page)
    for category in ("Summary", "Tables", "Figures", "Pseudo labels"):
        assert category in shown
    source = page.read_text()
    for words in ("Compare", "selected on val", "contact_sheet.jpg", "rounds.svg"):
        assert words in source
