"""The numbers of the figures, out of a study's files; what is not there gives no number.

Shares are in percent. `models` are those of one labeled split where a function says so.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ..runtime.files import DataError, read_csv, read_json
from ..self_training.confidence import probabilities
from ..self_training.predictions import histogram_beside, read_histogram
from ..self_training.pseudo_labels import QUALITY
from .agreement import COLUMNS as AGREEMENT
from .agreement import labels_from
from .summary import folder_of, read_summary

SUPERVISED = "supervised"

Points = dict[Any, dict[int, float]]
"""Numbers of x and seed."""


@dataclass(frozen=True)
class SummaryRow:
    """One row of summary.csv: a model's best of the chain, or its last step, on one subset.

    split: in words, as a title; path: of its folder, below the study's; miou: in percent, None
    where the run is missing; edited: what a person changed by hand.
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
    """Mean and standard deviation over `seeds` at each of `x`; one seed deviates by 0."""

    x: list
    mean: list[float]
    deviation: list[float]
    seeds: list[int]


def read_models(study: Path, subset: str) -> list[SummaryRow]:
    """The rows of summary.csv on `subset`.

    Raises DataError where a number is none, or no row is on `subset`.
    """
    path = study / "summary.csv"
    try:
        rows = read_summary(path)
    except ValueError as error:
        raise DataError(f"{path}: {error}; delete it to make it again") from error
    reported = list(dict.fromkeys(row["subset"] for row in rows))
    if rows and subset not in reported:
        raise DataError(f"{path}: no row on {subset!r}; found {', '.join(reported)}: name one")
    return [_model(row) for row in rows if row["subset"] == subset]


def _model(row: Mapping[str, Any]) -> SummaryRow:
    selected = row["selected_on"]
    title = f"split {row['split']}" + (f", selected on {selected}" if selected != "val" else "")
    same = ("seed", "method", "round", "checkpoint", "selected_on", "subset", "miou", "edited")
    return SummaryRow(split=title, path=folder_of(row), **{key: row[key] for key in same})


def seeds_of(models: Iterable[SummaryRow]) -> list[int]:
    """The seeds that have figures."""
    return sorted({model.seed for model in models if model.miou is not None})


def last_rounds(models: Iterable[SummaryRow]) -> dict[str, int]:
    """The last planned round of each method; variants (`method@key=value`) are left out."""
    last = {}
    for model in models:
        if "@" not in model.method:
            last[model.method] = max(model.round, last.get(model.method, 0))
    return last


def series(points: Points) -> Series:
    """Over the seeds that have the most values of x.

    A mean over these seeds here and others there would show their difference as one of x.
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
    """mIoU by round, of one split; round 0 is `supervised` of the seeds that the method has."""
    done = [m for m in models if m.miou is not None and m.checkpoint == checkpoint]
    seeds = seeds_of(m for m in done if m.method == method)
    points: Points = {}
    for model in sorted(done, key=lambda m: m.round):
        if model.method in (method, SUPERVISED) and model.seed in seeds and model.miou is not None:
            points.setdefault(model.round, {})[model.seed] = model.miou
    return points


@dataclass(frozen=True)
class ClassIoU:
    """By class, in the data set's order: IoU in percent of `supervised` and of the last round.

    Means over those of `seeds` where both have one.
    """

    pairs: dict[str, tuple[float, float]]
    seeds: list[int]


def class_iou(study: Path, models: Sequence[SummaryRow], method: str) -> ClassIoU:
    """Of a method on one split, best of the chain."""
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
    metrics = _json(study / model.path / "metrics.json")
    if not metrics:
        return {}
    figures = metrics[model.checkpoint]["subsets"][model.subset]
    return {name: figures["iou"][name] for name in figures["classes"]}


def label_quality(study: Path, models: Sequence[SummaryRow], method: str) -> dict[str, Points]:
    """By round: mIoU of the pseudo labels where there are some, and the coverage: pixels kept."""
    miou: Points = {}
    coverage: Points = {}
    for model in _done(models, method):
        folder = study / model.path
        quality = _csv(folder / "pseudo_labels.quality.csv", QUALITY)
        found = [float(row["iou_of_labeled"]) for row in quality if row["iou_of_labeled"]]
        if found:
            miou.setdefault(model.round, {})[model.seed] = 100 * fmean(found)
        manifest = _csv(folder / "pseudo_labels.csv", ("kept", "height", "width"))
        pixels = sum(int(row["height"]) * int(row["width"]) for row in manifest)
        if pixels:
            kept = sum(int(row["kept"]) for row in manifest)
            coverage.setdefault(model.round, {})[model.seed] = 100 * kept / pixels
    return {"miou": miou, "coverage": coverage}


def agreement(study: Path, models: Sequence[SummaryRow], method: str) -> dict[str, Points]:
    """By round, what needs no ground truth.

    confidence: mean over the unlabeled pixels, of the model that made the round's labels;
    agreement: of the pixels labeled in this round and the one before, those with the same class;
    changed: of all pixels, those that are predicted as another class than in the round before.
    """
    found: dict[str, Points] = {"confidence": {}, "agreement": {}, "changed": {}}
    tables: dict[Path, list[dict[str, str]]] = {}
    for model in _done(models, method):
        folder = study / model.path
        histogram = histogram_beside(labels_from(folder))
        if histogram.is_file():
            counts = read_histogram(histogram).sum(0)
            share = 100 * float(counts @ probabilities().astype(float)) / max(1, counts.sum())
            found["confidence"].setdefault(model.round, {})[model.seed] = share
        table = folder.with_name("agreement.csv")
        rows = tables.setdefault(table, tables.get(table) or _csv(table, AGREEMENT))
        rows = [row for row in rows if row["round"] == str(model.round)]
        both = sum(int(row["both"] or 0) for row in rows)
        if both:
            share = 100 * sum(int(row["same"]) for row in rows if row["both"]) / both
            found["agreement"].setdefault(model.round, {})[model.seed] = share
        sizes = [(int(row["height"]) * int(row["width"]), row["changed"]) for row in rows]
        pixels = sum(size for size, changed in sizes if changed)
        if pixels:
            share = 100 * sum(size * float(changed) for size, changed in sizes if changed) / pixels
            found["changed"].setdefault(model.round, {})[model.seed] = share
    return found


def kept_and_right(
    study: Path, models: Sequence[SummaryRow], method: str
) -> dict[str, tuple[Points, Points]]:
    """Class: by round, the share of its pixels that is labeled and how much of that is right.

    Of the pixels that the model predicts as the class; labels that a person edited count as they
    are. A round without labels or masks of the class is left out.
    """
    found: dict[str, tuple[Points, Points]] = {}
    for model in _done(models, method):
        folder = study / model.path
        quality = _csv(folder / "pseudo_labels.quality.csv", QUALITY)
        predicted = _csv(folder / "thresholds.csv", ("name", "pixels"))
        precision = {row["name"]: row["precision"] for row in quality}
        columns = ["height", "width", *(f"pixels {row['name']}" for row in predicted)]
        manifest = _csv(folder / "pseudo_labels.csv", columns)
        native = sum(int(image["height"]) * int(image["width"]) for image in manifest)
        # Fewer pixels are counted where thresholds are sampled, or images are predicted squashed.
        scale = native / max(1, sum(int(row["pixels"]) for row in predicted))
        for row in predicted:
            kept, right = found.setdefault(row["name"], ({}, {}))
            if int(row["pixels"]) and precision.get(row["name"]):
                labeled = sum(int(image[f"pixels {row['name']}"]) for image in manifest)
                share = 100 * labeled / (scale * int(row["pixels"]))
                kept.setdefault(model.round, {})[model.seed] = share
                right.setdefault(model.round, {})[model.seed] = 100 * float(precision[row["name"]])
    return found


def sweeps(models: Sequence[SummaryRow]) -> dict[tuple[str, str], dict[str, dict[str, str]]]:
    """(method, key): {what is held equal: {value: name}} wherever a key has two values or more.

    Numbers in their order, other values in that of the study.
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
    """mIoU of the last planned round of each method of `names`, by its key there."""
    points: Points = {}
    for x, name in names.items():
        chosen = [m for m in models if m.method == name and m.checkpoint == checkpoint]
        last = max((m.round for m in chosen), default=0)
        points[x] = {m.seed: m.miou for m in chosen if m.round == last and m.miou is not None}
    return points


@dataclass(frozen=True)
class Cost:
    """Seconds of one round, mean over the seeds that have a file of it; 0 where none has."""

    training: float
    prediction: float


def costs(study: Path, models: Sequence[SummaryRow]) -> dict[tuple[str, int], Cost]:
    """(method, round): what it took, of one split."""
    rounds: dict[tuple[str, int], list[SummaryRow]] = {}
    for model in (m for method in last_rounds(models) for m in _done(models, method)):
        rounds.setdefault((model.method, model.round), []).append(model)
    return {place: _cost(study, found) for place, found in rounds.items()}


def _cost(study: Path, models: Sequence[SummaryRow]) -> Cost:
    runs = list(filter(None, (_json(study / m.path / "run.json") for m in models)))
    tables = [study / "benchmarks" / m.path / "predict.tsv" for m in models]
    predictions = [_seconds(path) for path in tables if path.is_file()]
    return Cost(
        fmean(run["seconds"] for run in runs) if runs else 0.0,
        fmean(predictions) if predictions else 0.0,
    )


def _seconds(benchmark: Path) -> float:
    try:
        header, first = (line.split("\t") for line in benchmark.read_text().splitlines()[:2])
        return float(dict(zip(header, first, strict=True))["s"])
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{benchmark}: not one of Snakemake's benchmarks ({error!r}); delete it"
        ) from error


def _json(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.is_file() else None


def _csv(path: Path, header: Sequence[str]) -> list[dict[str, str]]:
    return read_csv(path, header) if path.is_file() else []
