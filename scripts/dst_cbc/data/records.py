"""Lists the images of a data set as records, whatever its layout on disk."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from ..runtime.errors import DataError
from ..runtime.paths import is_relative
from ..settings.data import DatasetStage, SubsetPatterns
from ..settings.experiment import Experiment
from ..settings.stages import TrainStage
from .groups import fitting, groups_of
from .layouts import LAYOUTS
from .layouts.layout import Record, same_name

Item = TypeVar("Item")


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the items, evenly spaced, from the first one on."""
    count = min(most, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def dataset_stage(experiment: Experiment) -> DatasetStage:
    """Return the data set's settings; what the experiment leaves out comes from its format.

    Raises ValueError when neither the experiment nor the format defines classes, when `pairs` or
    `annotations` and the format do not match, and when `classes`, `labels` and `ignore` contradict
    each other.
    """
    layout = LAYOUTS[experiment.format]
    classes = experiment.classes or layout.classes
    if classes is None:
        raise ValueError(
            f"classes: missing; format {experiment.format!r} defines none, so the experiment file "
            "must list them"
        )
    labels: Any = experiment.labels or layout.labels or dict(enumerate(classes))
    ignore = experiment.ignore
    if ignore is None:
        ignore = layout.ignore if all(isinstance(value, int) for value in labels) else ()
        if layout.labels:
            # The experiment may map a value to a class that the format ignores by default.
            ignore = tuple(value for value in ignore if value not in labels)
    annotated = experiment.format == "annotations"
    if (experiment.pairs is not None) != (annotated or experiment.format == "pairs"):
        raise ValueError(
            "pairs: needed with `format: pairs` and `format: annotations`, and not allowed without "
            "them"
        )
    if (experiment.annotations is not None) != annotated:
        raise ValueError(
            "annotations: needed with `format: annotations`, and not allowed without it"
        )
    if annotated and (experiment.labels or experiment.ignore):
        raise ValueError(
            "labels, ignore: not allowed with `format: annotations`, which draws the masks; "
            "`annotations.names` says which class each label means"
        )
    try:
        return DatasetStage(
            format=experiment.format,
            classes=dict(classes),
            labels=labels,
            ignore=ignore,
            window=experiment.window,
            bands=experiment.bands,
            test_from_val=experiment.test_from_val,
            digits=experiment.digits if experiment.format == "digits" else None,
            pairs=experiment.pairs,
            subsets=experiment.subsets,
            grouping=experiment.group,
            annotations=experiment.annotations,
            drawn=f"results/{experiment.name}/masks" if annotated else None,
        )
    except ValidationError as error:
        faults = "; ".join(fault["msg"].removeprefix("Value error, ") for fault in error.errors())
        # Those of `annotations` name their key.
        keys = "" if faults.startswith("annotations.") else "classes, labels, ignore: "
        raise ValueError(f"{keys}{faults}") from None


def list_records(root: Path, dataset: DatasetStage) -> list[Record]:
    """Return every image of the data set, sorted by id; no file is decoded.

    Raises DataError when the folder or its lists are missing, there is no image, two ids are equal
    or differ only in case, an id or a path would lead out of its folder, or `subsets` does not fit
    the ids.
    """
    if dataset.format != "digits" and not root.is_dir():
        hint = LAYOUTS[dataset.format].hint
        raise DataError(f"{root}: no such folder; set `data` (or --config data=PATH){hint}")
    records = sorted(LAYOUTS[dataset.format].records(root, dataset), key=lambda record: record.id)
    if not records:
        raise DataError(f"{root}: no images found in the layout `{dataset.format}`")
    problems = _alike(root, records)
    problems += [
        f"{root}: {name!r} cannot be an id or a path; expected a relative path without `..`, "
        "backslashes and line breaks, in UTF-8"
        for record in records
        for name in (record.id, record.image, record.label or record.image)
        if not is_relative(name)
    ]
    if problems:
        raise DataError("\n".join(problems))
    if dataset.subsets:
        records = _in_subsets(root, records, dataset.subsets)
        _require_whole_groups(records, dataset.group_pattern)
    return _hold_back(records, dataset.test_from_val)


def _alike(root: Path, records: Iterable[Record]) -> list[str]:
    """Describe the images whose ids are equal, or differ only in case or in their Unicode form."""
    images: dict[str, dict[str, list[str]]] = {}
    for record in records:
        ids = images.setdefault(same_name(record.id).casefold(), {})
        ids.setdefault(record.id, []).append(record.image)
    problems = [
        f"{root}: id {id!r} occurs {len(files)} times, for {' and '.join(files)}; ids must be "
        "unique: rename or remove all but one"
        for ids in images.values()
        for id, files in ids.items()
        if len(files) > 1
    ]
    return problems + [
        f"{root}: the ids of {' and '.join(files[0] for files in ids.values())} differ only in "
        "case, or in how Unicode writes an accent; rename one of them, since many disks cannot "
        "hold both"
        for ids in images.values()
        if len(ids) > 1
    ]


def selecting(images: Iterable, stage: TrainStage) -> list:
    """Return the images on which models are validated: those that the stage lists, or all of val.

    images: records, or rows of dataset.csv.
    """
    if listed := {*stage.valtiny, *stage.held_out}:
        return [image for image in images if image.id in listed]
    if stage.select == "folds":
        return []
    return [image for image in images if image.subset == "val"]


def _in_subsets(root: Path, records: list[Record], given: SubsetPatterns) -> list[Record]:
    """Return the records that are used, each in the subset that the patterns say."""
    ids = [record.id for record in records]
    fit: dict[str, set[str]] = {"none": set(), "test": set(), "val": set()}
    for subset, found in fit.items():
        for pattern in getattr(given, subset):
            fits = fitting(ids, pattern, f"subsets.{subset}")
            if not fits:
                raise DataError(
                    f"subsets.{subset}: {pattern!r} fits none of the {len(ids)} ids of the images "
                    f"in {root}, such as {ids[0]!r}; correct it, or remove it"
                )
            found |= fits
    if both := (fit["val"] & fit["test"]) - fit["none"]:
        raise DataError(
            f"subsets: both val and test fit {min(both)!r} ({len(both)} such ids); expected at "
            "most one of them. Make a pattern narrower, or leave these images out with `none`"
        )
    subsets = {id: subset for subset in ("val", "test") for id in fit[subset]}
    return [
        replace(record, subset=subsets.get(record.id, "train"))
        for record in records
        if record.id not in fit["none"]
    ]


def _require_whole_groups(records: Iterable[Record], pattern: str | None) -> None:
    """Raise DataError if images of one group are in two subsets."""
    subsets = {record.id: record.subset for record in records}
    first: dict[str, str] = {}
    parted: dict[str, tuple[str, str]] = {}
    for id, group in groups_of(subsets, pattern).items():
        if subsets[first.setdefault(group, id)] != subsets[id]:
            parted.setdefault(group, (first[group], id))
    if parted:
        group, (one, other) = min(parted.items())
        raise DataError(
            f"subsets: group {group!r} is in {subsets[one]} with {one!r} and in {subsets[other]} "
            f"with {other!r} ({len(parted)} such groups); expected all images of a group in one "
            "subset. Move some, or leave them out with `none`"
        )


def _hold_back(records: list[Record], every: int) -> list[Record]:
    """Move every n-th validation image to the test subset; 0 moves none."""
    if not every:
        return records
    held = {r.id for r in [r for r in records if r.subset == "val"][every - 1 :: every]}
    return [replace(r, subset="test") if r.id in held else r for r in records]
