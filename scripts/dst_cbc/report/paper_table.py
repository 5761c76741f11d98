"""A table of the paper beside this study's figures: mIoU, and mIoU relative to all labels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..runtime import escape
from ..settings.experiment import PaperTable, ReportSettings
from .tables import Row, latex_table, paper_split, spread, text_table

_RELATIVE = "Relative performance, %"
_CAPTION = (
    "mIoU in percent on val; in this study, of the best model of the chain. Relative performance: "
    "percent of the mIoU with all labels; in the paper of the same method, in this study of "
    "supervised."
)
_ABSENT = "-"


class _Blocks(NamedTuple):
    header: list[str]
    absolute: list[list[str]]
    relative: list[list[str]]
    notes: list[str]


def paper_markdown(found: Sequence[Row], report: ReportSettings) -> str:
    """The paper's table as a section of Markdown; "" without `report.paper_table`.

    found: aggregated rows of the last rounds, see `tables.last_rounds`.
    """
    if report.paper_table is None:
        return ""
    blocks = _blocks(found, report.paper, report.paper_table)
    parts = [
        "## Beside the paper",
        text_table(blocks.header, blocks.absolute),
        f"{_RELATIVE}:",
        text_table(blocks.header, blocks.relative),
        _CAPTION,
        *map(escape.markdown, blocks.notes),
    ]
    return "\n\n".join(parts)


def paper_latex(found: Sequence[Row], report: ReportSettings) -> str:
    """The same as a `table` of LaTeX, with the relative figures as its second block."""
    if report.paper_table is None:
        return ""
    header, absolute, relative, notes = _blocks(found, report.paper, report.paper_table)
    about = f"{report.title}. {_CAPTION}" if report.title else _CAPTION
    return latex_table(about, header, {"": absolute, _RELATIVE: relative}, notes) + "\n"


def _blocks(
    found: Sequence[Row], paper: Mapping[str, Mapping[str, float]], table: PaperTable
) -> _Blocks:
    rows = [row for row in found if (row["checkpoint"], row["subset"]) == ("best", "val")]
    splits = _columns(rows, paper, table)
    ours = {(row["method"], paper_split(row)): row for row in rows}
    absolute, relative = [], []
    for method in table.methods:
        theirs = [_papers(paper[method], split, method, table) for split in splits]
        absolute.append([method, "paper", *(figure for figure, _ in theirs)])
        relative.append([method, "paper", *(share for _, share in theirs)])
        if any(row["method"] == method for row in rows):
            own = [_ours(ours.get((method, split))) for split in splits]
            absolute.append([method, "this study", *(figure for figure, _ in own)])
            relative.append([method, "this study", *(share for _, share in own)])
    headings = [split.replace("_", ", ") for split in splits[:-1]]
    notes = [
        f"{note.mark} {note.text}"
        for note in table.notes
        if any({*cells} & {*splits} for cells in note.cells.values())
    ]
    header = ["method", "figures", *headings, f"{table.oracle} (all labels)"]
    return _Blocks(header, absolute, relative, notes)


def _columns(
    rows: Sequence[Row], paper: Mapping[str, Mapping[str, float]], table: PaperTable
) -> list[str]:
    """The study's splits that the table has, by their number of labels; the oracle's last."""
    printed = {split for method in table.methods for split in paper[method]} - {table.oracle}
    ordered = sorted(rows, key=lambda row: (row["labeled"] is None, row["labeled"]))
    return [
        *dict.fromkeys(s for row in ordered if (s := paper_split(row)) in printed),
        table.oracle,
    ]


def _papers(
    figures: Mapping[str, float], split: str, method: str, table: PaperTable
) -> tuple[str, str]:
    figure, top = figures.get(split), figures.get(table.oracle)
    marks = "".join(note.mark for note in table.notes if split in note.cells.get(method, ()))
    return (
        _ABSENT if figure is None else f"{figure}{marks}",
        _ABSENT if figure is None or not top else f"{100 * figure / top:.1f}{marks}",
    )


def _ours(row: Row | None) -> tuple[str, str]:
    if row is None or row["miou"] is None:
        return _ABSENT, _ABSENT
    share = row["relative"]
    return spread(row, "miou"), _ABSENT if share is None else f"{share:.1f}"
