"""Run every command of the README and the pages, as printed, in the order of its page.

Each page starts in a folder like a fresh clone in which a smaller demo has finished, with fewer
rounds. Nothing else in a command is changed than the number of the round. Commands that need a GPU,
a network or a cluster are left out; the page reference/untested-commands.md lists and counts them.
"""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from browser import chromium
from documentation import commands_page, files_page, pages
from workflow import REPOSITORY, Project

CI = (REPOSITORY / ".ci/run").read_text()
PAGES = [path for path in pages.written_pages() if list(pages.blocks(path))]
README = pages.README
BY_HAND = pages.DOCS / "guides/labels-by-hand.md"
DEMO, TUTORIAL = (pages.DOCS / f"tutorials/{name}.md" for name in ("demo", "own-images"))
SMALL = {
    "digits": {"size": 32, "train": 100, "val": 4, "test": 3, "digits": [2, 3]},
    "train": {"steps": 3, "validate_every": 2, "batch": 4, "crop": [24, 24], "gamma": 1},
    "supervised": {"steps": 6, "validate_every": 3},
}
CURRICULUM = [0.4, 1.0]
FEWER_RUNS = {
    "demo-control": [{"splits": ["12"], "seeds": [0], "methods": ["dst-cbc"]}],
    "demo-ablation": [{"splits": ["12"], "seeds": [0], "methods": ["dst-cbc"]}],
}


def runnable(page):
    """The blocks of a page that a test machine can run."""
    return [block for block in pages.blocks(page) if not block.needs]


def commands(page):
    """The command lines of a page that a test machine can run, without `make` commands."""
    found = [line for block in runnable(page) for line in pages.commands(block)]
    return [line for line in found if not line.startswith("make ")]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the repository in which a small demo has finished."""
    root = tmp_path_factory.mktemp("pages") / "clone"
    root.mkdir()
    for name in ("Snakefile", "workflow", "scripts", "profiles", "envs", "config.yaml"):
        if (REPOSITORY / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPOSITORY / name, root / name, ignore=ignored)
        else:
            shutil.copy(REPOSITORY / name, root / name)
    (root / ".venv").symlink_to(sys.prefix)
    demo = yaml.safe_load((root / "config.yaml").read_text())
    Project.write(root / "config.yaml", {**demo, **SMALL})
    for name, runs in FEWER_RUNS.items():
        path = root / f"workflow/experiments/{name}.yaml"
        Project.write(path, {**yaml.safe_load(path.read_text()), "runs": runs})
    give_rounds(root, CURRICULUM)
    project = Project(root)
    project.snakemake()
    return project


@pytest.fixture
def folder(clone, tmp_path):
    """A copy of the clone for one page."""
    return clone.copy(tmp_path / "clone").root


def layout_of_the_page(folder):
    """Make the folder photos/ and the experiment file that guides/experiment-files.md shows."""
    for kind in ("images", "labels"):
        for subset in ("train", "val", "test"):
            target = folder / "photos" / kind / subset
            shutil.copytree(folder / "results/digits" / kind / subset, target)
    for mask in sorted((folder / "photos/labels/train").iterdir())[20:]:
        mask.unlink()
    page = pages.DOCS / "guides/experiment-files.md"
    (file,) = (b for b in pages.blocks(page, ["yaml"]) if "name: cells" in b.text)
    names = [f"class {n}" for n in range(2, 11)]
    colours = {name: f"#0000{n:02x}" for n, name in enumerate(names)}
    experiment = yaml.safe_load(file.text)
    # The demo's masks have more classes than the experiment of the page.
    experiment["classes"] |= colours
    experiment["labels"] = {0: "background", 1: "cell", **dict(enumerate(names, 2))}
    Project.write(folder / "cells.yaml", experiment)


def rounds_of(folder):
    """The curriculum of `dst-cbc` in a copy of the repository."""
    return yaml.safe_load((folder / "workflow/methods.yaml").read_text())["dst-cbc"]["curriculum"]


def give_rounds(folder, curriculum):
    """Write another curriculum of `dst-cbc`."""
    path = folder / "workflow/methods.yaml"
    methods = yaml.safe_load(path.read_text())
    Project.write(path, {**methods, "dst-cbc": {**methods["dst-cbc"], "curriculum": curriculum}})


PREPARED = {
    TUTORIAL: lambda folder: give_rounds(folder, [1.0]),
    pages.DOCS / "guides/experiment-files.md": layout_of_the_page,
}


def run(block, folder):
    """Run a block of shell in the folder, without `make` commands, which .ci/run runs."""
    text = "\n".join(line for line in block.text.splitlines() if not line.startswith("make "))
    # The last round stands for the last round of the pages, the first one for one in between.
    text = text.replace("round5", f"round{len(rounds_of(folder))}").replace("round3", "round1")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], cwd=folder, env={**os.environ, "PATH": path},
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{block.page}:\n{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def shorten(folder):
    """Put a small network and a few steps into experiment files that were planned in hours."""
    for path in folder.glob("letters*.yaml"):
        content = yaml.safe_load(path.read_text())
        if content["supervised"]["steps"] > 4:
            content["network"] = {"backbone": "small", "output_stride": 4, "aspp_rates": [1]}
            content["train"] |= {"steps": 4, "validate_every": 2, "freeze_stages": 0}
            content["workers"] = 0
            content["supervised"] |= {"steps": 4, "validate_every": 2}
            Project.write(path, content)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if commands(page) and page not in (README, DEMO, BY_HAND)],
    ids=lambda page: page.relative_to(pages.DOCS).as_posix(),
)
def test_the_commands_of_a_page_run_in_its_order(page, folder):
    PREPARED.get(page, lambda folder: None)(folder)
    for block in runnable(page):
        run(block, folder)
        shorten(folder)


def test_the_guide_to_changes_by_hand_runs_and_a_forced_round_gives_the_old_bytes(folder):
    gallery, edit, accept, verify, force = runnable(BY_HAND)
    model = folder / "results/demo/12_0/dst-cbc/round1/model.pt"
    old = model.read_bytes()
    for block in (gallery, edit, accept, verify):
        run(block, folder)
    (model.parent / "thresholds.edited.csv").unlink()
    log = folder / "results/demo/logs/12_0/dst-cbc/round1/finetune.log"
    log.write_text("")
    run(force, folder)
    assert "step 3/3" in log.read_text()
    assert model.read_bytes() == old


def test_the_demo_s_tutorial_runs_and_what_it_says_of_edited_thresholds_is_true(folder):
    *before, edit, plan, again, back = runnable(DEMO)
    for block in before:
        run(block, folder)
    model = folder / "results/demo/12_0/dst-cbc/round2/model.pt"
    last = model.with_name("last.pt")
    old = model.read_bytes(), last.read_bytes()
    run(edit, folder)
    said = run(plan, folder)
    planned = set(re.findall(r"^(\w+) +1$", said, re.MULTILINE))
    assert planned == {
        "pseudo_labels", "finetune", "evaluate", "contact_sheet", "gallery", "summary", "tables",
        "figures", "recommend", "all",
    }  # fmt: skip
    run(again, folder)
    assert last.read_bytes() != old[1]
    assert "edited" in (folder / "results/demo/summary.md").read_text()
    run(back, folder)
    assert (model.read_bytes(), last.read_bytes()) == old


def test_every_file_of_a_finished_study_is_described_with_its_columns(clone):
    known = files_page.BY_RULES | files_page.BY_HAND
    described, undescribed = set(), set()
    for path in (clone.root / "results").rglob("*"):
        if path.is_dir() or path.is_relative_to(clone.root / "results/digits"):
            continue
        inside = path.relative_to(clone.root)
        name, *folders = (files_page.pattern(p.as_posix()) for p in (inside, *inside.parents))
        found = {name, *folders} & known.keys()
        described |= found
        undescribed |= set() if found else {name}
        if path.suffix == ".csv":
            with open(path, newline="") as file:
                header = next(csv.reader(file))
            columns = [c for c in header if not c.startswith("pixels ") or c == "pixels"]
            expected = [c for c in known[name].columns if c != "pixels <class>"]
            assert columns == expected, name
    assert not undescribed
    asked = {n for n in files_page.BY_RULES if n.startswith(files_page.GIVEN) or "/export/" in n}
    assert described >= files_page.BY_RULES.keys() - asked - {"results/digits/scenes.json"}


@chromium
def test_the_pictures_of_the_pages_are_made_from_the_demo_s_results(clone, tmp_path):
    options = ["results/demo", "--out", str(tmp_path / "pictures")]
    subprocess.run(
        [sys.executable, REPOSITORY / "scripts/document_pictures.py", *options],
        cwd=clone.root, check=True,
    )  # fmt: skip
    made = {path.name: path for path in (tmp_path / "pictures").iterdir()}
    assert made.keys() == {"contact-sheet.jpg", "gallery.png", "pseudo-labels.png", "rounds.svg"}
    shown = {f"pictures/{name}" for name in made}
    text = "".join(page.read_text() for page in pages.written_pages())
    assert all(name in text for name in shown)
    with Image.open(made["pseudo-labels.png"]) as image:
        colours = image.convert("RGB").getcolors(1 << 16)
    assert len(colours) > 10
    with Image.open(made["gallery.png"]) as image:
        assert image.size == (1000, 760) and len(image.convert("RGB").getcolors(1 << 16)) > 100


def test_the_readme_s_commands_are_those_of_the_tutorial_and_of_ci():
    tutorial = commands(TUTORIAL)
    places = [tutorial.index(command) for command in commands(README)]
    assert places == sorted(places) and places


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_a_make_target_of_a_block_is_run_by_ci(page):
    for block in runnable(page):
        for line in pages.commands(block):
            if line.startswith("make "):
                assert re.search(rf"{line}$", CI, re.MULTILINE), f"{page}: .ci/run lacks `{line}`"


def every_command():
    """(page, command) of every block, also of those that need a GPU, a network or a cluster."""
    for page in PAGES:
        for block in pages.blocks(page):
            for line in pages.commands(block):
                yield page, line
    # Commands in the text around the blocks are in backticks.
    for page in pages.written_pages():
        text = re.sub(r"(?s)```.*?```", "", page.read_text())
        # A name in capitals stands for one of several scripts.
        for line in re.findall(r"`((?:make|snakemake|python scripts/[a-z_]+\.py)( [^`]+)?)`", text):
            yield page, line[0]


@pytest.mark.parametrize(
    "page, command", sorted({(p.relative_to(REPOSITORY).as_posix(), c) for p, c in every_command()})
)
def test_a_command_names_what_exists(page, command):
    words = shlex.split(command)
    if words[:2] == ["make", *words[1:2]]:
        targets = re.findall(r"^(\w[\w-]*):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        assert all(word in targets for word in words[1:] if "=" not in word)
    for place, word in enumerate(words):
        if re.fullmatch(r"scripts/\w+\.py", word):
            parser = commands_page.parser_of(REPOSITORY / word)
            options = {name for action in parser._actions for name in action.option_strings}
            used = {word for word in words[place:] if re.match(r"--?[a-z]", word)}
            assert used <= options
        if word.startswith(("workflow/", "profiles/")):
            assert (REPOSITORY / word).exists()
    if words[0] == "snakemake":
        used = {word for word in words if re.match(r"--[a-z]", word)}
        assert used <= SNAKEMAKE_OPTIONS


def _snakemake_options():
    from snakemake.cli import get_argument_parser

    return {name for action in get_argument_parser()._actions for name in action.option_strings}


SNAKEMAKE_OPTIONS = _snakemake_options()
