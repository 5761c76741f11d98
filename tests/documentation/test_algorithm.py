"""docs/explanation/algorithm.md: each name on the page exists, and no part of the paper is missing.

Lines, equations, sections, tables and figures are numbered as in arXiv 2004.08514.
"""

import importlib
import re
import shlex

import pytest
import yaml

from documentation import presets_page
from documentation.settings_pages import rows
from dst_cbc.settings.experiment import Experiment
from dst_cbc.settings.experiment_files import load_experiment, load_methods
from dst_cbc.settings.methods import MethodRow, MethodSwitches
from dst_cbc.settings.training import TrainSettings
from dst_cbc.settings.yaml_files import read_yaml
from workflow import REPOSITORY

PAGE = (REPOSITORY / "docs/explanation/algorithm.md").read_text(encoding="utf-8")
EXPERIMENTS = REPOSITORY / "workflow/experiments"
PRESETS = read_yaml(REPOSITORY / "workflow/presets.yaml")
METHODS = load_methods(REPOSITORY / "workflow/methods.yaml")
RULES = "".join(path.read_text() for path in sorted(REPOSITORY.glob("workflow/rules/*.smk")))
OUTPUTS = re.findall(r"^    output:\n(?: {8}.*\n)+|^TRAINED = (?:.*\n)+?}", RULES, re.MULTILINE)
PACKAGES = {path.parent.name for path in REPOSITORY.glob("scripts/dst_cbc/*/__init__.py")}

RELEASED_KEY = "key that gives the released behaviour"
FUNCTIONS, KEYS, FILES = ("function",), ("key", RELEASED_KEY), ("file", "file it makes")


def tables():
    """Every table of the page as a list of rows, each a dict of header to cell."""
    for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        lines = [[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()]
        header, _, *rows = lines
        yield [dict(zip(header, row, strict=True)) for row in rows]


TABLES = list(tables())


def table(*columns):
    """The rows of the only table whose header begins with these columns."""
    (rows,) = (rows for rows in TABLES if tuple(rows[0])[: len(columns)] == columns)
    return rows


def cells(*columns):
    """The cells below these headers, in all tables."""
    return [row[column] for rows in TABLES for row in rows for column in columns if column in row]


def quoted(text):
    """The texts in backticks."""
    return re.findall(r"`([^`]+)`", text)


def all_quoted(*columns):
    """The texts in backticks below these headers, each once."""
    return sorted({name for cell in cells(*columns) for name in quoted(cell)})


def resolve(name):
    """The module, class or function of a dotted name below dst_cbc."""
    found, rest = importlib.import_module("dst_cbc"), name.split(".")
    for part in rest:
        if not hasattr(found, part):
            importlib.import_module(f"{found.__name__}.{part}")
        found = getattr(found, part)
    return found


def known_keys():
    """Every key of an experiment file, as the reference page writes it."""
    parts = (("", Experiment), ("switches.", MethodSwitches), ("supervised.", TrainSettings))
    for prefix, settings in parts:
        schema = settings.model_json_schema()
        for name, *_ in rows(schema, schema.get("$defs", {})):
            yield prefix + name.strip("`")


KNOWN_KEYS = set(known_keys())


@pytest.mark.parametrize("name", all_quoted(*FUNCTIONS))
def test_a_function_exists(name):
    assert re.fullmatch(r"\w+(\.\w+)+", name)
    assert resolve(name) is not None


@pytest.mark.parametrize("name", all_quoted("rule"))
def test_a_rule_exists(name):
    assert re.search(rf"^(?:use rule \w+ as|rule) {name}(?: with)?:$", RULES, re.MULTILINE)


@pytest.mark.parametrize("entry", all_quoted(*KEYS))
def test_a_key_exists(entry):
    assert entry.partition(":")[0] in KNOWN_KEYS


@pytest.mark.parametrize("column", ["function", "rule", "key", RELEASED_KEY])
def test_no_cell_of_names_is_left_without_one(column):
    without = {cell for cell in cells(column) if not quoted(cell)}
    assert without <= ({"none"} if column in KEYS else set())


def test_every_dotted_name_in_the_text_is_a_function_or_a_key():
    names = {name for name in quoted(PAGE) if re.fullmatch(r"\w+(\.\w+)+", name)}
    ours = {name for name in names if name.split(".")[0] in {*PACKAGES, *Experiment.model_fields}}
    # Also keys with a value, such as `switches.rule: normalized`.
    ours |= set(re.findall(r"`(\w+(?:\.\w+)+): ", PAGE))
    assert len(ours) > 50
    for name in ours - KNOWN_KEYS:
        assert resolve(name) is not None


@pytest.mark.parametrize("path", [name for name in all_quoted(*FILES) if "/" in name])
def test_a_file_is_made_by_a_rule(path):
    outputs = "".join(OUTPUTS).replace("{{variant}}", "")
    # A folder of files is one output.
    pattern = path.replace("<split>_<seed>", "{{division}}").removesuffix("/<id>.png")
    folders = r"\{\{division}}/(<labeler>|supervised|<method>/round<r>)/"
    written = {re.sub(folders, f"{{{folder}}}/", pattern) for folder in ("MODEL", "ROUND")}
    assert any(f'{one}"' in outputs for one in written)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"[\w./-]+\.yaml", PAGE))))
def test_a_yaml_file_exists(name):
    assert (EXPERIMENTS / name).is_file() or (REPOSITORY / name).is_file()


def test_every_experiment_file_of_the_paper_is_named():
    files = {path.name for path in EXPERIMENTS.glob("*.yaml")}
    of_paper = {name for name in files if re.match("table|figure|voc|cityscapes", name)}
    assert of_paper == {name for cell in cells("experiment file") for name in quoted(cell)}


def test_every_line_of_algorithm_1_has_a_row():
    assert [row["line"] for row in table("line")] == [str(line) for line in range(1, 20)]


def test_every_equation_has_a_row():
    assert [row["equation"] for row in table("equation")] == [f"({n})" for n in range(1, 7)]


def test_every_section_that_states_a_fact_has_rows():
    sections = list(dict.fromkeys(row["section"] for row in table("section")))
    assert sections == ["3", "3.1", "3.2", "3.3", "4.1", "4.2", "4.3", "4.4", "A.1", "A.2"]


def test_every_table_and_figure_of_results_has_a_row():
    numbered = [f"Table {n}" for n in range(1, 7)] + [f"Figure {n}" for n in range(3, 6)]
    assert [row["paper"] for row in table("paper", "what it shows")] == numbered


@pytest.mark.parametrize("row", table("paper", "what it shows"), ids=lambda row: row["paper"])
def test_a_command_runs_the_file_of_its_row_which_writes_the_output(row):
    names = quoted(row["experiment file"])
    words = shlex.split(*quoted(row["command"]))
    file = words[words.index("--configfile") + 1]
    assert file in {f"workflow/experiments/{name}" for name in names}
    experiment = load_experiment([REPOSITORY / file], PRESETS)
    study = f"results/{experiment.name}/"
    for path in quoted(row["output file"]):
        assert path.startswith(study)
        if path.startswith(f"{study}report/"):
            assert path.split("/")[3] == experiment.report.name


def differing_keys(row):
    """Keys in which a method differs from dst-cbc, as an experiment file writes them."""
    for key in MethodRow.model_fields:
        if getattr(row, key) != getattr(METHODS["dst-cbc"], key):
            yield f"switches.{key}" if key in MethodSwitches.model_fields else f"train.{key}"


def test_the_methods_of_table_5_are_there_with_the_keys_of_their_rows():
    rows = table("paper", "method")
    assert len(rows) == 11
    baseline, *methods = ((*quoted(row["method"]), set(quoted(row["key"]))) for row in rows)
    assert baseline == ("supervised", set())
    for name, keys in methods:
        assert keys == set(differing_keys(METHODS[name]))


def presets():
    """Key, and its values by the presets `standard` and `released`."""
    _, _, *lines = presets_page.presets(PRESETS).splitlines()
    for line in lines:
        (key,), standard, _, released = map(quoted, line.split("|")[1:5])
        yield key, *(yaml.safe_load(value) for (value,) in (standard, released))


def test_every_key_that_the_released_preset_changes_stands_with_its_value():
    entries = {entry.partition(":")[0]: entry for entry in all_quoted(RELEASED_KEY)}
    values = {key: yaml.safe_load(entry)[key] for key, entry in entries.items() if ":" in entry}
    released = {key: new for key, _, new in presets()}
    changed = {key for key, old, new in presets() if old != new}
    assert changed <= set(entries)
    # The preset has a formula where the released code has a number for each split.
    assert changed - {"supervised.epochs"} <= set(values)
    assert values == {key: released[key] for key in values}
