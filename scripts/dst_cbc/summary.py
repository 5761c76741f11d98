"""`summary.csv` and `summary.md`: one row per model and subset, and the same for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from .files import read_csv

COLUMNS = [
    "split", "seed", "method", "round", "checkpoint", "origin_round", "selected_on", "subset",
    "images", "miou", "pixel_accuracy", "gain", "steps", "edited",
]  # fmt: skip


def summarize(study: Path, models: Sequence[str], report: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of summary.csv for the models at `models`, folders below `study`.

    mIoU, pixel accuracy in percent; gain: points over `supervised` of the same split, checkpoint
    and subset; steps: of the whole chain up to this model; edited: what a person changed by hand
    on the way. A model without metrics gives rows without figures.
    """
    rows = [row for path in models for row in _rows(study, path, report)]
    key = ("split", "seed", "selected_on", "checkpoint", "subset")
    baseline = {tuple(r[k] for k in key): r["miou"] for r in rows if r["method"] == "supervised"}
    for row in rows:
        base = baseline.get(tuple(row[k] for k in key))
        row["gain"] = None if None in (base, row["miou"]) else row["miou"] - base
    return rows


def _rows(study: Path, path: str, report: Sequence[str]) -> list[dict[str, Any]]:
    split, seed, *selection = path.split("/")[0].split("_")
    _, method, *rest = path.split("/")
    fixed = {
        "split": split,
        "seed": int(seed),
        "method": method,
        "round": int(rest[0].removeprefix("round")) if rest else 0,
        "selected_on": selection[0] if selection else "val",
    }
    written = study / path / "metrics.json"
    metrics = json.loads(written.read_text()) if written.is_file() else None
    rows = []
    for checkpoint in ("best", "last"):
        for subset in report:
            figures = metrics[checkpoint]["subsets"][subset] if metrics else {}
            rows.append(
                {
                    **fixed,
                    "checkpoint": checkpoint,
                    "subset": subset,
                    "origin_round": metrics[checkpoint]["round"] if metrics else None,
                    "images": figures.get("images"),
                    "miou": figures.get("miou"),
                    "pixel_accuracy": figures.get("pixel_accuracy"),
                    "steps": _steps(study, path) if metrics else None,
                    "edited": _edited(study, path),
                }
            )
    return rows


def _chain(path: str) -> list[str]:
    """The folders of the rounds that lead to a model, its own last."""
    parent, _, last = path.rpartition("/")
    if not last.startswith("round"):
        return [path]
    return [f"{parent}/round{r}" for r in range(1, int(last.removeprefix("round")) + 1)]


def _steps(study: Path, path: str) -> int:
    """Steps of the chain: of round 0, where the model comes from it, and of all rounds."""
    settings = [json.loads((study / p / "settings.json").read_text()) for p in _chain(path)]
    steps = sum(one["train"]["steps"] for one in settings)
    if settings[0]["network"] is None:
        first = study / path.split("/")[0] / "supervised" / "settings.json"
        steps += json.loads(first.read_text())["train"]["steps"]
    return steps


def _edited(study: Path, path: str) -> str:
    """Rounds whose thresholds or labels a person edited, e.g. `thresholds of round 3`."""
    found = []
    for folder in map(study.joinpath, _chain(path)):
        if (folder / "thresholds.edited.csv").is_file():
            found.append(f"thresholds of {folder.name}")
        manifest = folder / "pseudo_labels.csv"
        if manifest.is_file() and any(r["edited"] for r in read_csv(manifest, ("edited",))):
            found.append(f"labels of {folder.name}")
    return ", ".join(found)


def markdown(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, one table per subset and checkpoint."""
    text = [f"# {name}", ""]
    for subset, checkpoint in dict.fromkeys((r["subset"], r["checkpoint"]) for r in rows):
        chosen = [r for r in rows if (r["subset"], r["checkpoint"]) == (subset, checkpoint)]
        selection = ", ".join(sorted({r["selected_on"] for r in chosen}))
        what = (
            f"best of the chain, selected on {selection}" if checkpoint == "best" else "last step"
        )
        text += [
            f"## mIoU on `{subset}`, {what}",
            "",
            "| split | method | round | steps | mIoU % | gain | seeds | edited by hand |",
            "|---|---|---|---|---|---|---|---|",
            *_table(chosen),
            "",
        ]
    text.append(
        "mIoU and gain: mean ± standard deviation over the seeds of the split that are there."
    )
    return "\n".join(text) + "\n"


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for key in dict.fromkeys((r["split"], r["method"], r["round"]) for r in rows):
        group = [r for r in rows if (r["split"], r["method"], r["round"]) == key]
        done = [r for r in group if r["miou"] is not None]
        steps = ", ".join(sorted({str(r["steps"]) for r in done}))
        edited = "; ".join(sorted({r["edited"] for r in group if r["edited"]}))
        seeds = ", ".join(str(r["seed"]) for r in done)
        missing = [str(r["seed"]) for r in group if r["miou"] is None]
        cells = [
            *map(str, key), steps, spread([r["miou"] for r in done]),
            spread([r["gain"] for r in done if r["gain"] is not None], "+"),
            seeds + (f" (missing: {', '.join(missing)})" if missing else ""), edited,
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def spread(values: Sequence[float], sign: str = "") -> str:
    """`mean ± standard deviation`; the deviation only where there are two values."""
    if not values:
        return ""
    mean = format(fmean(values), f"{sign}.2f")
    return mean if len(values) == 1 else f"{mean} ± {stdev(values):.2f}"
