"""`choice.json`: the rounds and steps that the folds choose for the trainings on all masks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, NotRequired

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from ..inference.confusions import Confusions, read_confusions
from ..inference.paired import Difference, difference, require_same_images
from ..runtime.errors import DataError
from ..runtime.reading import read_json
from ..runtime.tables import read_csv, whole
from ..settings.methods import SUPERVISED


class Chosen(TypedDict):
    """What the folds say about one training, by its path below the split's folder.

    share: of its steps, after which its model is taken, 0..1. stopped: why it trains nothing and
    copies the model of the round before.
    """

    share: NotRequired[Annotated[float, Field(gt=0, le=1)]]
    stopped: NotRequired[str]


class Choice(TypedDict):
    """Chosen for each training. best: path below the split's folder of the best model."""

    models: dict[str, Chosen]
    best: str


def read_choice(path: Path) -> Choice:
    """Read choice.json. Raises DataError if it is damaged."""
    return read_json(path, Choice)


def chosen_for(path: Path, name: str) -> Chosen:
    """Return what the folds have chosen for the training `name`.

    Raises DataError if the file is damaged, or says nothing about it.
    """
    choice = read_choice(path)
    if name not in choice["models"]:
        raise DataError(
            f"{path}: says nothing about {name!r}; found {', '.join(choice['models'])}; delete the "
            "file and run the workflow again"
        )
    return choice["models"][name]


@dataclass(frozen=True)
class OutOfFold:
    """One training of all folds, in the order of the folds.

    found: its models after the last step, each on the images of its own fold. curves: rows of
    history.csv, (step, mIoU in percent).
    """

    found: Confusions
    curves: Sequence[Sequence[tuple[int, float]]]

    @property
    def share(self) -> float:
        """The share of the steps after which the mean mIoU over the folds is the highest, 0..1."""
        steps = zip(*self.curves, strict=True)
        reached = [(fmean(miou for _, miou in step), step[0][0]) for step in steps]
        last = reached[-1][1]
        # `max` takes the first of several, and a NaN is never above.
        best = max(reached, key=lambda one: -math.inf if math.isnan(one[0]) else one[0])
        return best[1] / last


def out_of_fold(models: Sequence[Path], classes: int) -> OutOfFold:
    """Read one training of all folds. models: its folder in each fold."""
    found = [read_confusions(one / "confusions.csv", classes)["last", "val"] for one in models]
    cells = {"step": whole, "miou": float}
    curves = [read_csv(one / "history.csv", cells) for one in models]
    return OutOfFold(
        Confusions(
            [id for one in found for id in one.ids], np.concatenate([one.matrices for one in found])
        ),
        [[(row["step"], row["miou"]) for row in curve] for curve in curves],
    )


def choose(
    trainings: Mapping[str, OutOfFold], groups: Sequence[int]
) -> tuple[Choice, list[tuple[str, str, Difference]]]:
    """Choose the rounds and steps; also return all comparisons: ours, theirs, difference.

    trainings: by their path below the split's folder, `supervised` first, rounds in their order.
    groups: of the images of `found`. In each chain, a round replaces the best so far if its paired
    mean is above; then the same between `supervised`, the controls, and the best of each chain.
    """
    compared = []

    def better(candidates: Sequence[str]) -> str:
        best = candidates[0]
        for name in candidates[1:]:
            ours, theirs = trainings[name].found, trainings[best].found
            require_same_images(ours, theirs)
            compared.append((name, best, difference(ours.matrices, theirs.matrices, groups)))
            if compared[-1][2].mean > 0:
                best = name
        return best

    chains: dict[str, list[str]] = {}
    for name in trainings:
        if name != SUPERVISED:
            chains.setdefault(name.rpartition("/")[0], []).append(name)
    chosen: dict[str, Chosen] = {SUPERVISED: {"share": 1.0}}
    best = [SUPERVISED]
    for rounds in chains.values():
        # A method or control of one training is compared below, with all others.
        last = better([SUPERVISED, *rounds]) if len(rounds) > 1 else rounds[0]
        end = [SUPERVISED, *rounds].index(last)
        for number, name in enumerate(rounds, 1):
            if number > end:
                chosen[name] = {"stopped": f"the folds chose round {end}"}
            else:
                chosen[name] = {"share": trainings[name].share if number == end else 1.0}
        best += [last]
    return {"models": chosen, "best": better(list(dict.fromkeys(best)))}, compared
