"""`model.md`: what a person must know who is handed a model, from what lies beside it.

Of a model file alone it tells less: nothing here is needed but `model.pt`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .files import DataError, read_ids, read_json
from .index import Row, read_index
from .settings import ModelSettings, NetworkSettings

FILL_IN = "**to be filled in by you**"


@dataclass(frozen=True)
class Surroundings:
    """What lies beside a model in its study; None and empty where there is nothing.

    name: `<study>/<split>_<seed>/<method>/round<r>`, as far as the folders are called so.
    labeled, unlabeled: numbers of images.
    """

    name: str = "model"
    method: str | None = None
    settings: ModelSettings | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    labeled: int | None = None
    unlabeled: int | None = None


def surroundings(model: Path) -> Surroundings:
    """What lies beside `model.pt`, and above it in its study.

    Raises DataError where one of these files is damaged.
    """
    folder = model.resolve().parent
    depth = 2 if re.fullmatch(r"round[1-9]\d*", folder.name) else 1
    division = folder.parents[depth - 1]
    study = division.parent
    in_a_study = (study / "dataset.csv").is_file()
    counts = {}
    for kind in ("labeled", "unlabeled"):
        listing = study / f"splits/{division.name}.{kind}.txt"
        counts[kind] = len(read_ids(listing)) if listing.is_file() else None
    settings = folder / "settings.json"
    return Surroundings(
        name=folder.relative_to(study.parent).as_posix() if in_a_study else "model",
        method=folder.parents[depth - 2].name if depth == 2 else folder.name,
        settings=_settings(settings) if settings.is_file() else None,
        metrics=_json(folder / "metrics.json"),
        run=_json(folder / "run.json"),
        rows=list(read_index(study / "dataset.csv").values()) if in_a_study else (),
        **counts,
    )


def _settings(path: Path) -> ModelSettings:
    try:
        return ModelSettings.model_validate(read_json(path))
    except ValidationError as error:
        raise DataError(f"{path}: not a model's settings ({error}); move it away") from error


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def card(
    network: NetworkSettings,
    classes: Mapping[str, str],
    window: tuple[int, int] | None,
    record: Mapping[str, Any],
    digest: str,
    around: Surroundings,
    files: Mapping[str, str],
) -> str:
    """Markdown. network, classes, window, record: of the model file, digest its SHA-256.

    files: what was exported, name: how far it agrees with PyTorch.
    """
    parts = [
        f"# {around.name}",
        f"Semantic segmentation: a class for every pixel of an image, out of {len(classes)}. "
        "Trained with DST-CBC (arXiv:2004.08514), semi-supervised: on labeled images and, in "
        "rounds of self-training, on pseudo labels of unlabeled ones.",
        _files(files),
        _input(window, network),
        _classes(classes, around.metrics),
        _making(network, record, digest, around),
        _data(around),
        _metrics(around.metrics, record),
        _licences(network),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _files(files: Mapping[str, str]) -> str:
    return "## Files\n\n" + "\n".join(
        ["* `model.pt`: weights and settings, for `scripts/infer.py` of DST-CBC."]
        + [f"* `{name}`: {agreement}, against PyTorch." for name, agreement in files.items()]
    )


def _input(window: tuple[int, int] | None, network: NetworkSettings) -> str:
    deep = "16-bit images: there were none in training; they are not defined."
    if window:
        black, white = window
        deep = (
            f"16-bit images: the caller turns value v into round(255 (v - {black}) / "
            f"({white} - {black})), clipped to 0..255, before."
        )
    smallest = math.ceil((network.output_stride + 1) / network.input_scale)
    return f"""## Input and output of the exported files

* `images`, uint8 (N, 3, H, W): RGB, 0..255, channels first, any size from {smallest} pixels a side;
  upright (EXIF orientation applied), grey repeated three times. Nothing is subtracted or divided:
  normalisation, resizing by {network.input_scale:g} and padding are inside.
* `classes`, uint8 (N, H, W): class numbers as below.
* `confidence`, float32 (N, H, W): probability of that class, 0..1, as the network claims it; it is
  not calibrated.
* {deep}
* An image passes in one piece, whatever its size: cut large ones, or use `scripts/infer.py`."""


def _classes(classes: Mapping[str, str], metrics: Mapping[str, Any]) -> str:
    subsets = metrics.get("best", {}).get("subsets", {})
    table = [["number", "class", "colour", *(f"IoU % on {subset}" for subset in subsets)]]
    for number, (name, colour) in enumerate(classes.items()):
        shares = [_figure(figures["iou"].get(name)) for figures in subsets.values()]
        table.append([str(number), name, f"`{colour}`", *shares])
    return "## Classes\n\n" + _table(table)


def _making(
    network: NetworkSettings, record: Mapping[str, Any], digest: str, around: Surroundings
) -> str:
    head = network.chosen_head.model_dump(mode="json")
    options = "".join(f", {key} {value}" for key, value in head.items() if key != "name")
    lines = [
        f"Network: head `{head['name']}`{options}, on `{network.backbone}`, output stride "
        f"{network.output_stride}.",
        f"Weights: reached at step {record['step']} of round {record['round']}"
        + (
            f", chosen as the best on {record['selected_on']} with an mIoU of "
            f"{_figure(record['score'])} %."
            if record.get("score") is not None
            else "."
        ),
        f"SHA-256 of `model.pt`: `{digest}`.",
    ]
    if around.settings:
        train, split = around.settings.train, around.settings.split
        lines += [
            f"Method: `{around.method}`, round {train.round}"
            + (
                f", pseudo labels for a share of {around.settings.thresholds.alpha} "
                f"per {around.settings.thresholds.balance}."
                if around.settings.thresholds
                else "."
            ),
            f"Split: {_rule(split)}, seed {split.seed}.",
            f"Training: {train.steps} steps of {train.batch} images, crop {list(train.crop)}, "
            f"learning rate {train.learning_rate:g}, {train.precision}. `settings.json` beside "
            "the model has every key.",
        ]
    if around.run:
        versions = around.run.get("versions", {})
        lines.append(
            f"Made on {around.run.get('device')} with "
            + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
            + f"; commit {around.run.get('commit') or 'unknown'}."
        )
    return "## How it was made\n\n" + "\n".join(f"* {line}" for line in lines)


def _rule(split) -> str:
    rule = split.rule.model_dump(exclude_none=True)
    if "files" in rule:
        return "lists of ids"
    ((key, value),) = rule.items()
    return {
        "count": f"{value} labeled images",
        "divide": f"one training image in {value} labeled",
        "all": "every training image that has a mask is labeled",
    }[key]


def _data(around: Surroundings) -> str:
    lines = [f"What they show, who took them, when, and of whom: {FILL_IN}."]
    if around.settings:
        lines.append(f"Layout: `{around.settings.dataset.format}`.")
    if around.rows:
        count = Counter(row.subset for row in around.rows)
        lines.append("Images: " + ", ".join(f"{n} {name}" for name, n in count.items()) + ".")
        sizes = Counter((row.height, row.width) for row in around.rows)
        (height, width), most = sizes.most_common(1)[0]
        lines.append(
            f"Height and width, pixels: {height} x {width} in {most} of {len(around.rows)} images."
        )
    if around.labeled is not None:
        lines.append(
            f"Of the training images {around.labeled} labeled, {around.unlabeled} unlabeled."
        )
    return "## Data\n\n" + "\n".join(f"* {line}" for line in lines)


def _metrics(metrics: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    head = "## Metrics\n\n"
    subsets = metrics.get("best", {}).get("subsets", {})
    if not subsets:
        return head + "`metrics.json` did not lie beside the model: none are known."
    table = [["subset", "images", "mIoU %", "pixel accuracy %"]]
    for name, figures in subsets.items():
        shares = [_figure(figures[key]) for key in ("miou", "pixel_accuracy")]
        table.append([name, str(figures["images"]), *shares])
    chosen = record.get("selected_on")
    notes = ["On images from other cameras, places or preparations than these, expect less."]
    if chosen and "val" in subsets:
        notes.insert(0, f"The model was chosen on {chosen}: the figures of val are flattered.")
    return head + _table(table) + "\n\n" + " ".join(notes)


def _licences(network: NetworkSettings) -> str:
    return f"""## Licences

* Code (DST-CBC): Apache-2.0.
* Initial weights: {_weights(network.weights)}
* Data: {FILL_IN}. A model may be bound by the terms of the images that it was trained on.
* This model: {FILL_IN}."""


def _weights(weights: str | None) -> str:
    if not weights:
        return "none, random."
    if not weights.startswith("package:"):
        return f"`{_plain(Path(weights).name)}`, a file of yours; its licence: {FILL_IN}."
    package = weights.removeprefix("package:").partition("/")[0]
    licence = None
    try:
        about = metadata(package)
        licence = about.get("License-Expression") or about.get("License")
    except PackageNotFoundError:
        pass
    if not licence or licence == "UNKNOWN":
        return f"of the package `{_plain(package)}`, which states no licence: {FILL_IN}."
    return f"of the package `{_plain(package)}`: {_plain(licence.splitlines()[0])}."


def _plain(text: str) -> str:
    """Text that cannot end a line or a code span."""
    return re.sub(r"[`<>|\s]+", " ", text)


def _figure(percent: float | None) -> str:
    return "" if percent is None else f"{percent:.2f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])
