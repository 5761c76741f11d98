"""Recommends one model of a study: which one, why, what it gains, and what to do next."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..inference.confusions import Confusions
from ..inference.metrics import class_iou, mean_ious
from ..inference.paired import Difference, choose, describe, difference, interval
from ..runtime.errors import first_of
from ..settings.methods import SUPERVISED
from .tables import CONTROL, markdown_table

MOST_METHODS = 3
"""At most this many methods that were not tried are named."""


@dataclass(frozen=True)
class Candidate:
    """The last model of a method, on each of several seeds.

    folders: below the study's folder, one for each seed. round: in which its weights were reached,
    on each seed. learns_unlabeled: whether the method uses unlabeled images. chosen_on: on the
    images that choose, by seed; `scored` on those that give the score. still_rises: whether the
    best validation was the last of several.
    """

    method: str
    folders: Sequence[str]
    rounds: Sequence[int]
    learns_unlabeled: bool
    chosen_on: Confusions
    scored: Confusions
    still_rises: bool


@dataclass(frozen=True)
class Images:
    """Where the choice and the score come from. by_folds, tested: whether folds, and test images.

    chosen_in, scored_in: groups of the images, see `paired.resampling_groups`.
    """

    by_folds: bool
    tested: bool
    chosen_in: Sequence[int]
    scored_in: Sequence[int]


def stacked(found: Sequence[Confusions]) -> Confusions:
    """Join the matrices of several seeds, int64 (seeds, images, classes, classes), by id."""
    ids = sorted(found[0].ids)
    orders = [np.array([one.ids.index(id) for id in ids], int) for one in found]
    return Confusions(
        ids, np.stack([one.matrices[order] for one, order in zip(found, orders, strict=True)])
    )


@dataclass(frozen=True)
class Recommendation:
    """The recommended candidate. folder: of its model, below the study's folder.

    candidates: all of them. over_labels, over_control: what it gains on the scored images; None
    where there is nothing to compare, as it is this model itself or was not trained.
    """

    candidates: Sequence[Candidate]
    best: Candidate
    folder: str
    images: Images
    over_labels: Difference | None
    over_control: Difference | None

    @property
    def score(self) -> float:
        """MIoU in percent on the scored images, the mean of the seeds."""
        return _miou(self.best.scored)

    @property
    def paid(self) -> bool | None:
        """Whether a model with unlabeled images is recommended; None if there is none."""
        if not any(one.learns_unlabeled for one in self.candidates):
            return None
        return self.best.learns_unlabeled

    def content(self) -> dict[str, Any]:
        """The content of recommendation.json."""
        low, high = interval(self.best.scored.matrices, self.images.scored_in)
        return {
            "model": self.folder,
            "method": self.best.method,
            "subset": _scored_on(self.images),
            "images": len(self.best.scored.ids),
            "miou": _finite(self.score),
            "miou_interval": [_finite(low), _finite(high)],
            "over_labels": self.over_labels and _numbers(self.over_labels),
            "over_control": self.over_control and _numbers(self.over_control),
            "unlabeled_images_paid": self.paid,
        }


def recommend(candidates: Sequence[Candidate], images: Images) -> Recommendation:
    """Choose the model to use, by paired differences on the images that choose.

    candidates: `supervised` first, then controls, then the others; see `paired.choose`. Of several
    seeds, the model with the highest mIoU on these images is handed over.
    """
    best = candidates[choose([one.chosen_on for one in candidates])]
    # The first of several; a NaN is the lowest.
    seed = int(np.nan_to_num(mean_ious(best.chosen_on.matrices.sum(1)), nan=-1).argmax())

    def over(method: str) -> Difference | None:
        other = next((one for one in candidates if one.method == method), None)
        if other is None or other is best:
            return None
        return difference(best.scored.matrices, other.scored.matrices, images.scored_in)

    return Recommendation(
        candidates, best, best.folders[seed], images, over(SUPERVISED), over(CONTROL)
    )


def text(
    found: Recommendation, study: Path, classes: Sequence[str], known_methods: Collection[str]
) -> str:
    """Return recommendation.md. study: its folder; known_methods: all that could be tried."""
    parts = [
        "# Recommendation",
        "\n".join(f"* {line}" for line in summary(found, study)),
        "## The models that were compared",
        _table(found),
        "## What was not tried",
        _untried(found, known_methods),
        "## What to do next",
        "\n".join(f"* {line}" for line in _next_steps(found, classes)),
    ]
    return "\n\n".join(parts) + "\n"


def summary(found: Recommendation, study: Path) -> list[str]:
    """The recommendation in four lines: which model, its score, its gain, and whether it paid."""
    return [_which(found, study), _score(found), _gain(found), _paid(found)]


def _which(found: Recommendation, study: Path) -> str:
    best = found.best
    origin = best.rounds[best.folders.index(found.folder)]
    weights = f", weights of round {origin}" if best.learns_unlabeled or origin == 0 else ""
    where = {
        True: "on the masks, each held out in one fold",
        False: f"on the {len(best.chosen_on.ids)} val images",
    }[found.images.by_folds]
    others = len(found.candidates) - 1
    why = f"It has the highest mIoU of {others + 1} methods {where}." if others else ""
    return f"Use `{study}/model.pt`: `{best.method}`{weights}, from `{found.folder}`. {why}".strip()


def _score(found: Recommendation) -> str:
    low, high = interval(found.best.scored.matrices, found.images.scored_in)
    known = "" if math.isnan(low) else f" (95 % interval {low:.1f} to {high:.1f})"
    count = len(found.best.scored.ids)
    what = {
        "test": f"on {count} test images, which have chosen nothing",
        "val": f"on {count} val images, which also chose it: expect less on other images",
        "folds": f"on {count} masks, each held out in one fold. This is the score of the procedure "
        "that made the model, not of the model itself, which has seen all masks",
    }[_scored_on(found.images)]
    return f"Score: mIoU {found.score:.1f} %{known} {what}."


def _gain(found: Recommendation) -> str:
    parts = [
        f"{describe(one)} over {what}"
        for one, what in (
            (found.over_labels, f"the labels alone (`{SUPERVISED}`)"),
            (found.over_control, f"the labels alone for as many steps (`{CONTROL}`)"),
        )
        if one
    ]
    return f"Gain: {'; '.join(parts)}." if parts else "Gain: there is nothing to compare it with."


def _paid(found: Recommendation) -> str:
    over = found.over_control
    if found.paid is None:
        return "Unlabeled images: no method that uses them was trained."
    if not found.paid:
        return (
            "Unlabeled images: they did not pay. No model that was trained with them is better on "
            "the images that choose."
        )
    if over is None:
        return (
            f"Unlabeled images: whether they paid is unknown, as the control `{CONTROL}` was not "
            "trained."
        )
    if over.low > 0:
        return "Unlabeled images: they paid. The whole interval of the gain is above 0."
    if over.mean > 0:
        return (
            "Unlabeled images: they seem to have paid, but so few images cannot say for sure: the "
            "interval of the gain is not all above 0."
        )
    return (
        "Unlabeled images: it is not sure that they paid. The model is better than the control "
        "where it was chosen, but not on the images of the score."
    )


def _untried(found: Recommendation, known_methods: Collection[str]) -> str:
    tried = {one.method.partition("/")[0].partition("@")[0] for one in found.candidates}
    names = [f"`{name}`" for name in known_methods if name not in tried]
    methods = first_of(names, MOST_METHODS, "others") if names else "none"
    seeds = len(found.best.folders)
    runs = "one seed" if seeds == 1 else f"{seeds} seeds"
    return (
        f"Methods: {methods}. Each method was trained with {runs}: the intervals say how much the "
        "images matter, not how much another seed would change. Other networks, sizes of images "
        "and learning rates were not compared."
    )


def _next_steps(found: Recommendation, classes: Sequence[str]) -> list[str]:
    name, iou, shown = _worst_class(found.best, classes)
    steps = [
        f"More masks that show `{name}`: its IoU is the lowest, {iou:.0f} %, and "
        f"{shown} of the {len(found.best.chosen_on.ids)} images that chose the model show it. "
        "docs/guides/label-more.md says which images to label first."
    ]
    if found.best.still_rises:
        steps.append("More hours: its mIoU was still rising at the last step of its training.")
    if found.paid is False:
        steps.append(
            "Another method on the same unlabeled images, or more of them: "
            "docs/reference/methods.md lists the methods; name them under `runs`."
        )
    return steps


def _scored_on(images: Images) -> str:
    return "test" if images.tested else "folds" if images.by_folds else "val"


def _worst_class(best: Candidate, classes: Sequence[str]) -> tuple[str, float, int]:
    """The class with the lowest IoU, in percent, and how many of the choosing images show it."""
    matrices = best.chosen_on.matrices.sum(0)
    iou = 100 * class_iou(matrices.sum(0))
    shown = (matrices.sum(-1) > 0).sum(0)
    worst = int(np.nanargmin(np.where(shown > 0, iou, np.nan)))
    return classes[worst], float(iou[worst]), int(shown[worst])


def _table(found: Recommendation) -> str:
    header = ["method", "round", "mIoU % where it was chosen"]
    header += ["mIoU % on test"] if found.images.tested else []
    header += ["the recommended model against it, where it was chosen"]
    rows = []
    for one in found.candidates:
        ours, theirs = found.best.chosen_on, one.chosen_on
        compared = difference(ours.matrices, theirs.matrices, found.images.chosen_in)
        cells = [f"`{one.method}`", " ".join(map(str, one.rounds)), f"{_miou(theirs):.2f}"]
        cells += [f"{_miou(one.scored):.2f}"] if found.images.tested else []
        rows.append([*cells, "recommended" if one is found.best else describe(compared)])
    return markdown_table(header, rows)


def _miou(found: Confusions) -> float:
    return 100 * float(np.mean(mean_ious(found.matrices.sum(1))))


def _numbers(found: Difference) -> dict[str, Any]:
    return {"mean": _finite(found.mean), "interval": [_finite(found.low), _finite(found.high)]}


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value
