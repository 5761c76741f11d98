"""The numbers behind the figures, read from a study's files; a missing file gives no number.

Shares are in percent. Where a docstring says "on one split", `models` must be rows of that
labeled split only.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ..runtime.errors import DataError
from ..runtime.reading import explained, read_text
from ..runtime.tables import optional, positive, read_csv, real, whole
from ..self_training.confidence import probabilities
from ..self_training.predictions import histogram_beside, read_histogram
from ..settings.methods import SUPERVISED
from .agreement import labels_from
from .model_files import read_metrics, read_run
from .summary import folder_of, read_summary

Points = dict[Any, dict[int, float]]
"""{x: {seed: value}}."""


@dataclass(frozen=True)
class SummaryRow:
    """One row of summary.csv: a model's best of the chain, or its last step, on one subset.

    split: title of a panel, e.g. `split 12`; path: the model's folder, relative to the study's;
    miou: percent, None where the run is missing; edited: what a person changed by hand.
    """

    split: str
    seed: int
    method: str
    round: int
    checkpoint: str
    selected_on: str
    subset: str
    miou: float | None
    edited: str
    path: Path


@dataclass(frozen=True)
class Series:
    """Mean and standard deviation over `seeds` at each `x`; the deviation of one seed is 0."""

    x: list
    mean: list[float]
    deviation: list[float]
    seeds: list[int]


def read_models(study: Path, subset: str) -> list[SummaryRow]:
    """Read the rows of summary.csv on `subset`.

    Raises DataError as `read_summary` does, and if no row is on `subset`.
    """
    path = study / "summary.csv"
    rows = read_summary(path)
    reported = list(dict.fromkeys(row["subset"] for row in rows))
    if rows and subset not in reported:
        raise DataError(f"{path}: no row on {subset!r}; found {', '.join(reported)}: choose one")
    return [_model(row) for row in rows if row["subset"] == subset]


def _model(row: Mapping[str, Any]) -> SummaryRow:
    selected = row["selected_on"]
    title = f"split {row['split']}" + (f", selected on {selected}" if selected != "val" else "")
    same = ("seed", "method", "round", "checkpoint", "selected_on", "subset", "miou", "edited")
    return SummaryRow(split=title, path=folder_of(row), **{key: row[key] for key in same})


def seeds_of(models: Iterable[SummaryRow]) -> list[int]:
    """The seeds for which any model has an mIoU, sorted."""
    return sorted({model.seed for model in models if model.miou is not None})


def last_rounds(models: Iterable[SummaryRow]) -> dict[str, int]:
    """The last planned round of each method; variants (`method@key=value`) are left out."""
    last = {}
    for model in models:
        if "@" not in model.method:
            last[model.method] = max(model.round, last.get(model.method, 0))
    return last


def series(points: Points) -> Series:
    """Mean and standard deviation at each x, over the seeds that have values at the most x.

    All other seeds are left out: a mean over different seeds at different x would show the
    difference between seeds as an effect of x.
    """
    numbers = Counter(seed for values in points.values() for seed in values)
    most = max(numbers.values(), default=0)
    seeds = sorted(seed for seed, number in numbers.items() if number == most)
    found = {x: [v for seed, v in values.items() if seed in seeds] for x, values in points.items()}
    found = {x: values for x, values in found.items() if values}
    return Series(
        list(found),
        [fmean(values) for values in found.values()],
        [stdev(values) if len(values) > 1 else 0.0 for values in found.values()],
        seeds,
    )


def scores(models: Sequence[SummaryRow], method: str, checkpoint: str = "best") -> Points:
    """mIoU of a method by round, on one split; round 0 is `supervised` of the same seeds."""
    done = [m for m in models if m.miou is not None and m.checkpoint == checkpoint]
    seeds = seeds_of(m for m in done if m.method == method)
    points: Points = {}
    for model in sorted(done, key=lambda m: m.round):
        if model.method in (method, SUPERVISED) and model.seed in seeds and model.miou is not None:
            points.setdefault(model.round, {})[model.seed] = model.miou
    return points


@dataclass(frozen=True)
class ClassIoU:
    """IoU of every class in `supervised` and in the last round of a method.

    pairs: {class: (before, after)}, percent, in the data set's order; each pair is a mean over
    the seeds that have both values. seeds: the seeds that have both models.
    """

    pairs: dict[str, tuple[float, float]]
    seeds: list[int]


def class_iou(study: Path, models: Sequence[SummaryRow], method: str) -> ClassIoU:
    """Compare a method's last round with `supervised`, on one split, by the best of the chain."""
    last = last_rounds(models)[method]
    base = {m.seed: m for m in _done(models, SUPERVISED)}
    chosen = [m for m in _done(models, method) if m.round == last and m.seed in base]
    pairs: dict[str, list[tuple[float, float]]] = {}
    for model in chosen:
        before, after = _iou(study, base[model.seed]), _iou(study, model)
        for name in before:
            found = pairs.setdefault(name, [])
            old, new = before[name], after.get(name)
            if old is not None and new is not None:
                found.append((old, new))
    means: Any = {n: tuple(map(fmean, zip(*p, strict=True))) for n, p in pairs.items() if p}
    return ClassIoU(means, seeds_of(chosen))


def _done(models: Sequence[SummaryRow], method: str) -> list[SummaryRow]:
    return [
        m for m in models if m.method == method and m.checkpoint == "best" and m.miou is not None
    ]


def _iou(study: Path, model: SummaryRow) -> dict[str, float | None]:
    metrics = read_metrics(study / model.path / "metrics.json", [model.subset])
    if not metrics:
        return {}
    figures = metrics[model.checkpoint]["subsets"][model.subset]
    return {name: figures["iou"].get(name) for name in figures["classes"]}


def label_quality(study: Path, models: Sequence[SummaryRow], method: str) -> dict[str, Points]:
    """{"miou", "coverage"} of a method's pseudo labels by round, on one split.

    miou: mean IoU of the labeled pixels over the classes that have one, missing without masks;
    coverage: share of the pixels that have a pseudo label.
    """
    miou: Points = {}
    coverage: Points = {}
    for model in _done(models, method):
        folder = study / model.path
        quality = _csv(folder / "pseudo_labels.quality.csv", {"iou_of_labeled": optional(real)})
        found = [row["iou_of_labeled"] for row in quality if row["iou_of_labeled"] is not None]
        if found:
            miou.setdefault(model.round, {})[model.seed] = 100 * fmean(found)
        manifest = _csv(folder / "pseudo_labels.csv", {**_SIZE, "kept": whole})
        pixels = sum(row["height"] * row["width"] for row in manifest)
        if pixels:
            kept = sum(row["kept"] for row in manifest)
            coverage.setdefault(model.round, {})[model.seed] = 100 * kept / pixels
    return {"miou": miou, "coverage": coverage}


def agreement(study: Path, models: Sequence[SummaryRow], method: str) -> dict[str, Points]:
    """{"confidence", "agreement", "changed"} of a method by round, on one split; needs no masks.

    confidence: mean over all pixels of the unlabeled images, of the model that made the round's
    labels; agreement: share with the same class, of the pixels labeled in this round and in the
    round before; changed: share of all pixels whose predicted class differs from the round before.
    """
    found: dict[str, Points] = {"confidence": {}, "agreement": {}, "changed": {}}
    tables: dict[Path, list[dict[str, Any]]] = {}
    for model in _done(models, method):
        folder = study / model.path
        histogram = histogram_beside(labels_from(folder))
        if histogram.is_file():
            counts = read_histogram(histogram).sum(0)
            share = 100 * float(counts @ probabilities().astype(float)) / max(1, counts.sum())
            found["confidence"].setdefault(model.round, {})[model.seed] = share
        table = folder.with_name("agreement.csv")
        rows = tables.setdefault(table, tables.get(table) or _csv(table, _AGREEMENT))
        rows = [row for row in rows if row["round"] == model.round]
        both = sum(row["both"] or 0 for row in rows)
        if both:
            share = 100 * sum(row["same"] or 0 for row in rows) / both
            found["agreement"].setdefault(model.round, {})[model.seed] = share
        sizes = [(row["height"] * row["width"], row["changed"]) for row in rows]
        pixels = sum(size for size, changed in sizes if changed is not None)
        if pixels:
            share = 100 * sum(size * changed for size, changed in sizes if changed) / pixels
            found["changed"].setdefault(model.round, {})[model.seed] = share
    return found


def kept_and_right(
    study: Path, models: Sequence[SummaryRow], method: str
) -> dict[str, tuple[Points, Points]]:
    """{class: (kept, right)} of a method by round, on one split.

    kept: pixels labeled as the class, as a share of the pixels predicted as it; right: precision
    of these labels. Labels that a person edited count as they are now. A round without labels or
    masks of the class is left out.
    """
    found: dict[str, tuple[Points, Points]] = {}
    for model in _done(models, method):
        folder = study / model.path
        cells = {"name": str, "precision": optional(real)}
        quality = _csv(folder / "pseudo_labels.quality.csv", cells)
        predicted = _csv(folder / "thresholds.csv", {"name": str, "pixels": whole})
        precision = {row["name"]: row["precision"] for row in quality}
        counts = {f"pixels {row['name']}": whole for row in predicted}
        manifest = _csv(folder / "pseudo_labels.csv", {**_SIZE, **counts})
        native = sum(image["height"] * image["width"] for image in manifest)
        # thresholds.csv counts fewer pixels than the images have if pixels are sampled, or if
        # images are resized for prediction.
        scale = native / max(1, sum(row["pixels"] for row in predicted))
        for row in predicted:
            kept, right = found.setdefault(row["name"], ({}, {}))
            known = precision.get(row["name"])
            if scale and row["pixels"] and known is not None:
                labeled = sum(image[f"pixels {row['name']}"] for image in manifest)
                share = 100 * labeled / (scale * row["pixels"])
                kept.setdefault(model.round, {})[model.seed] = share
                right.setdefault(model.round, {})[model.seed] = 100 * known
    return found


def sweeps(models: Sequence[SummaryRow]) -> dict[tuple[str, str], dict[str, dict[str, str]]]:
    """{(method, key): {the variant's other keys: {value: name}}}, of keys with several values.

    Numbers are sorted; other values keep the order of the study.
    """
    names = dict.fromkeys(model.method for model in models if "@" in model.method)
    found: dict = {}
    for name in names:
        method, _, suffix = name.partition("@")
        pairs = dict(pair.split("=", 1) for pair in re.split(r",(?=\w+=)", suffix))
        for key, value in pairs.items():
            held = ", ".join(f"{k}={v}" for k, v in pairs.items() if k != key)
            found.setdefault((method, key), {}).setdefault(held, {})[value] = name
    swept = {
        place: {held: _ordered(values) for held, values in lines.items() if len(values) > 1}
        for place, lines in found.items()
    }
    return {place: lines for place, lines in swept.items() if lines}


def _ordered(values: dict[str, str]) -> dict[str, str]:
    try:
        return dict(sorted(values.items(), key=lambda item: float(item[0])))
    except ValueError:
        return values


def final_scores(
    models: Sequence[SummaryRow], names: Mapping[Any, str], checkpoint: str = "best"
) -> Points:
    """mIoU of the last planned round of each method in `names`, {x: method}, on one split."""
    points: Points = {}
    for x, name in names.items():
        chosen = [m for m in models if m.method == name and m.checkpoint == checkpoint]
        last = max((m.round for m in chosen), default=0)
        points[x] = {m.seed: m.miou for m in chosen if m.round == last and m.miou is not None}
    return points


@dataclass(frozen=True)
class Cost:
    """Seconds of one round, mean over the seeds that have a record of them; 0 if none has."""

    training: float
    prediction: float


def costs(study: Path, models: Sequence[SummaryRow]) -> dict[tuple[str, int], Cost]:
    """{(method, round): Cost}, on one split."""
    rounds: dict[tuple[str, int], list[SummaryRow]] = {}
    for model in (m for method in last_rounds(models) for m in _done(models, method)):
        rounds.setdefault((model.method, model.round), []).append(model)
    return {place: _cost(study, found) for place, found in rounds.items()}


def _cost(study: Path, models: Sequence[SummaryRow]) -> Cost:
    runs = list(filter(None, (read_run(study / m.path / "run.json") for m in models)))
    tables = [study / "benchmarks" / m.path / "predict.tsv" for m in models]
    predictions = [benchmark_seconds(path) for path in tables if path.is_file()]
    return Cost(
        fmean(run["seconds"] for run in runs) if runs else 0.0,
        fmean(predictions) if predictions else 0.0,
    )


def benchmark_seconds(benchmark: Path) -> float:
    """Seconds of a job, from the file that Snakemake has written about it. Raises DataError."""
    with explained(benchmark, "a benchmark file of Snakemake", "delete it"):
        header, first = (line.split("\t") for line in read_text(benchmark).split("\n")[:2])
        return real(dict(zip(header, first, strict=True))["s"])


_SIZE = {"height": positive, "width": positive}
_AGREEMENT = {
    **_SIZE, "round": whole, "both": optional(whole), "same": optional(whole),
    "changed": optional(real),
}  # fmt: skip


def _csv(path: Path, columns: Mapping[str, Callable[[str], Any]]) -> list[dict[str, Any]]:
    return read_csv(path, columns) if path.is_file() else []
