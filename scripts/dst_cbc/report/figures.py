"""Draws the figures of a study, like those of the paper; `figure_data` computes the numbers.

Every function in FIGURES takes the folder of a study, the rows of its summary.csv on one subset,
and the name of that subset, whose mIoU is shown. It returns a matplotlib Figure, and raises
DataError with the name of a damaged file. A method has the same colour and marker in all figures.
The colours are Okabe and Ito's, which are distinct with any colour vision; markers and line
styles are distinct in black and white.
"""

import io
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..runtime.errors import first_of
from ..runtime.files import write_bytes
from . import figure_data, losing
from .figure_data import SUPERVISED, Points, SummaryRow
from .tables import describe_selection

# Starts from matplotlib's own defaults, so that no matplotlibrc of a user or folder has an effect.
STYLE = [
    "default",
    {
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.w_pad": 0.08,
        "figure.constrained_layout.h_pad": 0.06,
        "figure.dpi": 150,
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.5,
        "lines.markersize": 5,
        "legend.frameon": False,
        "text.parse_math": False,
        "svg.fonttype": "path",
        "svg.hashsalt": "dst-cbc",
    },
]
# Without their yellow, which is too faint on white, and their black, which is the baseline's.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F"]
MARKERS = "os^DvPX<>ph*"
# Methods of one round, drawn as horizontal lines to compare with.
REFERENCES = {"st": "-.", "supervised-long": ":", "supervised-passes": (0, (1, 4))}
LAST_STEP = {"linestyle": "--", "alpha": 0.6, "markerfacecolor": "white", "linewidth": 1.0}
# Known by its size, also without its colour.
RING = {
    "linestyle": "none", "marker": "o", "markersize": 12, "markerfacecolor": "none",
    "markeredgecolor": "#c00000", "markeredgewidth": 1.5, "clip_on": False,
}  # fmt: skip
LOSES = "rounds that lose mIoU on val, a class of their labels, or agreement"
NOTHING = "nothing to show"

Models = Sequence[SummaryRow]


@style.context(STYLE)
def rounds(study: Path, models: Models, subset: str) -> Figure:
    """mIoU after each round; round 0 is the baseline (the paper's Figures 3 and 4).

    A ring marks the last step of a round that loses, on any seed; the footnote names these rounds.
    """
    shown = [mine for mine in _splits(models) if _chains(mine)]
    figure, panels = _panels(len(shown))
    found = losing.losses(study, [str(model.path) for model in models])
    lost, ringed = {Path(loss.path) for loss in found}, []
    for axes, mine in zip(panels, shown, strict=True):
        for method in _chains(mine):
            look = _look(models, method)
            last = figure_data.scores(mine, method, "last")
            _line(axes, last, {**look, **LAST_STEP}, "_", models)
            _line(axes, figure_data.scores(mine, method), look, method, models)
            losers = {m.path: m.round for m in mine if m.method == method and m.path in lost}
            _ring(axes, last, losers.values())
            ringed += map(str, losers)
        for method, dashes in REFERENCES.items():
            _reference(axes, figure_data.final_scores(mine, {0: method}), dashes, method, models)
        axes.set(title=mine[0].split, xlabel="round", ylabel=f"mIoU on {subset}, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [
        Line2D([], [], color="black", marker="o", **LAST_STEP, label="last step of the round")
    ]
    note = f"mIoU on {subset}; {_best(models)}"
    if ringed:
        handles.append(Line2D([], [], **RING, label="round that loses"))
        note += f"; {LOSES}: {first_of(ringed, 6)}"
    return _finish(figure, models, note, handles)


@style.context(STYLE)
def pseudo_labels(study: Path, models: Models, subset: str) -> Figure:
    """mIoU of the pseudo labels over the labeled pixels (the paper's Figure 5), and their coverage.

    Coverage is the share of the pixels that have a pseudo label. If no unlabeled image has a mask,
    only the coverage is shown.
    """
    kinds = {
        "miou": ("mIoU of pseudo labels", "over the labeled pixels of the images that have a mask"),
        "coverage": ("pixels labeled", "share of all pixels of the unlabeled images"),
    }
    return _by_round(study, models, subset, figure_data.label_quality, kinds, ["st"])


@style.context(STYLE)
def agreement(study: Path, models: Models, subset: str) -> Figure:
    """Confidence of the models, and agreement of each round with the one before; needs no masks."""
    kinds = {
        "confidence": ("mean confidence", "over all pixels of the unlabeled images"),
        "agreement": (
            "agreement with the round before",
            "share with the same class, of the pixels labeled in both rounds",
        ),
        "changed": (
            "pixels changed",
            "share of all pixels whose predicted class differs from the round before",
        ),
    }
    return _by_round(study, models, subset, figure_data.agreement, kinds)


@style.context(STYLE)
def classes(study: Path, models: Models, subset: str) -> Figure:
    """IoU of every class before and after self-training."""
    shown = [
        (mine[0].split, method, found)
        for mine in _splits(models)
        for method in _chains(mine)
        if (found := figure_data.class_iou(study, mine, method)).pairs
    ]
    names = list(dict.fromkeys(name for *_, found in shown for name in found.pairs))
    figure, panels = _panels(len(shown), 3.1, 0.9 + 0.21 * len(names), 4, sharey=True, sharex=True)
    for axes, (split, method, found) in zip(panels, shown, strict=True):
        places = [names.index(name) for name in found.pairs]
        before, after = zip(*found.pairs.values(), strict=True)
        look = {**_look(models, method), "linestyle": "none"}
        base = {**_look(models, SUPERVISED), "linestyle": "none", "markerfacecolor": "white"}
        dashes: Any = ["-" if low <= high else ":" for low, high in found.pairs.values()]
        axes.hlines(places, before, after, look["color"], dashes)
        axes.plot(before, places, **base, label=SUPERVISED)
        axes.plot(after, places, **look, label=f"{method}, last round")
        title = f"{split}\n{_with_seeds(method, found.seeds, models)}"
        axes.set(title=title, xlabel=f"IoU on {subset}, %")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
    note = f"IoU on {subset}; {_best(models)}; dotted: classes whose IoU has fallen"
    return _finish(figure, models, note, spread=False)


@style.context(STYLE)
def kept(study: Path, models: Models, subset: str) -> Figure:
    """Precision of each class's pseudo labels against the share of its pixels that is kept."""
    mine = next((mine for mine in _splits(models) if _chains(mine)), [])
    found = {method: figure_data.kept_and_right(study, mine, method) for method in _chains(mine)}
    names = list(dict.fromkeys(name for of in found.values() for name in of if of[name][0]))
    figure, panels = _panels(len(names), 2, 1.8, columns=5, sharex=True, sharey=True)
    for axes, name in zip(panels, names, strict=True):
        for method, of_class in found.items():
            x, y = map(figure_data.series, of_class.get(name, ({}, {})))
            look = _look(models, method)
            axes.plot(x.mean, y.mean, **look, markersize=3.5, label=method)
            axes.plot(x.mean[-1:], y.mean[-1:], **look, markersize=7, label="_")
        axes.set(title=name, xlabel="kept, %")
        if (place := axes.get_subplotspec()) and place.is_first_col():
            axes.set_ylabel("right, %")
    note = (
        "kept: pixels labeled as the class, as a share of those predicted as it; right: share of "
        "the kept pixels that is labeled correctly; one point per round, the last one large; if "
        "some seeds lack the class, over the seeds that have it in the most rounds; labels made "
        f"by the {_best(models)}"
    )
    title, nothing = (mine[0].split, "no masks to compare with") if mine else (None, NOTHING)
    return _finish(figure, models, note, title=title, nothing=nothing, spread=False)


@style.context(STYLE)
def sweep(study: Path, models: Models, subset: str) -> Figure:
    """mIoU of a method's last round for each value of a key (the paper's Tables 1 and 2)."""
    shown = [
        (mine, *place, lines)
        for mine in _splits(models)
        for place, lines in figure_data.sweeps(mine).items()
    ]
    figure, panels = _panels(len(shown))
    looks: dict[str, dict[str, Any]] = {}
    for axes, (mine, method, key, lines) in zip(panels, shown, strict=True):
        values = list(dict.fromkeys(value for line in lines.values() for value in line))
        tried = {name for line in lines.values() for name in line.values()}
        for held, line in lines.items():
            names = {values.index(value): name for value, name in line.items()}
            label = f"{method}{' with ' * bool(held)}{held}"
            look = looks.setdefault(label, _numbered(len(looks)))
            last = figure_data.final_scores(mine, names, "last")
            _line(axes, last, {**look, **LAST_STEP}, "_", models)
            _line(axes, figure_data.final_scores(mine, names), look, label, models)
        seeds = figure_data.seeds_of(m for m in mine if m.method in tried)
        base = [m for m in mine if m.seed in seeds]
        _reference(axes, figure_data.final_scores(base, {0: SUPERVISED}), ":", SUPERVISED, models)
        axes.set(title=f"{mine[0].split}\n{method}", xlabel=key, ylabel=f"mIoU on {subset}, %")
        slanted = {"rotation": 30, "ha": "right"} if len("".join(values)) > 40 else {}
        axes.set_xticks(range(len(values)), values, **slanted)
    last = Line2D([], [], color="black", marker="o", **LAST_STEP, label="last step")
    return _finish(figure, models, f"mIoU on {subset}, last round; {_best(models)}", [last])


@style.context(STYLE)
def cost(study: Path, models: Models, subset: str) -> Figure:
    """Time of each round: training, and the prediction of the unlabeled images after it."""
    found = {mine[0].split: figure_data.costs(study, mine) for mine in _splits(models)}
    found = {split: costs for split, costs in found.items() if costs}
    every = [one for costs in found.values() for one in costs.values()]
    most = max((one.training + one.prediction for one in every), default=0)
    name, unit = next((u for u in (("hours", 3600), ("minutes", 60)) if most > 2 * u[1]), ("s", 1))
    longest = max(map(len, found.values()), default=0)
    letters = max((len(method) for costs in found.values() for method, _ in costs), default=0)
    figure, panels = _panels(len(found), 3.4 + 0.07 * letters, 0.8 + 0.17 * longest)
    for axes, (split, costs) in zip(panels, found.items(), strict=True):
        places = range(len(costs))
        training = [one.training / unit for one in costs.values()]
        prediction = [one.prediction / unit for one in costs.values()]
        hatched = {"color": COLOURS[4], "hatch": "////", "edgecolor": "white", "linewidth": 0}
        axes.barh(places, training, color=COLOURS[0], label="training")
        axes.barh(places, prediction, left=training, **hatched, label="prediction")
        axes.set_yticks(places, [f"{method}, round {round}" for method, round in costs])
        axes.set_ylim(longest - 0.5, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set(title=split, xlabel=name)
    return _finish(figure, models, "time of each round", spread=False)


FIGURES = {
    figure.__name__: figure
    for figure in (rounds, pseudo_labels, agreement, classes, kept, sweep, cost)
}


def write(figure: Figure, path: Path) -> None:
    """Write `path`.svg and `path`.png; equal figures give equal bytes."""
    for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
        buffer = io.BytesIO()
        with style.context(STYLE):
            figure.savefig(buffer, format=suffix[1:], metadata=metadata)
        write_bytes(Path(f"{path}{suffix}"), buffer.getvalue())


def _by_round(
    study: Path,
    models: Models,
    subset: str,
    numbers: Callable[[Path, Sequence[SummaryRow], str], Mapping[str, Points]],
    kinds: Mapping[str, tuple[str, str]],
    references: Sequence[str] = (),
) -> Figure:
    """Draw a row of panels per split, with one panel for each kind that any method has.

    numbers: returns {kind: points} of a method; kinds: {kind: (axis label, explanation in the
    footnote)}; references: methods of one round, drawn as horizontal lines.
    """
    shown = [mine for mine in _splits(models) if _chains(mine)]
    found = [
        {method: numbers(study, mine, method) for method in [*_chains(mine), *references]}
        for mine in shown
    ]
    which = [k for k in kinds if any(of[k] for methods in found for of in methods.values())]
    figure, panels = _panels(len(which) * len(shown), columns=len(which) if len(which) > 1 else 3)
    places = [
        (mine, methods, kind) for mine, methods in zip(shown, found, strict=True) for kind in which
    ]
    for axes, (mine, methods, kind) in zip(panels, places, strict=True):
        for method, of_method in methods.items():
            if method in references:
                _reference(axes, of_method[kind], REFERENCES[method], method, models)
            else:
                _line(axes, of_method[kind], _look(models, method), method, models)
        axes.set(title=mine[0].split, xlabel="round", ylabel=f"{kinds[kind][0]}, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if not axes.lines:
            _say(axes, "no masks to compare with" if kind == "miou" else NOTHING)
    note = "".join(f"{': '.join(kinds[kind])}; " for kind in which)
    return _finish(figure, models, f"{note}labels made by the {_best(models)}")


def _splits(models: Models) -> list[list[SummaryRow]]:
    """Group the models by labeled split."""
    splits = dict.fromkeys(model.split for model in models)
    return [[model for model in models if model.split == split] for split in splits]


def _chains(models: Models) -> list[str]:
    """Methods of several rounds that have an mIoU."""
    return [
        method
        for method, last in figure_data.last_rounds(models).items()
        if last > 1 and figure_data.scores(models, method)
    ]


def _look(models: Models, method: str) -> dict[str, Any]:
    """Colour and marker of a method, by its position; methods of several rounds come first."""
    if method == SUPERVISED:
        return {"color": "black", "marker": "o"}
    last = figure_data.last_rounds(models)
    methods = sorted(last.keys() - {SUPERVISED}, key=lambda m: (last[m] == 1, list(last).index(m)))
    return _numbered(methods.index(method))


def _numbered(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def _line(axes: Axes, points: Points, look: dict[str, Any], label: str, models: Models) -> None:
    """Draw the means of `points` as a line; a solid line gets a band of one standard deviation."""
    found = figure_data.series(points)
    if not found.x:
        return
    axes.plot(found.x, found.mean, label=_with_seeds(label, found.seeds, models), **look)
    if any(found.deviation) and "linestyle" not in look:
        mean, deviation = np.array(found.mean), np.array(found.deviation)
        band = {"color": look["color"], "alpha": 0.13, "linewidth": 0}
        axes.fill_between(found.x, mean - deviation, mean + deviation, **band)


def _reference(axes: Axes, points: Points, dashes: Any, method: str, models: Models) -> None:
    """Draw the last mean of `points` as a horizontal line."""
    found = figure_data.series(points)
    if found.x:
        look = {"color": _look(models, method)["color"], "linestyle": dashes, "zorder": 1.5}
        axes.axhline(found.mean[-1], **look, label=_with_seeds(method, found.seeds, models))


def _ring(axes: Axes, points: Points, rounds: Collection[int]) -> None:
    """Draw rings around the means of `points` at these rounds."""
    found = figure_data.series(points)
    means = [mean for mean in zip(found.x, found.mean, strict=True) if mean[0] in rounds]
    if means:
        axes.plot(*zip(*means, strict=True), **RING, label="_")


def _with_seeds(label: str, seeds: list[int], models: Models) -> str:
    """Add the seeds to the label of a line over other seeds than the rest of the figure.

    Such a line must not be compared unnoticed: seeds differ more than methods.
    """
    if label == "_" or seeds == figure_data.seeds_of(models):
        return label
    return f"{label} ({_seeds(seeds)})"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _best(models: Models) -> str:
    return describe_selection(sorted({m.selected_on for m in models})).removeprefix("the ")


def _panels(
    count: int, width: float = 4.2, height: float = 3, columns: int = 3, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` axes, each of this size in inches, at most `columns` in a row."""
    columns = max(1, min(columns, count))
    lines = max(1, -(-count // columns))
    figure = Figure((max(5.5, width * columns), height * lines + 0.9))
    grid = figure.subplots(lines, columns, squeeze=False, **shared).ravel()
    for axes in grid:
        axes.tick_params(labelbottom=True)
    for axes in grid[count:]:
        axes.remove()
    return figure, list(grid[:count])


def _finish(
    figure: Figure,
    models: Models,
    note: str,
    handles: Sequence[Line2D] = (),
    title: str | None = None,
    nothing: str = NOTHING,
    spread: bool = True,
) -> Figure:
    """Add the legend above and the footnote below; a figure without axes says `nothing`."""
    width = figure.get_figwidth()
    if not figure.axes:
        _say(figure.subplots(), nothing)
    found = {}
    for axes in figure.axes:
        found.update({label: h for h, label in zip(*axes.get_legend_handles_labels(), strict=True)})
    if found:
        found.update({handle.get_label(): handle for handle in handles})
        columns = max(1, int(width * 13 / (max(map(len, found)) + 7)))
        figure.legend(
            found.values(), found.keys(), loc="outside upper center", ncols=columns, title=title
        )
    words = f"{note}{_about(models, spread)}"
    text = textwrap.fill(words, int(width * 17), break_on_hyphens=False)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5)
    return figure


def _about(models: Models, spread: bool) -> str:
    """End of the footnote: seeds, missing runs, and what a person edited by hand."""
    seeds = figure_data.seeds_of(models)
    mean = f"mean{' ± standard deviation' * spread} over " * (len(seeds) > 1)
    text = f"; {mean}{_seeds(seeds)}" if seeds else ""
    missing = list(dict.fromkeys(str(m.path) for m in models if m.miou is None))
    if missing:
        text += f"; missing: {first_of(missing, 6)}"
    edited = {f"{m.path.parent}": m.edited for m in models if m.edited}
    if edited:
        text += "; edited by hand: " + ", ".join(f"{path}, {what}" for path, what in edited.items())
    return text


def _say(axes: Axes, sentence: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, sentence, ha="center", va="center", transform=axes.transAxes)
