"""`summary.csv`: one row per model, checkpoint and subset; tables and figures are made from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.splits import published
from ..runtime import escape
from ..runtime.paths import require_relative
from ..runtime.reading import read_ids
from ..runtime.tables import csv_header, optional, read_csv, real, whole
from ..self_training.thresholds import missed_shares
from .model_files import CHECKPOINTS, read_metrics, read_run, read_settings
from .tables import CONTROLS

COLUMNS = [
    "split", "seed", "labeled", "unlabeled", "method", "round", "checkpoint", "origin_round",
    "selected_on", "subset", "images", "miou", "pixel_accuracy", "gain", "steps", "edited",
]  # fmt: skip


def summarize(study: Path, models: Sequence[str], report: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of summary.csv for `models`, folders relative to `study`.

    miou, pixel_accuracy: percent; gain: points over `supervised` of the same split, seed,
    checkpoint and subset; steps: training steps of the whole chain up to this model; labeled,
    unlabeled: numbers of images of the split; edited: what a person changed by hand in this round
    or an earlier one. A model without metrics.json gets rows with empty figures.
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
    method, _, round = path.partition("/")[2].rpartition("/round")
    fixed = {
        "split": split,
        "seed": int(seed),
        **{side: _images(study, path, side) for side in ("labeled", "unlabeled")},
        "method": method or round,
        "round": int(round) if method else 0,
        "selected_on": selection[0] if selection else "val",
    }
    metrics = read_metrics(study / path / "metrics.json", report)
    rows = []
    for checkpoint in CHECKPOINTS:
        for subset in report:
            figures: Mapping = metrics[checkpoint]["subsets"][subset] if metrics else {}
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


def _images(study: Path, path: str, side: str) -> int | None:
    listing = study / "splits" / f"{path.split('/')[0]}.{side}.txt"
    return len(read_ids(listing)) if listing.is_file() else None


def read_summary(path: Path) -> list[dict[str, Any]]:
    """Read summary.csv, or a record of it in docs/results; empty numbers are None.

    Raises DataError if a cell is not the number that it should be.
    """
    timed = {"seconds": optional(real)} if "seconds" in csv_header(path) else {}
    return read_csv(path, {**_CELLS, **timed})


_CELLS = dict.fromkeys(COLUMNS, str) | {
    "seed": whole, "labeled": optional(whole), "unlabeled": optional(whole), "round": whole,
    "origin_round": optional(whole), "images": optional(whole), "miou": optional(real),
    "pixel_accuracy": optional(real), "gain": optional(real), "steps": optional(whole),
}  # fmt: skip


def folder_of(row: Mapping[str, Any]) -> Path:
    """Folder, relative to the study's, of the model that a row of summary.csv describes.

    Raises DataError if the row names a folder elsewhere.
    """
    selection = "" if row["selected_on"] == "val" else f"_{row['selected_on']}"
    model = row["method"] if int(row["round"]) == 0 else f"{row['method']}/round{row['round']}"
    folder = f"{row['split']}_{row['seed']}{selection}/{model}"
    return Path(require_relative(folder, "summary.csv"))


def published_note(study: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Sentence naming the splits of `rows` that equal a published split; "" if there are none."""
    divisions = dict.fromkeys(folder_of(row).parts[0] for row in rows)
    lists = {
        division: [study / "splits" / f"{division}.{side}.txt" for side in ("labeled", "unlabeled")]
        for division in divisions
    }
    found = [
        division
        for division, paths in lists.items()
        if all(path.is_file() for path in paths) and published(*map(read_ids, paths))
    ]
    return f"Identical to the published split: {', '.join(found)}." if found else ""


def interval_notes(study: Path, models: Sequence[str], report: Sequence[str]) -> str:
    """Markdown list of the intervals of the models' mIoU; "" if there are none.

    metrics.json has an interval where a subset has few images. models: folders relative to `study`.
    """
    lines = []
    for path in models:
        metrics = read_metrics(study / path / "metrics.json")
        for subset in report:
            figures: Mapping = metrics["best"]["subsets"].get(subset, {}) if metrics else {}
            low, high = figures.get("miou_interval", (None, None))
            if "miou_interval" in figures and figures["miou"] is not None:
                # A bootstrap over one image draws this image each time.
                one = figures["images"] == 1
                count = "1 image" if one else f"{figures['images']} images"
                known = "unknown from one group" if low is None else f"{low:.2f} to {high:.2f}"
                interval = "unknown from one image" if one else known
                lines.append(
                    f"* `{path}` on `{subset}`, {count}: mIoU {figures['miou']:.2f} % ({interval})"
                )
    if not lines:
        return ""
    heading = (
        "Few images: in parentheses is the 95 % interval of a bootstrap over the images, of which "
        "neighbours and those of a group are drawn together."
    )
    return "\n".join([heading, "", *lines])


def stopped_notes(study: Path, models: Sequence[str]) -> str:
    """Markdown list of the rounds that have trained nothing, each with its reason; "" without any.

    models: folders relative to `study`.
    """
    lines = [
        f"* `{path}`: {escape.markdown(run['stopped'])}"
        for path in models
        if (run := read_run(study / path / "run.json")) and "stopped" in run
    ]
    heading = "Rounds that trained nothing: their model is that of the round before."
    return "\n".join([heading, "", *lines]) if lines else ""


def share_notes(study: Path, models: Sequence[str]) -> str:
    """Markdown list of the classes that keep another share of pixels than the curriculum says.

    "" if there are none. models: folders relative to `study`.
    """
    lines = []
    for path in models:
        thresholds, settings = study / path / "thresholds.csv", study / path / "settings.json"
        if not (thresholds.is_file() and settings.is_file()):
            continue
        asked = read_settings(settings).get("thresholds")
        rows = read_csv(thresholds, {"name": str, "pixels": whole, "kept": whole})
        counted = ((row["name"], row["pixels"], row["kept"]) for row in rows)
        if asked:
            missed = missed_shares(counted, asked["alpha"], asked["balance"])
            lines += [f"* `{path}`, {escape.markdown(sentence)}" for sentence in missed]
    return "\n".join(["Not the asked share of pseudo labels:", "", *lines]) if lines else ""


def with_seconds(study: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add `seconds` of each model's own training to rows of summary.csv; None if not known.

    Those of a control that continues round 0 include round 0.
    """
    return [{**row, "seconds": _seconds(study, row)} for row in rows]


def _seconds(study: Path, row: Mapping[str, Any]) -> float | None:
    folder = study / folder_of(row)
    run, settings = read_run(folder / "run.json"), folder / "settings.json"
    if run is None or row["method"] not in CONTROLS or not settings.is_file():
        return run and run["seconds"]
    if read_settings(settings)["network"] is not None:
        return run["seconds"]
    first = read_run(folder.parents[1] / "supervised/run.json")
    return first and first["seconds"] + run["seconds"]


def _chain(path: str) -> list[str]:
    """The folders of the rounds up to a model; the last one is the model's own."""
    parent, _, last = path.rpartition("/")
    if not last.startswith("round"):
        return [path]
    return [f"{parent}/round{r}" for r in range(1, int(last.removeprefix("round")) + 1)]


def _steps(study: Path, path: str) -> int:
    """Training steps of all rounds up to a model, and of round 0 if it gave weights or labels."""
    first = read_settings(study / _chain(path)[0] / "settings.json")
    steps = sum(_trained(study / one) for one in _chain(path))
    if first["network"] is None or first.get("thresholds"):
        steps += _trained(study / path.split("/")[0] / "supervised")
    return steps


def _trained(folder: Path) -> int:
    """The steps of one training: fewer than planned if folds ended it, none if it was stopped."""
    planned = read_settings(folder / "settings.json")["train"]
    metrics = read_metrics(folder / "metrics.json")
    if metrics is None or "step" not in metrics["last"]:
        return planned["steps"]
    last = metrics["last"]
    return last["step"] if last["round"] == planned.get("round", last["round"]) else 0


def _edited(study: Path, path: str) -> str:
    """Rounds whose thresholds or labels a person edited, e.g. `thresholds of round3`."""
    found = []
    for folder in map(study.joinpath, _chain(path)):
        if (folder / "thresholds.edited.csv").is_file():
            found.append(f"thresholds of {folder.name}")
        manifest = folder / "pseudo_labels.csv"
        if manifest.is_file() and any(r["edited"] for r in read_csv(manifest, ("edited",))):
            found.append(f"labels of {folder.name}")
    return ", ".join(found)
