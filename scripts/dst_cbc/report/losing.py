"""Rounds that lose: those that fall behind an earlier round of their chain.

Three signs are looked for: mIoU on val, classes in the pseudo labels, and agreement between
rounds. No mask of an unlabeled image is read. A file that is missing gives no sign.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np

from ..inference.confusions import Confusions, read_confusions
from ..inference.metrics import FEW_IMAGES, group_sums
from ..inference.paired import (
    Difference,
    choose,
    describe,
    jackknifed,
    paired,
    resampling_groups,
)
from ..runtime import escape
from ..runtime.tables import csv_header, optional, read_csv, whole
from ..settings.data import Grouping
from .model_files import grouping_of, read_metrics, read_run, read_settings

CHANCE = 0.025
"""Most chance that a round of equal quality is called worse: its 95 % interval is below zero."""
VANISHED = 100
"""A class vanishes from the labels when less than one in so many of its labeled pixels is left.

A larger alpha labels more pixels of the same prediction, so what is missing is no longer predicted,
or much less surely. Smaller losses also happen in rounds that gain.
"""
POINTS = 1.0
"""Points by which agreement may fall because alpha grows.

The pixels that a larger alpha adds are less sure, and change more often. In the demo, whose rounds
gain, this costs 0.4 points in the last round.
"""


@dataclass(frozen=True)
class Loss:
    """A sign that a round loses.

    path: the round's folder, relative to the study's. sentence: what was lost, how much, and what
    to do, in Markdown.
    """

    path: str
    sentence: str


def losses(study: Path, models: Sequence[str]) -> list[Loss]:
    """Return the signs of all kinds for `models`, folders relative to `study`."""
    found = [worse_on_val, vanished_classes, falling_agreement]
    return [loss for signs in found for loss in signs(study, models)]


def notes(found: Iterable[Loss]) -> str:
    """Markdown list of signs; "" if there are none."""
    lines = [f"* `{loss.path}`: {loss.sentence}" for loss in found]
    return "\n".join(["Rounds that lose:", "", *lines]) if lines else ""


@dataclass(frozen=True)
class Compared:
    """A round's last step against the best of the `earlier` last steps of its chain, on val.

    path, best: their folders, relative to the study's.
    """

    path: str
    best: str
    earlier: int
    difference: Difference


def comparison_notes(compared: Iterable[Compared]) -> str:
    """Markdown list of how sure the comparisons of rounds on few val images are; "" if none is."""
    lines = [
        f"* `{one.path}` against `{one.best}`: {describe(one.difference)}"
        for one in compared
        if one.difference.images < FEW_IMAGES
    ]
    heading = "Few images: each last step against the best last step before it, on `val`."
    return "\n".join([heading, "", *lines]) if lines else ""


def compared_on_val(study: Path, models: Sequence[str]) -> Iterator[Compared]:
    """Yield each round with the best last step before it; the first one is that of `supervised`.

    Nothing is yielded where val is not reported, and for a round that has trained nothing.
    """
    known = _known_ids(study)
    for chain in _chains(models):
        before: dict[str, Confusions] = {}
        for path in chain:
            found = _last_step(study / path)
            if found is None:
                continue
            if before:
                best = [*before][choose([*before.values()])]
                difference = paired(found, before[best], known, _grouping(study / path))
                yield Compared(path, best, len(before), difference)
            before[path] = found


def worse_on_val(study: Path, models: Sequence[str]) -> Iterator[Loss]:
    """Yield the rounds whose last step is worse on val than the best last step before it.

    The whole 95 % interval of the difference must be below zero, and more where the other one is
    the best of several, which is partly luck (Bonferroni).
    """
    return worse(compared_on_val(study, models))


def worse(compared: Iterable[Compared]) -> Iterator[Loss]:
    """Yield those of the compared rounds that are worse, as in `worse_on_val`."""
    for one in compared:
        if one.earlier * one.difference.above <= CHANCE:
            yield Loss(
                one.path,
                f"mIoU on `val` after the last step, against `{one.best}`: "
                f"{describe(one.difference)}; use `{one.best}/last.pt`, and try a lower "
                "train.learning_rate or fewer train.steps",
            )


def _last_step(folder: Path) -> Confusions | None:
    path, metrics = folder / "confusions.csv", read_metrics(folder / "metrics.json")
    figures = metrics and metrics["last"]["subsets"].get("val")
    if not (figures and path.is_file()) or "stopped" in (read_run(folder / "run.json") or {}):
        return None
    return read_confusions(path, len(figures["classes"])).get(("last", "val"))


def vanished_classes(study: Path, models: Sequence[str]) -> Iterator[Loss]:
    """Yield the rounds in which classes vanish from the pseudo labels, while alpha does not fall.

    The labeled pixels of a class are compared with the most in an earlier round, so a slow decline
    is seen, too. Fewer than one pixel for each image are noise, whose end is no loss.
    """
    for chain in _chains(models):
        most: dict[str, tuple[int, str]] = {}
        alpha = Decimal(0)
        for path in chain:
            manifest, settings = study / path / "pseudo_labels.csv", study / path / "settings.json"
            asked = read_settings(settings).get("thresholds") if settings.is_file() else None
            if not (asked and manifest.is_file()):
                continue
            if asked["alpha"] < alpha:
                most = {}
            alpha = asked["alpha"]
            counts, images = _labeled_pixels(manifest)
            gone = {
                name: most.pop(name)
                for name, count in counts.items()
                if name in most and most[name][0] >= max(images, VANISHED * count + 1)
            }
            if gone:
                yield Loss(path, _lost(gone, counts))
            for name in counts.keys() - gone.keys():
                most[name] = max((counts[name], path), most.get(name, (0, "")))


def _labeled_pixels(manifest: Path) -> tuple[dict[str, int], int]:
    """{class: labeled pixels in all images} and the number of images, from pseudo_labels.csv."""
    columns = [name for name in csv_header(manifest) if name.startswith("pixels ")]
    rows = read_csv(manifest, dict.fromkeys(columns, whole))
    counts = {name.removeprefix("pixels "): sum(row[name] for row in rows) for name in columns}
    return counts, len(rows)


def _lost(gone: Mapping[str, tuple[int, str]], counts: Mapping[str, int]) -> str:
    classes = ", ".join(
        f"class '{escape.markdown(name)}' ({most:,} pixels in `{path}`, now {counts[name]:,})"
        for name, (most, path) in gone.items()
    )
    return (
        f"the pseudo labels have lost {classes}; label more images that show it, or set "
        "train.class_weights to balanced"
    )


def falling_agreement(study: Path, models: Sequence[str]) -> Iterator[Loss]:
    """Yield the rounds whose agreement is below that of the round before.

    Agreement is the share of the pixels labeled in a round and in the one before that have the same
    class in both. The whole 95 % interval of the difference, over the unlabeled images, must be
    below -POINTS.
    """
    known = _known_ids(study)
    for chain in _chains(models):
        for path, ids, counts in _agreements(study, chain):
            groups = resampling_groups(ids, known, _grouping(study / path))
            if len({*groups}) < 2:
                continue
            before, now = _shares(counts, groups)
            change = jackknifed(now - before, len(ids))
            if change.high < -POINTS:
                yield Loss(
                    path,
                    f"{now[0]:.1f} % of the pixels labeled in this round and in the one before "
                    f"keep their class, {before[0]:.1f} % in the round before: {describe(change)}; "
                    f"look at `{path.rpartition('/')[0]}/gallery.html`, which begins with the "
                    "images that agree least",
                )


def _agreements(study: Path, chain: Sequence[str]) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Yield each round that has an agreement, as its round before has: folder, ids and counts.

    counts: int64 (2, images, 2), of the round before and of this one: pixels of the same class, and
    all pixels that are labeled in a round and in the one before. The latter are above 0.
    """
    table = (study / chain[-1]).with_name("agreement.csv")
    cells = {"id": str, "round": whole, "both": optional(whole), "same": optional(whole)}
    rows = read_csv(table, cells) if table.is_file() else []
    rounds = [
        {
            r["id"]: (r["same"] or 0, r["both"])
            for r in rows
            if r["round"] == _round(path) and r["both"]
        }
        for path in chain[1:]
    ]
    for path, before, now in zip(chain[2:], rounds, rounds[1:], strict=False):
        if ids := [id for id in now if id in before]:
            yield path, ids, np.array([[of[id] for id in ids] for of in (before, now)])


def _shares(counts: np.ndarray, groups: Sequence[int]) -> np.ndarray:
    """float64 (2, 1 + groups): both agreements on all images, and without each group, in percent.

    counts: of `_agreements`.
    """
    sums = group_sums(counts[..., None], groups)[..., 0]
    total = sums.sum(1, keepdims=True)
    same, both = np.moveaxis(np.concatenate([total, total - sums], 1), -1, 0)
    return 100 * same / both


def _known_ids(study: Path) -> list[str]:
    """Ids of the data set; none if dataset.csv is missing."""
    index = study / "dataset.csv"
    return [row["id"] for row in read_csv(index, ["id"])] if index.is_file() else []


def _grouping(folder: Path) -> Grouping | None:
    """How images are put into groups, by the settings of a model."""
    settings = folder / "settings.json"
    return grouping_of(read_settings(settings)) if settings.is_file() else None


def _chains(models: Sequence[str]) -> Iterator[list[str]]:
    """Yield the folders of each chain: `supervised` of the same split, then its rounds in order."""
    methods = dict.fromkeys(path.rpartition("/round")[0] for path in models if "/round" in path)
    for method in methods:
        rounds = {path for path in models if path.rpartition("/round")[0] == method}
        yield [f"{method.partition('/')[0]}/supervised", *sorted(rounds, key=_round)]


def _round(path: str) -> int:
    return int(path.rpartition("/round")[2])
