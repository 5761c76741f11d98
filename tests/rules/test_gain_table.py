"""workflow/gain.smk: several studies as modules of one workflow, and their table."""

from collections import Counter

import pytest
import yaml

from dst_cbc.data.downloads import SOURCES
from dst_cbc.runtime.tables import read_csv
from workflow import EXPERIMENT, Project, jobs_in

RUN = {"splits": ["6"], "seeds": [0, 1], "methods": ["supervised-long"]}
SHARED = {**EXPERIMENT, "runs": [RUN]}
PARTS = {
    "a": {"data": "results/scenes-a", "digits": {"seed": 1}},
    "b": {"data": "results/scenes-b", "digits": {"seed": 2}, "runs": [{**RUN, "seeds": [0]}]},
}
TABLE = {
    "studies": {
        name: {
            "dataset": f"Digits {test}",
            "test": "drawn",
            "files": ["parts/shared.yaml", f"parts/{test}.yaml"],
        }
        for name, test in (("digits-a", "a"), ("digits.b", "b"))
    },
    "scenarios": {"6": "unseen"},
}
PLACE = ["--snakefile", "workflow/gain.smk", "--configfile", "table.yaml"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A table of two studies on other drawn scenes."""
    project = Project.create(tmp_path_factory.mktemp("gain") / "project")
    (project.root / "parts").mkdir()
    content = {"parts/shared.yaml": SHARED, "table.yaml": TABLE}
    content |= {f"parts/{test}.yaml": part for test, part in PARTS.items()}
    for name, one in content.items():
        (project.root / name).write_text(yaml.safe_dump(one))
    return project


def test_the_jobs_of_all_studies_and_one_table(project):
    printed = project.snakemake("-n", *PLACE)
    counts = Counter(rule for rule, _ in jobs_in(printed))
    assert counts["gain"] == 1
    # Round 0 and the control, on each seed.
    assert (counts["digits_a_train"], counts["digits_b_train"]) == (4, 2)
    for prefix in ("digits_a_", "digits_b_"):
        assert counts[f"{prefix}draw_digits"] == counts[f"{prefix}summary"] == 1
    assert "results/digits.b/6_0/supervised-long/round1/metrics.json" in printed
    assert "results/table/gain.csv" in printed


def test_studies_of_one_data_set_share_their_data_wherever_they_are(project):
    moved = ["--config", 'data={"Digits a": "results/elsewhere", "Digits b": "results/elsewhere"}']
    printed = project.snakemake("-n", *PLACE, *moved)
    draws = [rule for rule, _ in jobs_in(printed) if rule.endswith("draw_digits")]
    assert draws == ["digits_a_draw_digits"]
    assert printed.count("output: results/elsewhere/scenes.json") == 1


@pytest.mark.parametrize("name", ["camvid", *(n for n, s in SOURCES.items() if s.prepare)])
def test_a_download_is_made_by_the_rule_of_the_first_study(project, name):
    printed = project.snakemake("-n", f"results/downloads/{name}", *PLACE)
    assert {rule for rule, _ in jobs_in(printed)} == {f"digits_a_download_{name}"}


def test_a_wrong_key_is_named_before_anything_runs(project):
    wrong = project.snakemake("-n", *PLACE, "--config", "scenario={}", fails=True)
    assert "--config: scenario: unknown key; did you mean 'scenarios'?" in wrong


@pytest.mark.slow
def test_a_table_of_two_studies_made_in_two_sittings(project):
    project.snakemake("results/digits-a/summary.csv", *PLACE)
    printed = project.snakemake(*PLACE)
    assert "digits_a_train" not in printed
    rows = read_csv(project.root / "results/table/gain.csv", ())
    found = {(r["dataset"], r["method"]): r for r in rows if r["checkpoint"] == "best"}
    methods = ("supervised", "supervised-long")
    assert [*found] == [(f"Digits {test}", method) for test in "ab" for method in methods]
    two, one = found["Digits a", "supervised-long"], found["Digits b", "supervised-long"]
    assert [(row["planned"], row["cells"], row["seeds"]) for row in (two, one)] == [
        ("2", "2", "2"),
        ("1", "1", "1"),
    ]
    assert float(two["gain_low"]) < float(two["gain"]) < float(two["gain_high"])
    assert one["gain"] and not one["gain_low"]
    # Round 0 takes 6 steps, the three rounds that the control matches take 3 each.
    assert (two["steps"], found["Digits a", "supervised"]["steps"]) == ("15", "6")
    cells = read_csv(project.root / "results/table/cells.csv", ())
    gains = [
        float(c["gain"])
        for c in cells
        if (c["dataset"], c["checkpoint"]) == ("Digits a", "best") and c["gain"]
    ]
    assert float(two["gain"]) == pytest.approx(sum(gains) / 2, abs=0.011) and len(gains) == 2
    assert (project.root / "results/table/gain.svg").is_file()
    assert "Nothing to be done" in project.snakemake("-n", *PLACE)
