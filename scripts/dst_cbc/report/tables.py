"""Tables of a study: mean and deviation over split seeds; gains over baseline and control."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from ..runtime import escape
from ..runtime.errors import DataError
from .model_files import CHECKPOINTS

CONTROL = "supervised-long"
"""The method that trains on labeled images only, for as many steps as DST-CBC: a fair baseline."""
CONTROLS = (CONTROL, "supervised-passes")
"""All methods that train on labeled images only; the second one for as many passes as DST-CBC."""

COLUMNS = [
    "split", "labeled", "method", "round", "checkpoint", "selected_on", "subset", "n", "seeds",
    "missing", "miou", "miou_std", "gain", "gain_std", "over_control", "over_control_std",
    "relative", "paper", "difference", "steps", "seconds", "edited",
]  # fmt: skip

Row = dict[str, Any]
_CHAIN = ("split", "selected_on", "method")
_MODEL = (*_CHAIN, "round")
_FIGURE = ("selected_on", "checkpoint", "subset")


def aggregate(
    rows: Sequence[Row], paper: Mapping[str, Mapping[str, float]] | None = None
) -> list[Row]:
    """Return one row per model, checkpoint and subset, aggregated over the seeds of the split.

    rows: of summary.csv, see `summary.read_summary`; with `seconds` if the cost is wanted.
    paper: {method: {split: mIoU in percent}}; `<split>_valtiny` for models selected on valtiny.

    miou (percent), gain and over_control (points) are means; `_std` is the standard deviation of
    the sample, None below two values. gain: over `supervised` of the same split and seed.
    over_control: of the last round, over the control of the same split and seed. relative: percent
    of the oracle's mIoU; the oracle is `supervised` where no image is unlabeled, selected in the
    same way or, as in Tables 3 and 4, on val. paper, difference: only in the row of the last
    round's best on val. steps, seconds: mean of the whole chain.
    """
    last = _last(rows)
    of_control = {
        _key(row, "split", "seed", *_FIGURE): row["miou"]
        for row in rows
        if row["method"] == CONTROL
    }
    oracle = {
        figure: fmean(values)
        for figure, group in _groups((row for row in rows if _is_oracle(row)), _FIGURE)
        if (values := _values(group, "miou"))
    }
    found = []
    for _, group in _groups(rows, (*_MODEL, "checkpoint", "subset")):
        row, done = group[0], [row for row in group if row["miou"] is not None]
        is_last = row["round"] == last[_key(row, *_CHAIN)]
        compared = is_last and row["method"] not in ("supervised", *CONTROLS)
        is_papers = is_last and (row["checkpoint"], row["subset"]) == ("best", "val")
        miou, miou_std = _spread(_values(done, "miou"))
        gain, gain_std = _spread(_values(done, "gain"))
        over, over_std = _spread(_over(done, of_control) if compared else [])
        printed = (paper or {}).get(row["method"], {}).get(paper_split(row)) if is_papers else None
        top = oracle.get(
            _key(row, *_FIGURE), oracle.get(_key({**row, "selected_on": "val"}, *_FIGURE))
        )
        found.append(
            {
                **{key: row[key] for key in (*_MODEL, "labeled", "checkpoint", "subset")},
                "n": len(done),
                "seeds": " ".join(str(row["seed"]) for row in done),
                "missing": " ".join(str(row["seed"]) for row in group if row["miou"] is None),
                "miou": miou,
                "miou_std": miou_std,
                "gain": gain,
                "gain_std": gain_std,
                "over_control": over,
                "over_control_std": over_std,
                "relative": None if miou is None or top is None else 100 * miou / top,
                "paper": printed,
                "difference": None if miou is None or printed is None else miou - printed,
                "steps": _mean(_values(done, "steps")),
                "seconds": _mean([s for row in done if (s := _chain_seconds(rows, row))]),
                "edited": "; ".join(sorted({row["edited"] for row in group if row["edited"]})),
            }
        )
    return found


def last_rounds(found: Sequence[Row]) -> list[Row]:
    """Keeps the last round of each chain. found: aggregated rows."""
    last = _last(found)
    return [row for row in found if row["round"] == last[_key(row, *_CHAIN)]]


def paper_split(row: Row) -> str:
    """The split of a row as `report.paper` names it."""
    return row["split"] + ("" if row["selected_on"] == "val" else f"_{row['selected_on']}")


def _last(rows: Iterable[Row]) -> dict[tuple, int]:
    """The last round of each chain."""
    return {chain: max(row["round"] for row in group) for chain, group in _groups(rows, _CHAIN)}


def _key(row: Row, *columns: str) -> tuple:
    return tuple(row[column] for column in columns)


def _groups(rows: Iterable[Row], columns: Sequence[str]) -> Iterable[tuple[tuple, list[Row]]]:
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(_key(row, *columns), []).append(row)
    return groups.items()


def _values(rows: Iterable[Row], column: str) -> list[float]:
    return [row[column] for row in rows if row[column] is not None]


def _is_oracle(row: Row) -> bool:
    return row["method"] == "supervised" and row["unlabeled"] == 0


def _over(rows: Iterable[Row], of_control: Mapping[tuple, float | None]) -> list[float]:
    pairs = ((row["miou"], of_control.get(_key(row, "split", "seed", *_FIGURE))) for row in rows)
    return [ours - control for ours, control in pairs if control is not None]


def _chain_seconds(rows: Sequence[Row], row: Row) -> float | None:
    """Seconds of all trainings up to a model; round 0 is left out for a control."""
    same = (*_FIGURE, "split", "seed")
    before = ("supervised",) if row["method"] not in CONTROLS else ()
    chain: list[Any] = [
        other.get("seconds")
        for other in rows
        if _key(other, *same) == _key(row, *same)
        and (
            other["method"] in before
            or (other["method"] == row["method"] and other["round"] <= row["round"])
        )
    ]
    return None if None in chain else sum(chain)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    return _mean(values), stdev(values) if len(values) > 1 else None


# --------------------------------------------------------------------------- Markdown and LaTeX


def markdown(title: str, found: Sequence[Row], note: str = "") -> str:
    """Aggregated rows as Markdown: a heading, a table and its caption per subset, and a note."""
    text = [f"# {escape.markdown(title)}"]
    for subset in dict.fromkeys(row["subset"] for row in found):
        header, lines = table(found, subset)
        text += [
            "",
            f"## `{subset}`",
            "",
            text_table(header, lines, "method"),
            "",
            caption(found, subset),
        ]
    return "\n".join([*text, *(["", note] if note else [])]) + "\n"


def text_table(header: Sequence[str], lines: Iterable[Sequence[str]], code: str = "") -> str:
    """A table in Markdown whose cells are texts. code: heading of a column of code spans."""
    marks = ["`" if name == code else "" for name in header]
    cells = (
        [f"{mark}{escape.markdown(cell)}{mark}" for mark, cell in zip(marks, line, strict=True)]
        for line in lines
    )
    return _rows([[*map(escape.markdown, header)], *cells])


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown whose cells are Markdown; `|` within a cell is escaped."""
    return _rows([cell.replace("|", "\\|") for cell in line] for line in (header, *lines))


def _rows(lines: Iterable[Sequence[str]]) -> str:
    header, *cells = lines
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *cells))


def latex(title: str, found: Sequence[Row]) -> str:
    """Aggregated rows as LaTeX: one `table` per subset, with the rules of the package booktabs."""
    text = ["% \\usepackage{booktabs}"]
    for subset in dict.fromkeys(row["subset"] for row in found):
        header, lines = table(found, subset)
        about = caption(found, subset).replace("`", "")
        text.append(latex_table(f"{title}. {about}", header, {"": lines}))
    return "\n".join(text) + "\n"


def latex_table(
    about: str,
    header: Sequence[str],
    blocks: Mapping[str, Iterable[Sequence[str]]],
    notes: Iterable[str] = (),
) -> str:
    """A `table` in LaTeX whose texts are escaped. blocks: {line above, or "": lines of a block}.

    about: the caption; notes: paragraphs below the table.
    """
    rows = []
    for above, lines in blocks.items():
        rows.append("\\midrule")
        if above:
            rows.append(f"\\multicolumn{{{len(header)}}}{{l}}{{{escape.latex(above)}}} \\\\")
        rows += [" & ".join(map(escape.latex, line)) + " \\\\" for line in lines]
    return "\n".join(
        [
            "\\begin{table}",
            f"  \\caption{{{escape.latex(about)}}}",
            f"  \\begin{{tabular}}{{{'l' * len(header)}}}",
            "    \\toprule",
            f"    {' & '.join(map(escape.latex, header))} \\\\",
            *(f"    {row}" for row in rows),
            "    \\bottomrule",
            "  \\end{tabular}",
            *(f"  \\par {escape.latex(note)}" for note in notes),
            "\\end{table}",
        ]
    )


def table(found: Sequence[Row], subset: str) -> tuple[list[str], list[list[str]]]:
    """Header and cells of a table: one line per model, its best and its last step side by side.

    Columns that are empty in all lines are left out.
    """
    lines = [_line(group) for _, group in _groups(_of(found, subset), _MODEL)]
    filled = [name for name in lines[0] if any(line[name] for line in lines)]
    return [_HEADINGS.get(name, name) for name in filled], [
        [line[name] for name in filled] for line in lines
    ]


def _of(found: Iterable[Row], subset: str) -> list[Row]:
    return [row for row in found if row["subset"] == subset]


_HEADINGS = {
    "best": "mIoU %, best", "best_gain": "gain", "best_over": "over control",
    "relative": "% of oracle", "last": "mIoU %, last step", "last_gain": "gain",
    "last_over": "over control", "edited": "edited by hand",
}  # fmt: skip


def _line(group: Sequence[Row]) -> dict[str, str]:
    """Cells of one model; group: its aggregated rows of one subset."""
    rows = {row["checkpoint"]: row for row in group}
    if not {*CHECKPOINTS} <= {*rows}:
        raise DataError(
            f"summary.csv: split {group[0]['split']}, {group[0]['method']}, round "
            f"{group[0]['round']}: found rows with checkpoint {', '.join(rows)}, expected best and "
            "last; delete the file and run the workflow again"
        )
    best, last = (rows[name] for name in CHECKPOINTS)
    is_baseline = best["method"] == "supervised"
    missing = f" (missing: {best['missing'].replace(' ', ', ')})" if best["missing"] else ""
    return {
        "split": best["split"],
        "labels": _text(best["labeled"], "d"),
        "selected on": "" if best["selected_on"] == "val" else best["selected_on"],
        "method": best["method"],
        "round": str(best["round"]),
        "steps": _text(best["steps"], ".0f"),
        "best": spread(best, "miou") or ("missing" if best["missing"] else ""),
        "best_gain": "" if is_baseline else spread(best, "gain", "+"),
        "best_over": spread(best, "over_control", "+"),
        "relative": _text(best["relative"], ".1f"),
        "paper": _text(best["paper"], ".2f"),
        "difference": _text(best["difference"], "+.2f"),
        "last": spread(last, "miou") or ("missing" if last["missing"] else ""),
        "last_gain": "" if is_baseline else spread(last, "gain", "+"),
        "last_over": spread(last, "over_control", "+"),
        "minutes": _text(best["seconds"] and best["seconds"] / 60, ".1f"),
        "seeds": best["seeds"].replace(" ", ", ") + missing,
        "edited": best["edited"],
    }


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def spread(row: Row, column: str, sign: str = "") -> str:
    """`mean ± standard deviation` of an aggregated column; the mean alone if there is none."""
    mean, deviation = row[column], row[f"{column}_std"]
    return _text(mean, f"{sign}.2f") + ("" if deviation is None else f" ± {deviation:.2f}")


def caption(found: Sequence[Row], subset: str) -> str:
    """Caption of a table: its subset, how the best was selected, and what the columns compare."""
    rows = _of(found, subset)
    known = {column for row in rows for column, value in row.items() if value is not None}
    sentences = [
        f"mIoU on `{subset}`, mean ± standard deviation over the split seeds.",
        f"Best: {describe_selection(row['selected_on'] for row in rows)}.",
        "Gain: points over `supervised` of the same split and seed.",
        f"Over control: points over `{CONTROL}` of the same split and seed."
        if "over_control" in known
        else "",
        "% of oracle: percent of the mIoU with all labels." if "relative" in known else "",
        "Steps and minutes: training of the whole chain of rounds."
        if "seconds" in known
        else "Steps: training of the whole chain of rounds.",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def describe_selection(selections: Iterable[str]) -> str:
    """Explain the figures called best. selections: what the models were selected on.

    Rules of the workflow have this text in `params`: another text would run them again.
    """
    found = dict.fromkeys(selections)
    chosen = " or ".join(one for one in found if one not in ("last", "folds"))
    words = [f"the best of the chain, selected on {chosen}"] if chosen else []
    words += ["the model that the folds chose"] if "folds" in found else []
    words += ["the last step of each round: nothing was selected"] if "last" in found else []
    return "; or ".join(words)


# --------------------------------------------------------------------------- studies side by side


def compare(
    studies: Mapping[str, Sequence[Row]],
    interval: Callable[[str, str, Sequence[tuple[Row, Row]]], str] = lambda first, other, pairs: "",
) -> tuple[list[str], list[list[str]]]:
    """Header and cells of a table of several studies. studies: {name: rows of summary.csv}.

    One line per split, selection, method, checkpoint and subset, of the last rounds only. Every
    study after the first has one more column: its difference from the first study, as the mean
    over the seeds that both have. interval: what follows the difference, of the names of both
    studies and a row of each for each seed.
    """
    columns = ("split", "selected_on", "method", "checkpoint", "subset")
    lasts = {name: _by(last_rounds(rows), columns) for name, rows in studies.items()}
    first, *others = lasts
    header = [*columns, first]
    for name in others:
        header += [name, "difference"]
    lines = []
    for key in dict.fromkeys(key for groups in lasts.values() for key in groups):
        ours = lasts[first].get(key, {})
        line = [*map(str, key), _mean_text(_values(ours.values(), "miou"))]
        for name in others:
            theirs = lasts[name].get(key, {})
            pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
            pairs = [pair for pair in pairs if len(_values(pair, "miou")) == 2]
            differences = _mean_text([other["miou"] - one["miou"] for one, other in pairs], "+")
            line += [_mean_text(_values(theirs.values(), "miou"))]
            line += [differences + interval(first, name, pairs)]
        lines.append(line)
    return header, lines


def _by(rows: Sequence[Row], columns: Sequence[str]) -> dict[tuple, dict[int, Row]]:
    """{group: {seed: row}}."""
    return {key: {row["seed"]: row for row in group} for key, group in _groups(rows, columns)}


def _mean_text(values: Sequence[float], sign: str = "") -> str:
    mean, deviation = _spread(values)
    return spread({"": mean, "_std": deviation}, "", sign)
