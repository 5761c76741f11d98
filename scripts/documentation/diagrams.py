"""Diagrams of the rules and of the library's packages, as SVG."""

import io
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from statistics import fmean
from typing import Any

import grimp
import matplotlib
import networkx as nx
from matplotlib.figure import Figure

from .pages import REPOSITORY
from .snakemake_output import snakemake

Edge = tuple[str, str]


def rules_diagram() -> str:
    """The rules of the default experiment, each arrow from a rule to one that reads its files.

    A dashed arrow starts the next round.
    """
    printed = snakemake("--rulegraph", "mermaid-js")
    names = dict(re.findall(r"^\s*(\w+)\[(\w+)\]$", printed, re.MULTILINE))
    arrows = re.findall(r"^\s*(\w+) --> (\w+)$", printed, re.MULTILINE)
    edges = sorted((names[start], names[end]) for start, end in arrows)
    again = ("predict_round", "thresholds")
    forward = [(a, b) for a, b in edges if a not in (b, "predict_round") and b != "all"]
    return _svg(_layers(forward), _without_detours(forward), [again])


def packages_diagram() -> str:
    """The packages of the library: the lowest at the bottom, each arrow from importer to imported.

    An import is left out if a longer path of arrows implies it.
    """
    layers = _contract_layers()
    graph = grimp.build_graph("dst_cbc", cache_dir=None)
    edges = [
        (upper, lower)
        for upper in layers
        for lower in layers
        if upper != lower
        and graph.direct_import_exists(
            importer=f"dst_cbc.{upper}", imported=f"dst_cbc.{lower}", as_packages=True
        )
    ]
    return _svg([[name] for name in layers], _without_detours(edges), notes=_notes(layers))


def _contract_layers() -> list[str]:
    """The layers that `lint-imports` checks, the highest first."""
    content = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = content["tool"]["importlinter"]["contracts"]
    return next(one["layers"] for one in contracts if one["type"] == "layers")


def _notes(packages: Iterable[str]) -> dict[str, str]:
    """The first line of each package's docstring."""
    docs = {name: import_module(f"dst_cbc.{name}").__doc__ or "" for name in packages}
    return {name: doc.splitlines()[0] for name, doc in docs.items()}


def _layers(edges: Iterable[Edge]) -> list[list[str]]:
    """Nodes in layers, by the length of the longest path to them: below all their predecessors."""
    graph = nx.DiGraph(edges)
    places: dict[str, float] = {}
    layers = []
    for layer in nx.topological_generations(graph):
        above = {name: [places[start] for start in graph.predecessors(name)] for name in layer}
        means = {name: fmean(found) if found else 0.0 for name, found in above.items()}
        layers.append(sorted(layer, key=lambda name: (means[name], name)))
        places |= _columns(layers[-1])
    return layers


def _columns(layer: Sequence[str]) -> dict[str, float]:
    return {name: place - (len(layer) - 1) / 2 for place, name in enumerate(layer)}


def _without_detours(edges: Iterable[Edge]) -> list[Edge]:
    """The edges that are not implied by a longer path."""
    return sorted(nx.transitive_reduction(nx.DiGraph(edges)).edges)


def _svg(
    layers: Sequence[Sequence[str]],
    edges: Iterable[Edge],
    dashed: Iterable[Edge] = (),
    notes: Mapping[str, str] | None = None,
) -> str:
    """Boxes in layers from top to bottom, arrows between them, a note to the right of each box."""
    # Equal diagrams give equal files; text stays text instead of becoming outlines.
    fixed: Any = {"svg.hashsalt": "dst-cbc", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(fixed):
        figure = Figure(figsize=(8.6, 0.6 * len(layers)))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim((-1.2, 5.2) if notes else (-2, 2))
        axes.set_ylim(-len(layers) + 0.5, 0.5)
        axes.set_axis_off()
        style = {"boxstyle": "round,pad=0.4", "facecolor": "#e8eaf6", "edgecolor": "#3f51b5"}
        boxes = {}
        for row, layer in enumerate(layers):
            for name, x in _columns(layer).items():
                boxes[name] = axes.text(x, -row, name, ha="center", va="center", bbox=style)
                axes.text(x + 0.5, -row, (notes or {}).get(name, ""), va="center")
        for line, found in (("-", edges), ("--", dashed)):
            for start, end in found:
                (x, y), (to_x, to_y) = boxes[start].get_position(), boxes[end].get_position()
                # Bend the arrow around the boxes between the two.
                bend = 0.4 if line == "--" or (x == to_x and y - to_y > 1) else 0
                axes.annotate(
                    "",
                    (to_x, to_y),
                    (x, y),
                    arrowprops={
                        "arrowstyle": "->",
                        "linestyle": line,
                        "color": "#555555",
                        "patchA": boxes[start].get_bbox_patch(),
                        "patchB": boxes[end].get_bbox_patch(),
                        "connectionstyle": f"arc3,rad={bend}",
                    },
                )
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
