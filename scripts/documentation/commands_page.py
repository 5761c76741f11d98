"""The reference page of command lines: every script with its options."""

import re
from argparse import SUPPRESS, ArgumentParser, _HelpAction
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from unittest.mock import patch

from dst_cbc.report.tables import markdown_table

from .pages import REPOSITORY, page, without_markup

SCRIPTS = REPOSITORY / "scripts"
CALLED_BY_PEOPLE = {"build_trainaug", "export", "tables", "verify"}
"""Stages that guides tell people to call by themselves."""
DEVELOPERS = {"document", "document_pictures", "environment", "record", "require_gain"}


class _Parsed(Exception):
    """Raised in place of parsing, once a command has built its parser."""


def commands_page() -> str:
    """Every script: first the commands for people, then the stages that rules call."""
    stages = set(re.findall(r'stage\("(\w+)\.py"', _rules()))
    scripts = {path.stem: path for path in sorted(SCRIPTS.glob("*.py"))}
    for_people = [n for n in scripts if n not in stages | DEVELOPERS or n in CALLED_BY_PEOPLE]
    return page(
        "Command lines",
        "Each command is `python scripts/NAME.py`, and `--help` prints the same text. A command "
        "exits with 0 when all went well, with 1 after an error that it explains, with 2 for "
        "wrong options, and with 143 when a signal stopped it and it saved its work.",
        "## Commands for people",
        *(_section(scripts[name]) for name in for_people),
        "## Stages",
        "The rules call these commands, each with its settings as JSON. "
        "`snakemake --printshellcmds` prints the whole command of each job; you may paste it into "
        "a shell and run the stage by hand.",
        *(_section(scripts[name]) for name in sorted(stages - CALLED_BY_PEOPLE)),
        "## Commands for developers of this workflow",
        *(_section(scripts[name]) for name in sorted(DEVELOPERS)),
    )


def _rules() -> str:
    return "\n".join(path.read_text() for path in (REPOSITORY / "workflow/rules").glob("*.smk"))


def _section(path: Path) -> str:
    parser = parser_of(path)
    lines = list(_options(parser))
    table = markdown_table(["option", "meaning"], lines)
    return f"### `{path.name}`\n\n{without_markup(parser.description or '').strip()}\n\n{table}"


def parser_of(path: Path) -> ArgumentParser:
    """The argument parser that a script builds when it runs."""
    found: list[ArgumentParser] = []

    def parse(parser: ArgumentParser, *_):
        found.append(parser)
        raise _Parsed

    spec = spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    run = getattr(script, "run", None) or script.main
    with patch.object(ArgumentParser, "parse_args", parse), suppress(_Parsed):
        run()
    return found[0]


def _options(parser: ArgumentParser) -> Iterator[list[str]]:
    formatter = parser._get_formatter()
    for action in parser._actions:
        if isinstance(action, _HelpAction) or action.help == SUPPRESS:
            continue
        name = max(action.option_strings, key=len, default="")
        value = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
        if action.choices:
            value = f"{{{','.join(map(str, action.choices))}}}"
        value = " ".join(value) if isinstance(value, tuple) else value
        shown = f"`{' '.join(filter(None, [name, value]))}`"
        required = " (required)" if action.required else ""
        yield [shown + required, without_markup(formatter._expand_help(action))]
