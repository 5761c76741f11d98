"""Draws a table of gains: each method's gain over each baseline, with its interval."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .figures import COLOURS, MARKERS, STYLE
from .gain import BASELINES

Row = Mapping[str, Any]

HIGH = 0.22
"""Height of the line of a method, in inches."""


@style.context(STYLE)
def gain_figure(rows: Sequence[Row]) -> Figure:
    """One panel for each baseline; one band for each data set, scenario and number of labels.

    rows: of gain.csv. A filled marker is the best model, an open one the last step; a marker
    without a line has no interval.
    """
    shown = [row for row in rows if row["method"] not in BASELINES.values()]
    columns = [name for name in BASELINES if any(row[name] is not None for row in shown)]
    shown = [row for row in shown if any(row[name] is not None for name in columns)]
    figure = Figure((3.2 * max(1, len(columns)) + 2.4, 1.3 + 2 * HIGH * max(4, len(shown) / 2)))
    panels = figure.subplots(1, max(1, len(columns)), sharey=True, squeeze=False)[0]
    methods = [*dict.fromkeys(row["method"] for row in shown)]
    bands = [*dict.fromkeys(_band(row) for row in shown)]
    for axes, column in zip(panels, columns, strict=False):
        axes.axvline(0, color="black", linewidth=0.8)
        for row in shown:
            _point(axes, row, column, bands.index(_band(row)), methods)
        axes.set(xlabel=f"points over {BASELINES[column]}")
        axes.grid(axis="y", visible=False)
    if not columns:
        panels[0].text(0.5, 0.5, "nothing to show", ha="center", transform=panels[0].transAxes)
    panels[0].set_yticks(range(len(bands)), bands)
    panels[0].set_ylim(max(1, len(bands)) - 0.5, -0.5)
    dots: dict[str, Any] = {"linestyle": "none"}
    handles = [Line2D([], [], **dots, **_look(methods, one), label=one) for one in methods]
    last: dict[str, Any] = {
        "color": "black",
        "marker": "o",
        "markerfacecolor": "white",
        "label": "last step",
    }
    handles.append(Line2D([], [], **dots, **last))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    note = "mIoU on test images, difference in points; line: 95 % interval over seeds and images"
    figure.supxlabel(note, x=0.01, ha="left", fontsize=7.5)
    return figure


def _point(axes: Any, row: Row, column: str, band: int, methods: Sequence[str]) -> None:
    if row[column] is None:
        return
    is_last = row["checkpoint"] == "last"
    step = 0.8 / (2 * len(methods))
    place = band - 0.4 + step * (2 * methods.index(row["method"]) + is_last + 0.5)
    look = _look(methods, row["method"])
    if row[f"{column}_low"] is not None:
        ends = (row[f"{column}_low"], row[f"{column}_high"])
        axes.hlines(place, *ends, color=look["color"], linewidth=1, alpha=0.6 if is_last else 1)
    white = {"markerfacecolor": "white"} if is_last else {}
    axes.plot(row[column], place, **look, linestyle="none", **white)


def _look(methods: Sequence[str], method: str) -> dict[str, Any]:
    number = methods.index(method)
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def _band(row: Row) -> str:
    return f"{row['dataset']}, {row['labels']} labels\n{row['scenario']}"
