"""The paper's table beside a study's figures: a small case by hand, and all of Tables 3 and 4."""

import re
import subprocess
import sys

import pytest
from pydantic import ValidationError
from test_tables import both, row

from dst_cbc.report.paper_table import paper_latex, paper_markdown
from dst_cbc.report.summary import COLUMNS
from dst_cbc.report.tables import aggregate, last_rounds
from dst_cbc.runtime.tables import write_csv
from dst_cbc.settings.experiment import ReportSettings
from dst_cbc.settings.yaml_files import read_yaml
from workflow import REPOSITORY

HUNG, S4GAN = "AdvSemiSeg (Hung et al.)", "S4GAN + MLMT"

# As the paper prints them: mIoU, then relative performance, each with its mark.
TABLE_3 = """
supervised | 45.7 | 44.8 | 55.4 | 62.2 | 66.2 | 68.7 | 73.5
CowMix | 52.1 | - | - | - | - | 71.0 | 73.4
AdvSemiSeg (Hung et al.) | 38.8† | - | 57.2* | 64.7* | 69.5 | 72.1 | 74.9
S4GAN + MLMT | - | - | 63.3 | 67.2 | 71.4 | - | 75.6
dst-cbc | 61.6 | 59.2 | 65.5 | 69.3 | 70.7 | 71.8 | 73.5

supervised | 62.2 | 61.0 | 75.4 | 84.6 | 90.1 | 93.5 | 100.0
CowMix | 71.0 | - | - | - | - | 96.7 | 100.0
AdvSemiSeg (Hung et al.) | 51.8† | - | 76.4* | 86.4* | 92.8 | 96.3 | 100.0
S4GAN + MLMT | - | - | 83.7 | 88.9 | 94.4 | - | 100.0
dst-cbc | 83.8 | 80.5 | 89.1 | 94.3 | 96.2 | 97.7 | 100.0
"""
TABLE_4 = """
supervised | 45.5 | 45.4 | 56.7 | 61.1 | 66.9
CowMix | 49.0 | - | 60.5 | 64.1 | 69.0
AdvSemiSeg (Hung et al.) | - | - | 58.8 | 62.3 | 67.7
S4GAN + MLMT | - | - | 59.3* | 61.9* | 65.8*
dst-cbc | 48.7 | 48.2 | 60.5 | 64.4 | 66.9

supervised | 68.0 | 67.9 | 84.8 | 91.3 | 100.0
CowMix | 71.0 | - | 87.7 | 92.9 | 100.0
AdvSemiSeg (Hung et al.) | - | - | 86.9 | 92.0 | 100.0
S4GAN + MLMT | - | - | 90.1* | 94.1* | 100.0*
dst-cbc | 72.8 | 72.0 | 90.4 | 96.3 | 100.0
"""
LABELS = {
    "voc": {"106": 100, "50": 211, "20": 530, "8": 1322, "4": 2645, "1": 10582},
    "cityscapes": {"30": 100, "8": 371, "4": 743, "1": 2975},
}
REPORT = {
    "title": "Mine",
    "paper": {
        "supervised": {"12": 40.0, "12_valtiny": 38.0, "all": 80.0},
        "Other_1": {"12": 30.0, "3": 77.0, "all": 60},
        "dst-cbc": {"12": 50.0, "all": 80.0},
    },
    "paper_table": {
        "methods": ["supervised", "Other_1", "dst-cbc"],
        "oracle": "all",
        "notes": [
            {"mark": "*", "text": "50% by others", "cells": {"Other_1": ["12", "all"]}},
            {"mark": "†", "text": "of a split that is not shown", "cells": {"Other_1": ["3"]}},
        ],
    },
}
MARKDOWN = r"""## Beside the paper

| method | figures | 12 | 12, valtiny | all (all labels) |
| --- | --- | --- | --- | --- |
| supervised | paper | 40.0 | 38.0 | 80.0 |
| supervised | this study | 40.00 ± 5.66 | - | 80.00 |
| Other_1 | paper | 30.0\* | - | 60.0\* |
| dst-cbc | paper | 50.0 | - | 80.0 |
| dst-cbc | this study | 62.00 ± 2.83 | 52.00 | - |

Relative performance, %:

| method | figures | 12 | 12, valtiny | all (all labels) |
| --- | --- | --- | --- | --- |
| supervised | paper | 50.0 | 47.5 | 100.0 |
| supervised | this study | 50.0 | - | 100.0 |
| Other_1 | paper | 50.0\* | - | 100.0\* |
| dst-cbc | paper | 62.5 | - | 100.0 |
| dst-cbc | this study | 77.5 | 65.0 | - |"""
LATEX = r"""  \begin{tabular}{lllll}
    \toprule
    method & figures & 12 & 12, valtiny & all (all labels) \\
    \midrule
    supervised & paper & 40.0 & 38.0 & 80.0 \\
    supervised & this study & 40.00 $\pm$ 5.66 & - & 80.00 \\
    Other\_1 & paper & 30.0{*} & - & 60.0{*} \\
    dst-cbc & paper & 50.0 & - & 80.0 \\
    dst-cbc & this study & 62.00 $\pm$ 2.83 & 52.00 & - \\
    \midrule
    \multicolumn{5}{l}{Relative performance, \%} \\
    supervised & paper & 50.0 & 47.5 & 100.0 \\
    supervised & this study & 50.0 & - & 100.0 \\
    Other\_1 & paper & 50.0{*} & - & 100.0{*} \\
    dst-cbc & paper & 62.5 & - & 100.0 \\
    dst-cbc & this study & 77.5 & 65.0 & - \\
    \bottomrule
  \end{tabular}
  \par {*} 50\% by others
\end{table}"""


def rows_of_a_study():
    """Two seeds of split 12, one of them selected on valtiny too, and the oracle. 3 is not run."""
    return [
        *both("supervised", 80.0, split="all", labeled=100, unlabeled=0),
        *both("supervised", 36.0, 0), *both("supervised", 44.0, 1),
        *both("dst-cbc", 1.0, 0, round=1), *both("dst-cbc", 60.0, 0, round=2),
        *both("dst-cbc", 64.0, 1, round=2), *both("dst-cbc", 1.0, 0, subset="test"),
        *both("dst-cbc", 52.0, 0, round=2, selected_on="valtiny"),
    ]  # fmt: skip


def last(rows):
    return last_rounds(aggregate(rows))


def report(**changed):
    return ReportSettings.model_validate({**REPORT, **changed})


def blocks(text):
    """The lines of each Markdown table, without heading and rule, as lists of cells."""
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    return [[cells(line) for line in table.splitlines()[2:]] for table in tables]


def cells(line):
    return [cell.strip() for cell in line.strip("| ").split(" | ")]


def test_the_papers_table_stands_beside_the_study_s_figures_absolute_and_relative():
    tables, _, about = paper_markdown(last(rows_of_a_study()), report()).partition("\n\nmIoU")
    assert tables == MARKDOWN
    assert about == (
        " in percent on val; in this study, of the best model of the chain. Relative performance: "
        "percent of the mIoU with all labels; in the paper of the same method, in this study of "
        "supervised.\n\n"
        r"\* 50% by others"
    )


def test_in_latex_the_relative_figures_are_the_second_block_and_the_notes_stand_below():
    begin, caption, rest = paper_latex(last(rows_of_a_study()), report()).split("\n", 2)
    assert begin == r"\begin{table}"
    assert caption.startswith(
        r"  \caption{Mine. mIoU in percent on val; in this study, of the best"
    )
    assert rest == f"{LATEX}\n"


def test_a_study_without_an_oracle_or_with_missing_runs_still_has_the_papers_figures():
    rows = [*both("dst-cbc", None, 0, round=2, steps=None), *both("supervised", 36.0, 0)]
    absolute, relative = blocks(paper_markdown(last(rows), report()))
    assert absolute[1:2] + absolute[3:] == [
        ["supervised", "this study", "36.00", "-"],
        ["dst-cbc", "paper", "50.0", "80.0"],
        ["dst-cbc", "this study", "-", "-"],
    ]
    assert relative[1:2] + relative[3:] == [
        ["supervised", "this study", "-", "-"],
        ["dst-cbc", "paper", "62.5", "100.0"],
        ["dst-cbc", "this study", "-", "-"],
    ]


def test_a_method_whose_figure_with_all_labels_is_missing_or_0_has_no_relative_figure():
    for figures in ({"12": 30.0}, {"12": 30.0, "all": 0.0}):
        settings = {**REPORT["paper_table"], "notes": []}
        given = report(paper={**REPORT["paper"], "Other_1": figures}, paper_table=settings)
        absolute, relative = blocks(paper_markdown(last(rows_of_a_study()), given))
        assert absolute[2][2] == "30.0" and relative[2][2:] == ["-", "-", "-"]


def test_names_and_notes_of_the_settings_are_only_text():
    name, text = "[x](y)|`b`\n_c_", "<i>\\input{z}"
    table = {
        "methods": [name], "oracle": "all",
        "notes": [{"mark": "[‡", "text": text, "cells": {name: ["all"]}}],
    }  # fmt: skip
    given = report(title="$&", paper={name: {"all": 1.0}}, paper_table=table)
    shown = paper_markdown(last(rows_of_a_study()), given)
    assert "| \\[x\\](y)\\|'b' \\_c\\_ | paper | 1.0\\[‡ |" in shown
    assert shown.endswith("\n\n\\[‡ \\<i\\>\\\\input{z}")
    written = paper_latex(last(rows_of_a_study()), given)
    assert r"\caption{\$\&. mIoU" in written
    # \\ before a [ would read it as a length.
    assert r"    {[}x{]}(y)|`b` \_c\_ & paper & 1.0{[}\textdaggerdbl{} \\" in written
    assert r"\par {[}\textdaggerdbl{} <i>\textbackslash{}input\{z\}" in written


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"methods": ["supervised", "st"]}, "paper_table.methods: found 'st', expected a method"),
        (
            {"notes": [{"mark": "*", "text": "", "cells": {"dst-cbc": ["12", "3"]}}]},
            "paper_table.notes: found 'dst-cbc' on split '3', which has no figure in report.paper",
        ),
        (
            {"notes": [{"mark": "*", "text": "", "cells": {"st": ["12"]}}]},
            "paper_table.notes: found 'st' on split '12', which has no figure in report.paper",
        ),
    ],
)
def test_a_row_or_a_note_without_figures_is_refused(changed, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        report(paper_table={**REPORT["paper_table"], **changed})


def test_without_the_key_nothing_is_written_and_the_settings_are_those_of_before():
    plain = report(paper_table=None)
    found = last(rows_of_a_study())
    assert (paper_markdown(found, plain), paper_latex(found, plain)) == ("", "")
    assert "paper_table" not in plain.canonical()


# --------------------------------------------------------------------------- Tables 3 and 4


@pytest.mark.parametrize("file, printed", [("voc", TABLE_3), ("cityscapes", TABLE_4)])
def test_every_figure_of_tables_3_and_4_is_as_printed_with_its_mark(file, printed):
    content = read_yaml(REPOSITORY / f"workflow/experiments/{file}.yaml")["report"]
    # As the stage gets its settings: JSON with sorted keys, which must not change the order.
    settings = ReportSettings.model_validate_json(
        ReportSettings.model_validate(content).canonical()
    )
    smallest, *others = LABELS[file]
    study = [(smallest, "val"), *((split, "val") for split in others), (smallest, "valtiny")]
    rows = [
        row("supervised", None, split=split, labeled=LABELS[file][split], selected_on=selected)
        for split, selected in study
    ]
    text = paper_markdown(last(rows), settings).replace("\\*", "*")
    found = [
        [[method, *figures] for method, whose, *figures in block if whose == "paper"]
        for block in blocks(text)
    ]
    assert found == [
        list(map(cells, block.splitlines())) for block in printed.strip().split("\n\n")
    ]


@pytest.mark.parametrize(
    "file, notes",
    [
        (
            "voc",
            ["* reported by Mittal et al. (S4GAN + MLMT)", "† reported by French et al. (CowMix)"],
        ),
        ("cityscapes", ["* the same baseline model, but without pre-training on COCO"]),
    ],
)
def test_the_footnotes_stand_below_the_table(file, notes):
    content = read_yaml(REPOSITORY / f"workflow/experiments/{file}.yaml")["report"]
    rows = [row("supervised", None, split=split, labeled=n) for split, n in LABELS[file].items()]
    text = paper_markdown(last(rows), ReportSettings.model_validate(content)).replace("\\*", "*")
    assert text.partition(" of supervised.\n\n")[2].split("\n\n") == notes


def test_the_stage_writes_it_after_the_table_of_the_study(tmp_path):
    write_csv(tmp_path / "summary.csv", COLUMNS, rows_of_a_study())
    for name, settings in (("with", report()), ("without", report(paper_table=None))):
        command = [REPOSITORY / "scripts/tables.py", tmp_path, "--out", tmp_path / name]
        arguments = [sys.executable, *command, "--settings", settings.canonical()]
        subprocess.run(arguments, check=True, capture_output=True)
    texts = {
        file.relative_to(tmp_path).as_posix(): file.read_text() for file in tmp_path.glob("*/*")
    }
    found = last(rows_of_a_study())
    assert texts["with/table.csv"] == texts["without/table.csv"]
    assert texts["with/table.md"] == (
        f"{texts['without/table.md']}\n{paper_markdown(found, report())}\n"
    )
    assert texts["with/table.tex"] == texts["without/table.tex"] + paper_latex(found, report())
