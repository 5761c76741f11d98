"""As a module of another workflow, in another folder: the same jobs and the same bytes."""

import re
import shutil
from collections import Counter

import pytest
import yaml

from documentation.pages import DOCS, blocks
from workflow import EXPERIMENT, Project, jobs_in, results

OUTER = """
configfile: "outer.yaml"

module dst_cbc:
    snakefile:
        {snakefile!r}
{statements}

use rule * from dst_cbc as seg_*

rule report:
    input:
        rules.seg_summary.output.csv,
    output:
        "figures.txt",
    shell:
        "wc -l {{input}} > {{output}}"
"""
CONFIG, PREFIX = "    config:\n        config['segmentation']\n", "    prefix:\n        'seg'\n"
ROUND = "results/tiny/6_0/dst-cbc/round1"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone of the workflow, with parts of only 3 images, so that shards have some."""
    project = Project.create(tmp_path_factory.mktemp("module") / "clone")
    project.divide_into_parts(3)
    return project


@pytest.fixture
def outer(clone, tmp_path):
    """Return a function that makes another workflow around the clone, as a Project."""

    def make(statements, **segmentation):
        snakefile = str(clone.root / "Snakefile")
        text = OUTER.format(snakefile=snakefile, statements=statements)
        (tmp_path / "Snakefile").write_text(text)
        content = {"sample": "a key of the other workflow", "segmentation": segmentation}
        (tmp_path / "outer.yaml").write_text(yaml.safe_dump(content))
        return Project(tmp_path)

    return make


def outputs(printed):
    """(number of jobs by rule, all output files) of a dry run."""
    blocks = jobs_in(printed)
    lists = (re.search(r"    output: (.*)", block) for _, block in blocks)
    files = [file for found in lists if found for file in found[1].split(", ")]
    return Counter(rule for rule, _ in blocks), files


def test_it_has_the_jobs_of_the_workflow_itself_all_below_the_prefix(clone, outer):
    ours, files = outputs(clone.snakemake("-n"))
    theirs, below = outputs(outer(CONFIG + PREFIX, **EXPERIMENT).snakemake("-n", "seg_all"))
    assert theirs == {f"seg_{rule}": count for rule, count in ours.items()}
    assert sorted(below) == sorted(f"seg/{file}" for file in files)


def test_the_example_of_the_documentation_plans_its_own_rule_and_all_of_these(clone, tmp_path):
    (example,) = blocks(DOCS / "guides/module.md", ["python"])
    (tmp_path / "Snakefile").write_text(
        example.text.replace("path/to/dst-cbc/Snakefile", str(clone.root / "Snakefile"))
    )
    content = {"segmentation": yaml.safe_load((clone.root / "config.yaml").read_text())}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    said = Project(tmp_path).snakemake("-n", "count_cells", "--quiet", "rules")
    planned = set(re.findall(r"^(\w+) +\d+$", said, re.MULTILINE))
    assert planned >= {"count_cells", "dst_train", "dst_finetune", "dst_summary"}


@pytest.mark.slow
def test_a_rule_of_the_other_workflow_takes_its_outputs(outer):
    rules, files = outputs(outer(CONFIG, **EXPERIMENT).snakemake("-n", "report"))
    assert rules["seg_train"] == rules["report"] == 1 and rules["seg_finetune"] == 3
    assert "results/tiny/summary.csv" in files and "figures.txt" in files


@pytest.mark.slow
def test_without_config_it_takes_the_experiment_file_of_the_command_line(outer):
    project = outer("")
    content = {**EXPERIMENT, "name": "tiny", "runs": [{"splits": ["6"], "methods": ["supervised"]}]}
    (project.root / "mine.yaml").write_text(yaml.safe_dump(content))
    rules, _ = outputs(project.snakemake("-n", "seg_all", "--configfile", "mine.yaml"))
    assert rules["seg_train"] == 1 and "seg_finetune" not in rules


def test_files_of_the_user_s_are_taken_from_where_they_are(outer, clone):
    lists = {"files": {"labeled": "lists/labeled.txt", "unlabeled": "lists/unlabeled.txt"}}
    runs = [{"splits": ["mine"], "methods": ["dst-cbc"]}]
    project = outer(CONFIG + PREFIX, **{**EXPERIMENT, "splits": {"mine": lists}, "runs": runs})
    (project.root / "lists").mkdir()
    ids = [f"train-{number:04d}" for number in range(14)]
    (project.root / "lists/labeled.txt").write_text("".join(f"{id}\n" for id in ids[:6]))
    (project.root / "lists/unlabeled.txt").write_text("".join(f"{id}\n" for id in ids[6:]))
    printed = project.snakemake("-n", "seg_all")
    assert "lists/labeled.txt" in printed and "seg/lists" not in printed


@pytest.mark.slow
def test_a_wrong_key_is_refused_as_in_an_experiment_file(outer):
    printed = outer(CONFIG, **EXPERIMENT, shard=3).snakemake("-n", "seg_all", fails=True)
    assert "config: shard: unknown key; did you mean 'shards'?" in printed


def test_without_its_scripts_beside_it_it_says_what_it_needs(outer, tmp_path, clone):
    project = outer(CONFIG, **EXPERIMENT)
    alone = tmp_path / "alone"
    shutil.copytree(clone.root / "workflow", alone / "workflow")
    shutil.copy(clone.root / "Snakefile", alone)
    snakefile = project.root / "Snakefile"
    snakefile.write_text(snakefile.read_text().replace(str(clone.root), str(alone)))
    assert "a local copy of DST-CBC: git clone it" in project.snakemake("-n", fails=True)


@pytest.mark.slow
def test_it_makes_the_same_bytes_and_then_has_nothing_to_do(clone, outer):
    made = ("model.pt", "*.h5", "*.npz", "thresholds.csv", "pseudo_labels*.csv", "*.png")
    clone.snakemake(f"{ROUND}/model.pt")
    expected = results(clone.study, *made)
    project = outer(CONFIG + PREFIX, **EXPERIMENT, shards=2)
    project.snakemake(f"seg/{ROUND}/model.pt")
    assert results(project.root / "seg/results/tiny", *made) == expected and len(expected) > 12
    assert {path.name for path in project.root.iterdir()} == {
        "Snakefile", "outer.yaml", "seg", ".snakemake",
    }  # fmt: skip
    profile = str(clone.root / "profiles/default")
    for shards in (2, 1):
        outer(CONFIG + PREFIX, **EXPERIMENT, shards=shards)
        # The first target would run again if it missed its shards, the second if anything before
        # it ran again.
        for target in ("results/tiny/6_0/supervised/histogram.npz", f"{ROUND}/model.pt"):
            printed = project.snakemake("-n", f"seg/{target}", "--workflow-profile", profile)
            assert "Nothing to be done" in printed
    assert "all files are as" in project.snakemake("seg_verify")
    path = f"seg/{ROUND}/thresholds.csv"
    (project.root / path).write_text("damage")
    assert f"changed: {path}" in project.snakemake("seg_verify", fails=True)
