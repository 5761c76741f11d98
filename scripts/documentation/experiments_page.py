"""Reference pages of the shipped experiments, and of the commands that no test can run."""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from dst_cbc.report.tables import markdown_table

from .pages import NEEDS, REPOSITORY, Block, commands, page

EXPERIMENTS = REPOSITORY / "workflow/experiments"


def experiments_page() -> str:
    """Every experiment file with the comment at its top."""
    files = [REPOSITORY / "config.yaml", *sorted(EXPERIMENTS.rglob("*.yaml"))]
    return page(
        "Shipped experiments",
        "One file is one experiment. A file that extends another one shares its study and its "
        "models. [How settings merge](../guides/experiment-files.md) explains `extends`.",
        "Run a file with `snakemake --cores all --configfile FILE`. Where its data are in another "
        "folder than the file says, add `--config data=PATH`.",
        *(f"## `{path.relative_to(REPOSITORY)}`\n\n{_comment(path)}" for path in files),
    )


def _comment(path: Path) -> str:
    """The comment at the top of a file, up to the command that runs it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = takewhile(lambda line: line.startswith("#"), lines)
    text = " ".join(line.removeprefix("#").strip() for line in comment)
    return text.partition(" snakemake --")[0]


def untested_page(found: Sequence[Block]) -> str:
    """Table of the commands that no test machine can run, counted by what they need."""
    lines = [
        [block.page.relative_to(REPOSITORY).as_posix(), f"`{command}`", block.needs]
        for block in found
        if block.needs
        for command in commands(block)
    ]
    counts = [f"{sum(line[2] == need for line in lines)} need {need}" for need in NEEDS]
    total = sum(len(commands(block)) for block in found)
    return page(
        "Commands that no test runs",
        f"The README and these pages show {total} commands in blocks of shell. The tests run "
        f"{total - len(lines)} of them, in the order of their page. "
        f"{len(lines)} need what a test machine lacks, and their blocks say so in their titles: "
        f"{', '.join(counts)}.",
        "Commands inside of sentences and tables are not counted. A test checks that the scripts, "
        "files, targets and options that they name exist.",
        markdown_table(["page", "command", "needs"], lines),
    )
